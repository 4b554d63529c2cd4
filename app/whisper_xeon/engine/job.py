"""One request to the engines: what is to be transcribed, how, and how long somebody wants it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Callable

from whisper_xeon.audio.decode import PcmAudio
from whisper_xeon.engine.outcome import Cancelled, EngineTimeout
from whisper_xeon.shares import Guest
from whisper_xeon.transcript import DecodeOptions


@dataclass(frozen=True)
class Job:
    """One request; `deadline` is a time of `time.monotonic`, None for no limit."""

    pcm: PcmAudio
    options: DecodeOptions
    deadline: float | None
    cancelled: Callable[[], bool] | None
    guest: Guest = field(default_factory=Guest)  # whose request it is

    def time_left(self) -> float:
        """Return the seconds until the deadline, negative after it."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def check_wanted(self) -> None:
        """Raise `Cancelled` or `EngineTimeout` when nobody is waiting for the request any more."""
        if self.cancelled and self.cancelled():
            raise Cancelled("the request was cancelled")
        if self.time_left() <= 0:
            raise EngineTimeout("the request was not done at its deadline")
