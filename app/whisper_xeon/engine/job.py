"""One request to the engines: what is to be transcribed, how, and how long somebody wants it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Callable

from whisper_xeon.audio.decode import PcmAudio
from whisper_xeon.engine.live_text import LiveText
from whisper_xeon.engine.outcome import Cancelled, EngineTimeout
from whisper_xeon.shares import Guest
from whisper_xeon.transcript import DecodeOptions


@dataclass(frozen=True)
class Job:
    """One request; `deadline` is a time of `time.monotonic`, None for no limit.

    It is moved on while the engines progress, with this request or with those before it: to `patience` seconds after
    their last window, which `progress_at` returns.
    """

    pcm: PcmAudio
    options: DecodeOptions
    deadline: float | None
    patience: float
    progress_at: Callable[[], float]
    cancelled: Callable[[], bool] | None
    live: LiveText | None = None  # gets the text on the way
    guest: Guest = field(default_factory=Guest)  # whose request it is

    def time_left(self) -> float:
        """Return the seconds until the deadline, negative after it."""
        if self.deadline is None:
            return math.inf
        return max(self.deadline, self.progress_at() + self.patience) - time.monotonic()

    def with_fixed_deadline(self) -> Job:
        """Return it with a deadline that is as late as it may be now, and that no progress moves on."""
        if self.deadline is None:
            return self
        latest = max(self.deadline, time.monotonic() + self.patience)
        return replace(self, deadline=latest, progress_at=lambda: -math.inf)

    def check_wanted(self) -> None:
        """Raise `Cancelled` or `EngineTimeout` when nobody is waiting for the request any more."""
        if self.cancelled and self.cancelled():
            raise Cancelled("the request was cancelled")
        if self.time_left() <= 0:
            raise EngineTimeout("the request made no progress until its deadline")
