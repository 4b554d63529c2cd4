"""What the adapters share: the package and its model, audio files, and the checks before whisper.cpp."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Callable

from whisper_package.model_file import HyperParameters, check_model_file
from whisper_package.package import Package
from whisper_package.vad_file import check_vad_file
from whisper_package.variants import Variant, choose_variant, cpu_flags
from whisper_xeon.audio.decode import SAMPLE_RATE, decode, map_samples
from whisper_xeon.engine import context, library, voice
from whisper_xeon.engine.cores import MAX_THREADS, available_cores
from whisper_xeon.engine.errors import UnsupportedOptionError, adapter_errors
from whisper_xeon.engine.timeline import Speech, Timeline, restored
from whisper_xeon.languages import find_language, known_to
from whisper_xeon.transcript import DecodeOptions, Transcript

# whisper.cpp answers anything shorter than 100 ms with nothing, and reads out of bounds below 201 samples: such a clip
# is handled here. It counts frames of 160 samples, of which the first needs 200.
MIN_SAMPLES = 200 + 9 * 160
_MAX_FILE_SECONDS = 6 * 3600

# Gets the language's code and the texts of further segments, which no more change, while the rest is being computed.
Heard = Callable[[str, Sequence[str]], None]


class WhisperAdapter:
    """Transcribes with the model of one package. Use it as a context manager, or call `close`."""

    variant: Variant  # the CPU library in use
    window_begins: Callable[[], None] = staticmethod(lambda: None)  # called before each window, where that is known
    _detector: voice.SpeechDetector | None = None
    _weighs_languages = True  # whether it can tell how probable a detected language is

    def __init__(
        self,
        model_size: str | None = None,
        artifacts_dir: os.PathLike[str] | str | None = None,
        threads: int | None = None,
        *,
        package: Package | None = None,
        audio_ctx: str = "auto",
        cpu_variant: str | None = None,
        vad: bool = True,
    ):
        """Open the package of model `model_size` (default: $WHISPER_MODEL_SIZE, else small) below `artifacts_dir`
        (default: $WHISPER_ARTIFACTS_DIR, else `.`).

        `threads` compute one clip; by default as many as this process may use, up to 8. `package` replaces the
        first two. `audio_ctx` is `auto`: the encoder sees of a shorter clip's window what it needs, and all of it
        where the text is doubtful (see `context`); or `full`: it always sees 30 s, as it was trained. `cpu_variant`
        names one of the package's CPU libraries (default: $WHISPER_CPU_VARIANT, else, and for `auto`, the best that
        this processor runs). `vad` has what is not speech skipped, where the package can tell and a request does not
        object. Raises `LibraryLoadError` when the package or its libraries cannot be used here, `ModelInitError` when
        the model cannot.
        """
        with adapter_errors():
            self.package = package or Package.find(
                artifacts_dir or os.environ.get("WHISPER_ARTIFACTS_DIR") or ".",
                model_size or os.environ.get("WHISPER_MODEL_SIZE") or "small",
            )
            self._parameters = check_model_file(self.package.model_file)
            vad_file = self.package.vad_file if vad else None
            if vad_file:
                check_vad_file(vad_file)
            self.variant = choose_variant(
                self.package, cpu_flags(), cpu_variant or os.environ.get("WHISPER_CPU_VARIANT")
            )
        self._shorten = audio_ctx == "auto"
        self.threads = threads or min(available_cores(), MAX_THREADS)
        self._languages = known_to(self._parameters.n_vocab)
        self._open()
        if vad_file:
            self._detector = voice.SpeechDetector(library.load(self.package, self.variant), vad_file)

    @property
    def model_size(self) -> str:
        """The model's name, for example `small`."""
        return self.package.model

    @property
    def parameters(self) -> HyperParameters:
        """The dimensions of the model."""
        return self._parameters

    @property
    def multilingual(self) -> bool:
        """Whether the model knows languages other than English."""
        return len(self._languages) > 1

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows."""
        return self._languages

    def prepare(self) -> None:
        """Prepare the next transcription ahead of time. Raises `WhisperLibraryError`."""

    def probe(self) -> bool:
        """Compute a little, to see whether that works; false where that takes too much to be done every now and then.

        Raises `WhisperLibraryError`.
        """
        return False

    def transcribe(self, audio_path: os.PathLike[str] | str, **options: Any) -> str:
        """Return the text spoken in an audio file; `options` and errors are those of `transcript`."""
        return self.transcript(audio_path, **options).text

    def transcript(self, audio_path: os.PathLike[str] | str, **options: Any) -> Transcript:
        """Return text, language, segments and words of an audio file of any format that `whisper_xeon.audio` reads.

        `options` are fields of `DecodeOptions`: `language` (also by name), `task`, `word_timestamps` and so on. Raises
        `OSError` when the file cannot be opened, `AudioError` when it contains no readable audio, and what
        `transcribe_pcm` raises; `TypeError` for an option that there is not.
        """
        asked = DecodeOptions(**options)
        if asked.language is not None:
            asked = replace(asked, language=find_language(asked.language) or asked.language)
        fd = os.open(audio_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            audio = decode(fd, max_seconds=_MAX_FILE_SECONDS, timeout=600)
        finally:
            os.close(fd)
        with audio:
            samples = map_samples(audio.fd, audio.samples) if audio.samples else b""
            return self.transcribe_pcm(samples, asked)

    def transcribe_many(self, audio_paths: Iterable[os.PathLike[str] | str], **options: Any) -> list[Transcript]:
        """Return what `transcript` returns for each of the files, in their order.

        Where the package can, up to 8 are decoded together, which takes less time and more memory (see
        docs/performance.md). What `transcript` raises for a file is raised when all are done, that of the first one.
        """
        return [self.transcript(path, **options) for path in audio_paths]

    def transcribe_pcm(
        self, samples: Any, options: DecodeOptions | None = None, *, heard: Heard | None = None
    ) -> Transcript:
        """Return the transcript of `samples`: a buffer of float32, mono, 16 kHz, within -1 to 1.

        `heard` gets what is done of its text on the way, where the adapter can tell. A clip shorter than 100 ms has a
        transcript without segments, like one without speech. Raises `UnsupportedOptionError` for options that this
        model cannot follow, `WhisperLibraryError` when whisper.cpp fails.
        """
        options = options or DecodeOptions()
        self._check(options)
        view = memoryview(samples).cast("B")
        count = len(view) // 4
        if count < MIN_SAMPLES:
            return self._nothing(count, options)
        if self._detector and options.vad:
            return self._transcribe_speech(self._detector, view[: 4 * count], count, options, heard)
        return self._transcribe(view[: 4 * count], count, options, heard)

    def close(self) -> None:
        """Free all memory; further transcriptions raise, and closing again does nothing."""
        if self._detector:
            self._detector.close()

    def __enter__(self) -> WhisperAdapter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> None:
        """Do what is done once."""
        raise NotImplementedError

    def _check(self, options: DecodeOptions) -> None:
        if options.language is not None and options.language not in self._languages:
            known = "" if self.multilingual else ": it knows English only"
            raise UnsupportedOptionError(
                f"model {self.model_size} does not know the language {options.language!r}{known}"
            )
        if options.task == "translate" and not self.multilingual:
            raise UnsupportedOptionError(f"model {self.model_size} knows English only and cannot translate")

    def _nothing(self, count: int, options: DecodeOptions) -> Transcript:
        """Return the transcript of `count` samples in which nothing is said."""
        language, probability = options.language or self._languages[0], None if options.language else 0.0
        return Transcript("", language, probability, count / SAMPLE_RATE, options.task, (), 0.0)

    def _transcribe_speech(
        self,
        detector: voice.SpeechDetector,
        samples: memoryview,
        count: int,
        options: DecodeOptions,
        heard: Heard | None,
    ) -> Transcript:
        """Transcribe what is speech in the samples, with the times of all of them."""
        probabilities = detector.probabilities(samples)
        speech = voice.find_speech(probabilities, options)
        if not speech:
            return self._transcribe_doubtful(voice.likeliest(probabilities), samples, count, options)
        parts = voice.kept_parts(speech, count, options)
        kept = sum(part.end - part.start for part in parts)
        if kept == count or kept < MIN_SAMPLES:
            parts, kept, passed = [voice.Span(0, count)], count, samples
        else:
            passed = memoryview(bytearray().join(samples[4 * part.start : 4 * part.end] for part in parts))
        words = heard and (lambda language, texts: heard(language, [text for text in texts if voice.has_words(text)]))
        transcript = voice.without_sounds(self._transcribe(passed, kept, options, words))
        spoken = [part.seconds for part in speech]
        transcript = restored(
            transcript, Timeline([part.seconds for part in parts]), Speech(spoken), count / SAMPLE_RATE
        )
        # The last frame may reach over the end.
        seconds = min(sum(stretch.end - stretch.start for stretch in spoken), transcript.duration)
        return replace(transcript, speech_seconds=seconds)

    def _transcribe_doubtful(
        self, window: voice.Span | None, samples: memoryview, count: int, options: DecodeOptions
    ) -> Transcript:
        """Transcribe samples of which the detection cannot tell.

        `window` is where speech is likeliest, None where there is none for certain.

        Whisper itself decides: it recognises a language in speech, and none in what is not.
        """
        if window is None:
            return self._nothing(count, options)
        recognized = self._recognized_language(samples[4 * window.start : 4 * window.end])
        if recognized and recognized[1] < voice.LEAST_LANGUAGE:
            return self._nothing(count, options)
        # Not detected again in the first 30 s of the recording, where there may be no speech.
        known = replace(options, language=options.language or recognized[0]) if recognized else options
        # Nobody hears of it on the way: whether any of it stays is known at the end only. It has whole windows:
        # with less than it was trained on, Whisper hears words in noise.
        transcript = voice.without_sounds(self._run(samples, count, known, 0, None))
        if not transcript.segments or (not recognized and not voice.is_credible(transcript, options)):
            return self._nothing(count, options)
        if recognized and not options.language:
            transcript = replace(transcript, language_probability=recognized[1])
        return replace(transcript, speech_seconds=transcript.duration)

    def _recognized_language(self, samples: memoryview) -> tuple[str, float] | None:
        """Return the language that is spoken in the samples and its probability; None where that cannot be told."""
        return None

    def _transcribe(self, samples: memoryview, count: int, options: DecodeOptions, heard: Heard | None) -> Transcript:
        """Transcribe `count` samples, given as bytes: a short clip with less than its window where that is enough."""
        certain = self._weighs_languages or options.language or not self.multilingual
        positions = context.positions(count, self._parameters.n_audio_ctx) if self._shorten and certain else 0
        if positions:
            # Nobody hears of it on the way: it may be decoded again.
            transcript = self._run(samples, count, context.first_try(options), positions, None)
            if not context.is_doubtful(transcript, options):
                return transcript
        return replace(self._run(samples, count, options, 0, heard), decoded_again=positions > 0)

    def _run(
        self, samples: memoryview, count: int, options: DecodeOptions, positions: int, heard: Heard | None
    ) -> Transcript:
        """Transcribe `count` samples, given as bytes, with `positions` of the encoder in each window; 0: all of them.

        With less than all, what is in a language that cannot be told may be left out.
        """
        raise NotImplementedError
