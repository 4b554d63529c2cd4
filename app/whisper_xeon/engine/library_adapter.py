"""WhisperLibraryAdapter: speech to text through libwhisper, without the server.

    with WhisperLibraryAdapter("small", artifacts_dir="/path/to/packages") as whisper:
        print(whisper.transcribe("call.wav"))

The context (weights) is loaded once, by the constructor. Earlier clips do not influence later ones: the same clip gives
the same transcript. The state (caches, buffers, random numbers) is reused where the library was built so that a used
state is as good as a new one. Otherwise, and after a failure or long audio, whose spectrogram it holds, the next
transcription creates it again; `prepare` does so ahead of time. A process may load, fork, and have each child
transcribe. Context and states are freed exactly once. One adapter transcribes one clip at a time: threads wait.
Only `transcribe_many` has several, each in a thread with a state of its own; they are kept until `close`.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.engine import context, library
from whisper_xeon.engine.adapter import Heard, WhisperAdapter
from whisper_xeon.engine.decoding import Decoding
from whisper_xeon.engine.errors import ModelInitError, WhisperLibraryError
from whisper_xeon.engine.segments import RawSegment, build_transcript
from whisper_xeon.engine.words import Token
from whisper_xeon.transcript import DecodeOptions, Transcript

# With these of kernels/kernels.txt a state that was used is as good as a new one.
_REUSE_KERNELS = frozenset({"encode-once", "no-speech", "reuse"})
# What whisper_full says when it found no memory for several sequences, and has freed the state.
_STATE_IS_GONE = -7
# A spectrogram takes 32 to 51 kB per second, and what estimated word timestamps need 64 kB more.
_REUSE_SECONDS = 120
_PROBED_POSITIONS = 64  # of the 1500 that the encoder has: 1.3 s of audio
MAX_WINDOWS = 8  # that decode together: each takes a state's memory, and more would gain little


class WhisperLibraryAdapter(WhisperAdapter):
    """One loaded model."""

    _context: int | None = None
    _state: int | None = None
    _tell_text: Callable[[], None] | None = None  # passes on what was written since, where somebody wants to hear it
    _together: int | None = None  # where the states of `_windows` meet

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._windows: list[_Window] = []
        self._reusable = set(self.package.kernels) >= _REUSE_KERNELS
        self._library = library.load(self.package, self.variant)
        self._context = self._load()
        # Special tokens begin at the end-of-text token; language tokens follow its successor.
        self._text_end = self._library.whisper_token_eot(self._context)
        # Referenced here because the library has only its pointer.
        self._window_callback = library.ENCODER_BEGIN(self._window)
        self._decoding = Decoding(self._library, self._context, self._parameters.n_text_ctx)

    def prepare(self) -> None:
        """Create the state of the next transcription now. Raises `WhisperLibraryError` when memory is short."""
        with self._lock:
            self._ensure_state()

    def probe(self) -> bool:
        """Encode a second of silence and decode one token. Raises `WhisperLibraryError`."""
        samples = (ctypes.c_float * SAMPLE_RATE)()
        with self._lock:
            self._ensure_state()
            params = self._params(_PROBED_POSITIONS)
            params.max_tokens = 1
            params.print_progress = params.print_timestamps = False
            kept = self._decoding.fill(self._state, params, DecodeOptions(temperature_increment=0.0))
            code = self._library.whisper_full_with_state(self._context, self._state, params, samples, SAMPLE_RATE)
            del kept
            if not self._reusable or code != 0:
                self._free_state()
        if code != 0:
            raise self._failure("whisper_full_with_state (probe)", code)
        return True

    def transcribe_many(self, audio_paths: Iterable[os.PathLike[str] | str], **options: Any) -> list[Transcript]:
        """Decode up to `MAX_WINDOWS` clips together; see the base class."""
        paths = list(audio_paths)
        if not self._library.decodes_together or len(paths) < 2:
            return super().transcribe_many(paths, **options)
        with self._lock:
            windows = self._ensure_windows(min(len(paths), MAX_WINDOWS))
            numbers = iter(range(len(paths)))
            with ThreadPoolExecutor(len(windows)) as threads:
                # A clip goes to the window that is free first.
                done = [threads.submit(window.transcribe_next, paths, numbers, options) for window in windows]
        found = {number: result for each in done for number, result in each.result()}
        transcripts = []
        for number in range(len(paths)):
            result = found[number]
            if isinstance(result, Exception):
                raise result
            transcripts.append(result)
        return transcripts

    def _ensure_windows(self, count: int) -> list[_Window]:
        """Return `count` windows that have joined, so that none of them decodes before the others are there."""
        if not self._context:
            raise WhisperLibraryError("the adapter is closed: create a new one")
        if not self._together:
            self._together = self._library.whisper_xeon_together_init(self._context)
        while len(self._windows) < count:
            self._windows.append(_Window(self))
        windows = self._windows[:count]
        try:
            for window in windows:
                window.prepare()
        except WhisperLibraryError:
            for window in windows:
                window.leave()
            raise
        return windows

    def close(self) -> None:
        """Free all memory; further transcriptions raise, and closing again does nothing."""
        super().close()
        with self._lock:
            for window in self._windows:
                window.close()
            self._windows.clear()
            together, self._together = self._together, None
            if together:
                self._library.whisper_xeon_together_free(together)
            self._free_state()  # first: it points into the context
            context, self._context = self._context, None
            if context:
                self._library.whisper_free(context)

    def __del__(self) -> None:
        if self._context:
            self.close()

    def _load(self) -> int:
        params = self._library.default_context_params()
        params.use_gpu = False
        path = self.package.model_file
        context = self._library.whisper_init_from_file_with_params_no_state(os.fsencode(path), params)
        if not context:
            raise ModelInitError(f"libwhisper rejected {path}: {self._library.last_message() or 'no reason given'}")
        return context

    def _ensure_state(self) -> None:
        if not self._context:
            raise WhisperLibraryError("the adapter is closed: create a new one")
        if not self._state:
            self._state = self._library.whisper_init_state(self._context)
            if not self._state:
                raise WhisperLibraryError(
                    f"libwhisper could not create a state: {self._library.last_message() or 'out of memory?'}"
                )

    def _free_state(self) -> None:
        state, self._state = self._state, None
        if state:
            self._library.whisper_free_state(state)

    def _run(
        self, samples: memoryview, count: int, options: DecodeOptions, positions: int, heard: Heard | None
    ) -> Transcript:
        pointer = _floats(samples, count)
        with self._lock:
            self._ensure_state()
            reuse = False
            try:
                transcript = self._compute(pointer, count, options, positions, heard)
                # A state keeps the memory of the most sequences that it ever followed.
                one = max(options.beam_size, options.best_of) == 1
                reuse = self._reusable and one and transcript.duration <= _REUSE_SECONDS
                return transcript
            finally:
                self._tell_text = None
                if not reuse:
                    self._free_state()

    def _recognized_language(self, samples: memoryview) -> tuple[str, float] | None:
        if not self.multilingual:
            return None
        count = len(samples) // 4
        pointer = _floats(samples, count)
        with self._lock:
            self._ensure_state()
            try:
                return self._detect_language(self._params(0), pointer, count)
            finally:
                self._free_state()

    def _window(self, *_: object) -> bool:
        with contextlib.suppress(OSError):  # nobody listens any more
            self.window_begins()
            if self._tell_text:
                self._tell_text()
        return True  # go on

    def _params(self, positions: int) -> ctypes.Structure:
        """Return parameters for so many positions of the encoder; 0: all of them."""
        params = self._library.default_params()
        params.n_threads = self.threads
        params.audio_ctx = positions
        params.encoder_begin_callback = ctypes.cast(self._window_callback, ctypes.c_void_p)
        return params

    def _adjust(self, params: ctypes.Structure, duration: float) -> None:
        """Change the parameters for `duration` seconds of audio, where a subclass has what `DecodeOptions` has not."""

    def _compute(
        self,
        samples: ctypes.Array[Any] | None,
        count: int,
        options: DecodeOptions,
        positions: int,
        heard: Heard | None,
    ) -> Transcript:
        duration = count / SAMPLE_RATE
        params = self._params(positions)
        params.token_timestamps = options.word_timestamps and not self.package.alignment_heads  # estimates them
        language, probability = options.language, None
        if language is None and self.multilingual:
            language, probability = self._detect_language(params, samples, count)
            if positions and probability < context.LEAST_LANGUAGE:
                return self._nothing(count, options)
            # Estimated word timestamps need the samples, which an unpatched library forgets.
            if self._reusable or not params.token_timestamps:
                samples, count = None, 0
        params.language = (language or "en").encode("ascii")
        params.translate = options.task == "translate"
        params.print_special = params.print_progress = params.print_realtime = params.print_timestamps = False
        kept = self._decoding.fill(self._state, params, options)
        self._adjust(params, duration)
        if self.package.alignment_heads:
            self._align(options.word_timestamps)
        if heard:
            self._tell_text = self._teller(heard, language or "en", options)
        code = self._library.whisper_full_with_state(self._context, self._state, params, samples, count)
        if code == _STATE_IS_GONE:
            self._state = None
        if code != 0:
            raise self._failure("whisper_full_with_state", code)
        del kept  # what the parameters pointed to
        return build_transcript(
            self._segments(options),
            options,
            language=params.language.decode("ascii"),
            language_probability=probability,
            duration=duration,
        )

    def _teller(self, heard: Heard, language: str, options: DecodeOptions) -> Callable[[], None]:
        """Return what passes on the segments since its last call: those of windows that are done never change."""
        told = 0

        def tell() -> None:
            nonlocal told
            segments = list(self._segments(options, first=told))
            told += len(segments)
            texts = [segment.text for segment in segments if segment.has_text]
            if texts:
                heard(language, texts)

        return tell

    def _align(self, wanted: bool) -> None:
        """Let the library align the tokens of the next transcription with the audio, or not."""
        heads = [number for pair in self.package.alignment_heads for number in pair] if wanted else []
        array = (ctypes.c_int32 * len(heads))(*heads)
        code = self._library.whisper_xeon_set_alignment_heads(self._context, self._state, array, len(heads) // 2)
        if code != 0:
            raise self._failure("whisper_xeon_set_alignment_heads", code)

    def _detect_language(
        self, params: ctypes.Structure, samples: ctypes.Array[Any] | None, count: int
    ) -> tuple[str, float]:
        """Return the language's code and its probability.

        Afterwards the state holds the spectrogram, with kernel encode-once what the encoder made of its first
        window, and with reuse what word timestamps need of the samples.
        """
        params.language, params.detect_language = b"auto", True
        code = self._library.whisper_full_with_state(self._context, self._state, params, samples, count)
        if code != 0:
            raise self._failure("whisper_full_with_state (language detection)", code)
        params.detect_language = False
        logits = self._library.whisper_get_logits_from_state(self._state)
        # whisper.cpp considers all languages that it knows; if the model knows fewer, those tokens mean something else.
        scores = [
            logits[self._library.whisper_token_lang(self._context, number)] for number in range(len(self._languages))
        ]
        best = max(range(len(scores)), key=scores.__getitem__)
        return self._languages[best], 1 / sum(math.exp(score - scores[best]) for score in scores)

    def _failure(self, function: str, code: int) -> WhisperLibraryError:
        return WhisperLibraryError(f"{function} failed with code {code}: {self._library.last_message() or 'no reason'}")

    def _segments(self, options: DecodeOptions, *, first: int = 0) -> Iterator[RawSegment]:
        lib, state = self._library, self._state
        temperature = lib.whisper_xeon_full_get_segment_temperature_from_state if lib.decodes_as_openai else None
        for index in range(first, lib.whisper_full_n_segments_from_state(state)):
            yield RawSegment(
                (lib.whisper_full_get_segment_text_from_state(state, index) or b"").decode("utf-8", "replace"),
                lib.whisper_full_get_segment_t0_from_state(state, index),
                lib.whisper_full_get_segment_t1_from_state(state, index),
                lib.whisper_full_get_segment_no_speech_prob_from_state(state, index),
                list(self._tokens(index)),
                round(temperature(state, index), 6) if temperature else options.temperature,
            )

    def _tokens(self, segment: int) -> Iterator[Token]:
        lib, state = self._library, self._state
        for index in range(lib.whisper_full_n_tokens_from_state(state, segment)):
            data = lib.whisper_full_get_token_data_from_state(state, segment, index)
            if data.id < self._text_end:
                piece = lib.whisper_full_get_token_text_from_state(self._context, state, segment, index) or b""
                yield Token(data.id, piece, data.p, data.plog, data.t0, data.t1)


class _Window(WhisperLibraryAdapter):
    """One of the windows that decode together: a state of its own; all else is its adapter's."""

    _joined = False

    def __init__(self, adapter: WhisperLibraryAdapter):
        self.__dict__.update(adapter.__dict__)
        self._lock = threading.Lock()
        self._state = None
        self._windows = []

    def transcribe_next(
        self, paths: list[os.PathLike[str] | str], numbers: Iterator[int], options: dict[str, Any]
    ) -> list[tuple[int, Transcript | Exception]]:
        """Transcribe the files of the numbers that nobody has taken, until none is left; then let the others go on."""
        results: list[tuple[int, Transcript | Exception]] = []
        try:
            for number in numbers:
                try:
                    results.append((number, self.transcript(paths[number], **options)))
                except Exception as error:  # is raised by transcribe_many
                    results.append((number, error))
        finally:
            self.leave()
        return results

    def leave(self) -> None:
        with self._lock:
            if self._joined:
                self._joined = False
                self._library.whisper_xeon_leave(self._state)

    def close(self) -> None:
        with self._lock:
            self._free_state()
            self._context = None

    def _ensure_state(self) -> None:
        super()._ensure_state()
        if not self._joined:
            self._library.whisper_xeon_join(self._together, self._state)
            self._joined = True

    def _free_state(self) -> None:
        self._joined = False  # a state that is freed leaves
        super()._free_state()


def _floats(samples: memoryview, count: int) -> ctypes.Array[ctypes.c_float]:
    """Return `count` samples as whisper.cpp takes them."""
    kind = ctypes.c_float * count
    # A writable buffer is used in place; a read-only one must be copied, since ctypes has no const.
    return kind.from_buffer_copy(samples) if samples.readonly else kind.from_buffer(samples)
