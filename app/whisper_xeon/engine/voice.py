"""Where people speak in a recording: Silero's voice detection through libwhisper, and the parts that follow from it.

The network gives a probability for every 32 ms; turning these into parts is done here, since whisper.cpp's own way cuts
what is merely uncertain. The thresholds were measured: docs/voice-detection.md.
"""

from __future__ import annotations

import array
import ctypes
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.engine.errors import LibraryLoadError, ModelInitError, WhisperLibraryError
from whisper_xeon.engine.library import Library
from whisper_xeon.engine.timeline import Stretch
from whisper_xeon.transcript import DecodeOptions, Transcript

FRAME = 512  # samples of one probability, as the weights have it

# How loud a block is decides how much it is amplified for the network, which hears nothing in speech below -40 dBFS.
_BLOCK = 250 * FRAME  # 8 s
_QUIET = 0.125  # peak below which a block is amplified …
_LOUD = 0.5  # … to this peak …
_MAX_GAIN = 64.0  # … but not more than this
_STRIDE = 4  # a block's peak is read off every fourth sample: Python needs a moment for each

# Shares of the threshold. Speech for certain begins at the threshold and lasts until below the first one; what belongs
# to it begins and ends at the others, since the probability sinks at soft sounds.
_CLEAR = 0.7
_FAINT = 0.4
_GONE = 0.2
_JOIN = 4  # frames: shorter gaps are within a word
_LEAD = 1  # frames: the probability rises that much after the sound does
# … and comes this close to 1 once, as a share of what is left above the threshold: no sound but speech does.
_UNCERTAIN = 0.1
# No recording of speech had less at its clearest moment, not even in noise as loud as the voice.
_NEVER = 0.05
# What Whisper looks at when it is asked whether somebody speaks.
_WINDOW = 30 * SAMPLE_RATE // FRAME

# Where the detection is in doubt, a language of at least this probability is speech: what is no speech reaches 0.8,
# and speech under noise in which Whisper understands half has 0.9 (docs/voice-detection.md).
LEAST_LANGUAGE = 0.82
# What Whisper writes for sounds: [BLANK_AUDIO], (upbeat music), *sighs*, and the same in full width.
_SOUND = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|【[^】]*】|（[^）]*）")


class Span(NamedTuple):
    """From `start` to before `end`, in samples."""

    start: int
    end: int

    @property
    def seconds(self) -> Stretch:
        """The same in seconds."""
        return Stretch(self.start / SAMPLE_RATE, self.end / SAMPLE_RATE)


class SpeechDetector:
    """Silero's network in libwhisper. Load it before a fork; one call at a time computes, on one thread."""

    _context: int | None = None

    def __init__(self, library: Library, weights: Path):
        """Load `weights`, which `whisper_package.vad_file` has checked.

        Raises `LibraryLoadError` for a libwhisper without voice detection, `ModelInitError`.
        """
        if not library.detects_speech:
            raise LibraryLoadError("libwhisper is too old for voice detection: build with whisper.cpp 1.8.5 or newer")
        self._library = library
        self._lock = threading.Lock()
        params = library.whisper_vad_default_context_params()
        params.n_threads = 1
        params.use_gpu = False
        self._context = library.whisper_vad_init_from_file_with_params(os.fsencode(weights), params)
        if not self._context:
            raise ModelInitError(f"libwhisper rejected {weights}: {library.last_message() or 'no reason given'}")

    def probabilities(self, samples: memoryview) -> array.array[float]:
        """Return the probability of speech in each frame of `samples`, bytes of float32 at 16 kHz.

        Raises `WhisperLibraryError`.
        """
        result = array.array("f")
        with self._lock:
            if not self._context:
                raise WhisperLibraryError("the voice detection is closed: create a new adapter")
            self._library.whisper_vad_reset_state(self._context)
            for block in _blocks(samples):
                if not self._library.whisper_vad_detect_speech_no_reset(self._context, block, len(block)):
                    reason = self._library.last_message() or "no reason given"
                    raise WhisperLibraryError(f"the voice detection failed: {reason}")
                count = self._library.whisper_vad_n_probs(self._context)
                result.extend(self._library.whisper_vad_probs(self._context)[:count])
        return result

    def close(self) -> None:
        """Free all memory; closing again does nothing."""
        with self._lock:
            context, self._context = self._context, None
            if context:
                self._library.whisper_vad_free(context)

    def __del__(self) -> None:
        if self._context:
            self.close()


def find_speech(probabilities: Sequence[float], options: DecodeOptions) -> list[Span]:
    """Return the parts in which somebody speaks; empty where none is certain (see `likeliest`)."""
    threshold = options.vad_threshold
    least = options.vad_min_speech_ms * SAMPLE_RATE // 1000
    certain = 1 - _UNCERTAIN * (1 - threshold)
    parts = [part for part in _runs(probabilities, threshold * _FAINT, threshold * _GONE) if _samples(part) >= least]
    clear = [run for run in _runs(probabilities, threshold, threshold * _CLEAR) if _samples(run) >= least]
    if not any(max(probabilities[start:end]) >= certain for start, end in clear):
        return []
    last = len(probabilities)
    return [Span(max(0, start - _LEAD) * FRAME, min(last, end + _LEAD) * FRAME) for start, end in parts]


def likeliest(probabilities: Sequence[float]) -> Span | None:
    """Return the 30 s in which speech is likeliest; None where there is certainly none."""
    if not len(probabilities) or max(probabilities) < _NEVER:
        return None
    best = current = sum(probabilities[:_WINDOW])
    start = 0
    for end in range(_WINDOW, len(probabilities)):
        current += probabilities[end] - probabilities[end - _WINDOW]
        if current > best:
            best, start = current, end - _WINDOW + 1
    return Span(start * FRAME, (start + _WINDOW) * FRAME)


def kept_parts(speech: Sequence[Span], count: int, options: DecodeOptions) -> list[Span]:
    """Return what is left of `count` samples when silence is cut out of them, all but the padding of speech.

    A cut may change words that lie beside it, so that one which would remove little is not made.
    """
    pad = options.vad_speech_pad_ms * SAMPLE_RATE // 1000
    least = options.vad_min_silence_ms * SAMPLE_RATE // 1000
    parts: list[Span] = []
    for start, end in speech:
        if parts and start - parts[-1].end <= least + 2 * pad:
            parts[-1] = Span(parts[-1].start, end)
        else:
            parts.append(Span(start, end))
    padded = [Span(max(0, start - pad), min(count, end + pad)) for start, end in parts]
    if parts and parts[0].start <= least + pad:
        padded[0] = Span(0, padded[0].end)
    if parts and count - parts[-1].end <= least + pad:
        padded[-1] = Span(padded[-1].start, count)
    return padded


def without_sounds(transcript: Transcript) -> Transcript:
    """Return the transcript without segments that have no words, but punctuation or the name of a sound."""
    kept = [segment for segment in transcript.segments if has_words(segment.text)]
    if len(kept) == len(transcript.segments):
        return transcript
    return transcript.with_segments(kept)


def has_words(text: str) -> bool:
    """Whether a segment's text is more than punctuation or the name of a sound."""
    return any(map(str.isalnum, _SOUND.sub("", text)))


def is_credible(transcript: Transcript, options: DecodeOptions) -> bool:
    """Tell whether Whisper is sure of what it heard in a recording in which the detection is not.

    This is openai-whisper's rule for a window, on the whole recording, and both of its conditions must hold.
    """
    tokens = sum(len(segment.tokens) for segment in transcript.segments)
    if not tokens:
        return False
    sure = sum(segment.avg_logprob * len(segment.tokens) for segment in transcript.segments) / tokens
    silent = sum(segment.no_speech_probability * len(segment.tokens) for segment in transcript.segments) / tokens
    return sure > options.logprob_threshold and silent < options.no_speech_threshold


def _blocks(samples: memoryview) -> Iterator[ctypes.Array[ctypes.c_float]]:
    floats = samples.cast("B").cast("f")
    for start in range(0, len(floats), _BLOCK):
        block = floats[start : start + _BLOCK]
        peak = max(max(block[::_STRIDE]), -min(block[::_STRIDE]))
        kind = ctypes.c_float * len(block)
        if 0 < peak < _QUIET:
            gain = min(_MAX_GAIN, _LOUD / peak)
            yield kind.from_buffer(array.array("f", [sample * gain for sample in block]))
        elif samples.readonly:
            yield kind.from_buffer_copy(block)
        else:
            yield kind.from_buffer(block)


def _runs(probabilities: Sequence[float], begin: float, end: float) -> list[tuple[int, int]]:
    """Return the runs of frames that begin with a probability of at least `begin` and end before one below `end`."""
    runs: list[tuple[int, int]] = []
    start = -1
    for place, probability in enumerate(probabilities):
        if start < 0:
            if probability >= begin:
                start = place
        elif probability < end:
            runs.append((start, place))
            start = -1
    if start >= 0:
        runs.append((start, len(probabilities)))
    joined: list[tuple[int, int]] = []
    for run in runs:
        if joined and run[0] - joined[-1][1] < _JOIN:
            joined[-1] = (joined[-1][0], run[1])
        else:
            joined.append(run)
    return joined


def _samples(run: tuple[int, int]) -> int:
    return (run[1] - run[0]) * FRAME
