"""How long a window of 30 s takes here, learnt from those that were done, and how long one may take."""

from __future__ import annotations

import collections
import math
import threading

from whisper_xeon.engine.job import Job
from whisper_xeon.transcript import DecodeOptions

_WINDOW_S = 30
_LEAST_S = 10.0  # a limit below would kill for a hiccup of the host
_FIRST_S = 300.0  # the limit before the first window is done
# A window of dense speech computes some times as long as one with a few words.
_TIMES = 10
_RECENT = 64  # requests that are remembered
# What is done for the whole audio at once, such as its spectrogram, is done faster than this share of its length.
_SHARE = 0.1


class Pace:
    """The pace of one pool's engines. All methods may be called from any thread."""

    def __init__(self, *, whole: bool):
        """`whole`: the engines do not tell of single windows, but of whole requests only."""
        self._whole = whole
        self._lock = threading.Lock()
        self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)

    @property
    def window_s(self) -> float | None:
        """Seconds that a window of the slowest recent request took; None before the first.

        Not the average: many short clips, or such with hardly any speech, must not have a long one killed.
        """
        with self._lock:
            return max(self._recent, default=None)

    def learn(self, job: Job, windows: int, compute_s: float, speech_s: float | None = None) -> None:
        """Take account of a request that was done, in which the engine told of `windows` windows.

        `speech_s` are the seconds of speech in it, None where that is not known. Where there was none, there was no
        window to learn from.
        """
        if self._whole:
            windows = _windows(job.pcm.duration if speech_s is None else speech_s) if speech_s != 0 else 0
        if windows:
            with self._lock:
                self._recent.append(compute_s / windows)

    def limit(self, job: Job) -> float:
        """Return the seconds within which an engine must have done one window more of a request, or all of it."""
        usual_s = self.window_s
        each = _FIRST_S if usual_s is None else max(_LEAST_S, _TIMES * _decodings(job.options) * usual_s)
        return each * (_windows(job.pcm.duration) if self._whole else 1) + _SHARE * job.pcm.duration


def _decodings(options: DecodeOptions) -> int:
    """Return how often the options have a window decoded at most, counting each sequence that is followed."""
    tries = 1
    if options.temperature_increment and not options.temperature:
        # As many steps as whisper.cpp takes up to 1 (see decoding.temperature_step), however floats are rounded.
        tries += math.floor(1 / max(options.temperature_increment, 0.1) + 1e-6)
    return tries * max(options.beam_size, options.best_of)


def _windows(seconds: float) -> int:
    return math.ceil(seconds / _WINDOW_S) + 1
