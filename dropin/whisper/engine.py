"""The engine of whisper-xeon with what openai-whisper can be told beyond `DecodeOptions`, heard while it works."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter
from whisper_xeon.transcript import DecodeOptions, Transcript

# void (*whisper_new_segment_callback)(struct whisper_context *, struct whisper_state *, int n_new, void * user_data)
_NEW_SEGMENT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
# void (*whisper_progress_callback)(struct whisper_context *, struct whisper_state *, int progress, void * user_data)
_PROGRESS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

_LEAST_PENALTY = 1e-9


@dataclass(frozen=True)
class Tuning:
    """What openai-whisper's options mean to libwhisper, where `DecodeOptions` says nothing or something else."""

    temperature_step: float = 0.2  # also above temperature 0; 0: no further try
    length_penalty: float | None = None  # None: the mean log probability
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0  # seconds; None: any


@dataclass(frozen=True)
class Listener:
    """Who hears of the work while it goes on; each may be None."""

    language: Callable[[str], None] | None = None  # its code, when it was detected
    segment: Callable[[float, float, str], None] | None = None  # start and end in seconds, and the text
    percent: Callable[[int], None] | None = None


class Engine(WhisperLibraryAdapter):
    """One loaded model; voice detection, which openai-whisper has not, must be off."""

    def _open(self) -> None:
        self._turn = threading.Lock()
        self._tuning, self._listener = Tuning(), Listener()
        self._callbacks: list[Any] = []  # libwhisper holds their pointers while it works
        self._raised: BaseException | None = None
        super()._open()

    def run(self, samples: Any, options: DecodeOptions, tuning: Tuning, listener: Listener) -> Transcript:
        """Return the transcript of `samples`, as `transcribe_pcm` does. What a listener raises is raised here."""
        with self._turn:
            self._tuning, self._listener, self._raised = tuning, listener, None
            transcript = self.transcribe_pcm(samples, options)
            self._callbacks = []
            if self._raised:
                raise self._raised
            return transcript

    def language_of(self, samples: memoryview[float]) -> str:
        """Return the language that is spoken in the first 30 s of the samples."""
        found = self._recognized_language(samples.cast("B"))
        return found[0] if found else "en"

    def _adjust(self, params: ctypes.Structure, duration: float) -> None:
        tuning, listener = self._tuning, self._listener
        params.temperature_inc = tuning.temperature_step
        # 0 means "none" to libwhisper.
        params.length_penalty = 0.0 if tuning.length_penalty is None else max(tuning.length_penalty, _LEAST_PENALTY)
        params.suppress_blank = tuning.suppress_blank
        params.no_timestamps = tuning.without_timestamps
        params.max_initial_ts = 0.0 if tuning.max_initial_timestamp is None else tuning.max_initial_timestamp
        if listener.segment:
            params.new_segment_callback = self._callback(
                _NEW_SEGMENT, lambda _context, state, count, _data: self._tell(state, count, duration)
            )
        if listener.percent:
            tell = listener.percent
            params.progress_callback = self._callback(_PROGRESS, lambda _context, _state, percent, _data: tell(percent))

    def _detect_language(self, *arguments: Any) -> tuple[str, float]:
        found = super()._detect_language(*arguments)
        if self._listener.language:
            self._listener.language(found[0])
        return found

    def _tell(self, state: int, count: int, duration: float) -> None:
        assert self._listener.segment
        lib = self._library
        total = lib.whisper_full_n_segments_from_state(state)
        for index in range(total - count, total):
            text = (lib.whisper_full_get_segment_text_from_state(state, index) or b"").decode("utf-8", "replace")
            start = lib.whisper_full_get_segment_t0_from_state(state, index) / 100
            end = lib.whisper_full_get_segment_t1_from_state(state, index) / 100
            if text.strip():
                self._listener.segment(min(start, duration), max(start, min(end, duration)), text)

    def _callback(self, kind: Any, function: Callable[..., None]) -> int | None:
        """Return the address of a C function that calls `function`; nothing that it raises reaches C."""

        def guarded(*arguments: Any) -> None:
            try:
                if self._raised is None:
                    function(*arguments)
            except BaseException as error:
                self._raised = error

        callback = kind(guarded)
        self._callbacks.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value
