"""How long a window of 30 s takes here, learnt from those that were done, and how long one may take."""

from __future__ import annotations

import math
import threading

from whisper_xeon.engine.job import Job
from whisper_xeon.transcript import DecodeOptions

_WINDOW_S = 30
_LEAST_S = 10.0  # a limit below would kill for a hiccup of the host
_FIRST_S = 300.0  # the limit before the first window is done
# A window of dense speech computes some times as long as one with a few words.
_TIMES = 10
# What is done for the whole audio at once, such as its spectrogram, is done faster than this share of its length.
_SHARE = 0.1


class Pace:
    """The pace of one pool's engines. All methods may be called from any thread."""

    def __init__(self, *, whole: bool):
        """`whole`: the engines do not tell of single windows, but of whole requests only."""
        self._whole = whole
        self._lock = threading.Lock()
        self._window_s: float | None = None

    @property
    def window_s(self) -> float | None:
        """Seconds that a window takes; None before the first."""
        return self._window_s

    def learn(self, job: Job, windows: int, compute_s: float) -> None:
        """Take account of a request that was done, in which the engine told of `windows` windows."""
        each = compute_s / max(1, _windows(job) if self._whole else windows)
        with self._lock:
            self._window_s = each if self._window_s is None else 0.8 * self._window_s + 0.2 * each

    def limit(self, job: Job) -> float:
        """Return the seconds within which an engine must have done one window more of a request, or all of it."""
        usual_s = self._window_s
        each = _FIRST_S if usual_s is None else max(_LEAST_S, _TIMES * _decodings(job.options) * usual_s)
        return each * (_windows(job) if self._whole else 1) + _SHARE * job.pcm.duration


def _decodings(options: DecodeOptions) -> int:
    """Return how often the options have a window decoded at most, counting each sequence that is followed."""
    tries = 1
    if options.temperature_increment and not options.temperature:
        tries += math.ceil(1 / max(options.temperature_increment, 0.1))  # see decoding.temperature_step
    return tries * max(options.beam_size, options.best_of)


def _windows(job: Job) -> int:
    return math.ceil(job.pcm.duration / _WINDOW_S) + 1
