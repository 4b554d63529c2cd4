"""Whether a process still computes, seen from outside by its CPU clock: a sign of life that no library has to give."""

from __future__ import annotations

import contextlib
import time

LOOK_S = 0.1  # between two looks
# Looks in a row at a clock that stands still, at a process that has something to compute: it is stopped, or its threads
# wait for each other. Looks and not seconds, so that one who was held up cannot blame the other for it.
STILL = 6

_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: all threads of a process together


class Pulse:
    """The CPU clock of one process."""

    def __init__(self, pid: int):
        # What clock_getcpuclockid(3) returns. Unlike /proc it needs no right to look into the process.
        self._clock = ~pid << 3 | _CPUCLOCK_SCHED
        self._used = 0.0
        self.still = 0  # looks in a row that found the clock where it was
        self.start_over()

    def start_over(self) -> None:
        """Note where the clock is: only now there is something to compute."""
        self.look()
        self.still = 0

    def look(self) -> bool:
        """Look once; return whether the process has computed since the last time."""
        used = self._used
        with contextlib.suppress(OSError):  # it has ended, which others notice
            used = time.clock_gettime(self._clock)
        moved = used != self._used
        self._used = used
        self.still = 0 if moved else self.still + 1
        return moved
