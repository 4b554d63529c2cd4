"""WhisperLibraryAdapter: speech to text through libwhisper, without the server.

    with WhisperLibraryAdapter("small", artifacts_dir="/path/to/packages") as whisper:
        print(whisper.transcribe("call.wav"))

The context (weights) is loaded once, by the constructor. Every transcription has a state (caches, buffers, random
numbers) of its own: what was heard before cannot show in what comes after, and the same clip gives the same transcript.
Making it takes 0.1 s for `small`; `prepare` does it ahead of time. A process may load, fork, and have each child
transcribe. Context and states are freed exactly once. One adapter transcribes one clip at a time: threads wait.
"""

from __future__ import annotations

import ctypes
import os
import threading
import unicodedata
from collections.abc import Iterator
from typing import Any

from whisper_xeon.audio.decode import SAMPLE_RATE, decode, map_samples
from whisper_xeon.engine import library
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.errors import ModelInitError, UnsupportedOptionError, WhisperLibraryError
from whisper_xeon.engine.model_file import check_model_file
from whisper_xeon.languages import LANGUAGES
from whisper_xeon.package import Package, PackageError
from whisper_xeon.transcript import DecodeOptions, Segment, Transcript, Word

# whisper.cpp answers anything shorter than 100 ms with nothing, and reads out of bounds below 201 samples: such a clip
# is answered here. It counts frames of 160 samples, of which the first needs 200.
MIN_SAMPLES = 200 + 9 * 160
MAX_THREADS = 8  # more gain little on one 30 s window and cost other requests
_MAX_FILE_SECONDS = 6 * 3600

# A window that decodes badly (repetition, low probability) is tried again at 0.4 and 0.8. whisper.cpp's own step of 0.2
# makes that six attempts, and the worst recordings take six times as long.
_TEMPERATURE_STEP = 0.4
# whisper.cpp splits a prompt with a recursive regular expression: 2,000 bytes are several times what the decoder can
# see (half its text context) and far from the end of the stack.
_MAX_PROMPT_BYTES = 2000
_NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue", "bo", "km"})
_WORST_LOGPROB = -100.0  # stands for minus infinity, which JSON cannot hold


class WhisperLibraryAdapter:
    """One loaded model. Use it as a context manager, or call `close`."""

    def __init__(
        self,
        model_size: str = "small",
        artifacts_dir: os.PathLike | str | None = None,
        threads: int | None = None,
        *,
        package: Package | None = None,
    ):
        """Load `whisper_<model_size>_xeon/` below `artifacts_dir` (default: $WHISPER_ARTIFACTS_DIR, else `.`).

        `threads` compute one clip; by default as many as this process may use, up to 8. `package` takes the place of
        the first two. Raises `LibraryLoadError` when the package or its libraries cannot be used here, `ModelInitError`
        when the model cannot.
        """
        self._context = self._state = None
        self._lock = threading.Lock()
        if package is None:
            try:
                package = Package.find(artifacts_dir or os.environ.get("WHISPER_ARTIFACTS_DIR") or ".", model_size)
            except PackageError as error:
                raise library.LibraryLoadError(str(error)) from None
        self.package = package
        self.threads = threads or min(available_cores(), MAX_THREADS)
        self._parameters = check_model_file(package.model_file)
        self._library = library.load(package)
        self._context = self._load()
        # Special tokens begin at the end-of-text token; language tokens follow its successor.
        self._text_end = self._library.whisper_token_eot(self._context)
        self._languages = tuple(LANGUAGES)[: self._parameters.n_vocab - 51766] if self.multilingual else ("en",)

    @property
    def model_size(self) -> str:
        """The model's name, for example `small`."""
        return self.package.model

    @property
    def variant(self) -> str:
        """Name of the CPU variant in use, for example `baseline`."""
        return self._library.variant

    @property
    def multilingual(self) -> bool:
        """Whether the model knows other languages than English."""
        return self._parameters.n_vocab > 51864

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows."""
        return self._languages

    def prepare(self) -> None:
        """Make the next transcription's state now. Raises `WhisperLibraryError` without memory."""
        with self._lock:
            self._ensure_state()

    def transcribe(self, audio_path: os.PathLike | str) -> str:
        """Return the text spoken in an audio file of any format that `whisper_xeon.audio` reads.

        Raises `OSError` when the file cannot be opened, `AudioError` when it holds no readable sound.
        """
        fd = os.open(audio_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            audio = decode(fd, max_seconds=_MAX_FILE_SECONDS, timeout=600)
        finally:
            os.close(fd)
        with audio:
            samples = map_samples(audio.fd, audio.samples) if audio.samples else b""
            return self.transcribe_pcm(samples).text

    def transcribe_pcm(self, samples: Any, options: DecodeOptions | None = None) -> Transcript:
        """Return the transcript of `samples`: a buffer of float32, mono, 16 kHz, within -1 to 1.

        A clip shorter than 100 ms, like one without speech, has a transcript without segments. Raises
        `UnsupportedOptionError` for options that this model cannot follow, `WhisperLibraryError` when the library
        fails.
        """
        options = options or DecodeOptions()
        self._check(options)
        view = memoryview(samples).cast("B")
        count = len(view) // ctypes.sizeof(ctypes.c_float)
        if count < MIN_SAMPLES:
            probability = None if options.language else 0.0
            return Transcript(
                "", options.language or self._languages[0], probability, count / SAMPLE_RATE, options.task, ()
            )
        array = ctypes.c_float * count
        # A writable buffer is used where it is; a read-only one has to be copied, since ctypes knows no const.
        pointer = array.from_buffer_copy(view) if view.readonly else array.from_buffer(view)
        with self._lock:
            self._ensure_state()
            try:
                return self._transcribe(pointer, count, options)
            finally:
                self._free_state()

    def close(self) -> None:
        """Free all memory; further transcriptions raise, closing again does nothing."""
        with self._lock:
            self._free_state()  # first: it points into the context
            context, self._context = self._context, None
            if context:
                self._library.whisper_free(context)

    def __enter__(self) -> WhisperLibraryAdapter:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __del__(self):
        if getattr(self, "_context", None):
            self.close()

    def _load(self) -> int:
        params = self._library.default_context_params()
        params.use_gpu = False
        path = self.package.model_file
        context = self._library.whisper_init_from_file_with_params_no_state(os.fsencode(path), params)
        if not context:
            raise ModelInitError(
                f"{path} was refused by libwhisper: {self._library.last_message() or 'no reason given'}"
            )
        return context

    def _ensure_state(self) -> None:
        if not self._context:
            raise WhisperLibraryError("the adapter is closed: make a new one")
        if not self._state:
            self._state = self._library.whisper_init_state(self._context)
            if not self._state:
                raise WhisperLibraryError(
                    f"libwhisper could not make a state: {self._library.last_message() or 'out of memory?'}"
                )

    def _free_state(self) -> None:
        state, self._state = self._state, None
        if state:
            self._library.whisper_free_state(state)

    def _check(self, options: DecodeOptions) -> None:
        if options.language is not None and options.language not in self._languages:
            raise UnsupportedOptionError(f"model {self.model_size} does not know the language {options.language!r}")
        if options.task == "translate" and not self.multilingual:
            raise UnsupportedOptionError(f"model {self.model_size} knows English only and cannot translate")

    def _transcribe(self, samples: ctypes.Array, count: int, options: DecodeOptions) -> Transcript:
        language, probability = options.language, None
        if language is None and self.multilingual:
            language, probability = self._detect_language(samples, count)
        params = self._library.default_params()
        params.n_threads = self.threads
        params.language = (language or "en").encode("ascii")
        params.translate = options.task == "translate"
        params.temperature = options.temperature
        # As in OpenAI's API: zero means "raise it when needed", anything else is meant as it is.
        params.temperature_inc = _TEMPERATURE_STEP if options.temperature == 0 else 0.0
        setattr(params, "greedy.best_of", 1)
        params.token_timestamps = options.word_timestamps
        params.no_context = True
        # Text of one window is not shown to the next: that is how Whisper falls into loops.
        params.n_max_text_ctx = 0
        params.print_special = params.print_progress = params.print_realtime = params.print_timestamps = False
        prompt = self._tokenize(options.prompt)  # referenced until the call below returns
        if prompt:
            # The budget holds the prompt and nothing else, so that every window sees it and still no window's text.
            params.carry_initial_prompt = True
            params.n_max_text_ctx = len(prompt) + 1
            params.prompt_tokens = ctypes.addressof(prompt)
            params.prompt_n_tokens = len(prompt)
        code = self._library.whisper_full_with_state(self._context, self._state, params, samples, count)
        if code != 0:
            raise self._failure("whisper_full_with_state", code)
        duration = count / SAMPLE_RATE
        segments = tuple(self._segments(params.language.decode("ascii"), duration, options.word_timestamps))
        text = " ".join(segment.text for segment in segments)
        return Transcript(text, params.language.decode("ascii"), probability, duration, options.task, segments)

    def _detect_language(self, samples: ctypes.Array, count: int) -> tuple[str, float]:
        # The same two calls that whisper_full would make for "auto", which keeps the probability to itself.
        code = self._library.whisper_pcm_to_mel_with_state(self._context, self._state, samples, count, self.threads)
        if code != 0:
            raise self._failure("whisper_pcm_to_mel_with_state", code)
        probabilities = (ctypes.c_float * (self._library.whisper_lang_max_id() + 1))()
        code = self._library.whisper_lang_auto_detect_with_state(
            self._context, self._state, 0, self.threads, probabilities
        )
        if code < 0:
            raise self._failure("whisper_lang_auto_detect_with_state", code)
        # Where the model knows fewer languages than the library, the token of the next "language" is another token.
        best = max(range(len(self._languages)), key=probabilities.__getitem__)
        return self._languages[best], probabilities[best]

    def _failure(self, function: str, code: int) -> WhisperLibraryError:
        return WhisperLibraryError(f"{function} failed with code {code}: {self._library.last_message() or 'no reason'}")

    def _tokenize(self, prompt: str) -> ctypes.Array | None:
        text = prompt.replace("\0", " ").strip()
        if not text:
            return None
        data = text.encode("utf-8", "replace")[-_MAX_PROMPT_BYTES:].decode("utf-8", "ignore").encode("utf-8")
        tokens = (ctypes.c_int32 * _MAX_PROMPT_BYTES)()
        # Whisper's vocabulary begins words with a space.
        count = self._library.whisper_tokenize(self._context, b" " + data, tokens, len(tokens))
        room = self._parameters.n_text_ctx // 2 - 1
        kept = tokens[max(0, count - room) : max(0, count)]
        return (ctypes.c_int32 * len(kept))(*kept) if kept else None

    def _segments(self, language: str, duration: float, with_words: bool) -> Iterator[Segment]:
        lib, state = self._library, self._state
        number = 0
        for index in range(lib.whisper_full_n_segments_from_state(state)):
            text = (
                (lib.whisper_full_get_segment_text_from_state(state, index) or b"").decode("utf-8", "replace").strip()
            )
            tokens = list(self._tokens(index))
            if not text or not tokens:
                continue
            start = min(lib.whisper_full_get_segment_t0_from_state(state, index) / 100, duration)
            end = min(lib.whisper_full_get_segment_t1_from_state(state, index) / 100, duration)
            start, end = max(0.0, start), max(0.0, start, end)
            yield Segment(
                id=number,
                start=start,
                end=end,
                text=text,
                tokens=tuple(data.id for data, _ in tokens),
                avg_logprob=max(_WORST_LOGPROB, sum(data.plog for data, _ in tokens) / len(tokens)),
                no_speech_probability=lib.whisper_full_get_segment_no_speech_prob_from_state(state, index),
                words=tuple(_merge_words(tokens, language, start, end)) if with_words else (),
            )
            number += 1

    def _tokens(self, segment: int) -> Iterator[tuple[ctypes.Structure, bytes]]:
        """Yield data and bytes of the segment's text tokens; the bytes of one may be a part of a character."""
        lib, state = self._library, self._state
        for index in range(lib.whisper_full_n_tokens_from_state(state, segment)):
            data = lib.whisper_full_get_token_data_from_state(state, segment, index)
            if data.id < self._text_end:
                yield data, lib.whisper_full_get_token_text_from_state(self._context, state, segment, index) or b""


def _merge_words(tokens, language: str, start: float, end: float) -> Iterator[Word]:
    """Yield the words that the tokens spell, with times that never run backwards or leave `start` to `end`."""
    earliest = start
    for group in _group_tokens(tokens, language):
        text = b"".join(data for _, data in group).decode("utf-8", "replace").strip()
        if not text:
            continue
        word_start = min(max(group[0][0].t0 / 100, earliest), end)
        word_end = min(max(group[-1][0].t1 / 100, word_start), end)
        earliest = word_end
        yield Word(text, word_start, word_end, sum(data.p for data, _ in group) / len(group))


def _group_tokens(tokens, language: str):
    """Group tokens into words: at spaces, or by character in languages written without; never inside a character."""
    group: list = []
    spelled = b""
    for data, piece in tokens:
        if group and (piece[:1].isspace() or (language in _NO_SPACES and _is_whole(spelled) and _starts_word(piece))):
            yield group
            group, spelled = [], b""
        group.append((data, piece))
        spelled += piece
    if group:
        yield group


def _is_whole(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _starts_word(piece: bytes) -> bool:
    """Tell whether a token opens a word: punctuation and combining marks belong to what stands before them."""
    first = piece.decode("utf-8", "ignore")[:1]
    return not first or unicodedata.category(first)[0] not in "PM"
