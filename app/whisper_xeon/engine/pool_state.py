"""What the parts of an engine pool share: one lock, how far the pool's life has got, and its counters.

Lock discipline: `changed` is the only lock of a pool and guards whatever more than one thread writes, here and in the
queue and the workers. It is reentrant: every method takes it by itself, and a caller that needs several steps to be one
holds it around them. Nobody computes, or waits for a worker's answer, while holding it. Each change that another thread
may be waiting for ends in `changed.notify_all`.
"""

from __future__ import annotations

import collections
import math
import threading
import time

from whisper_xeon.engine.outcome import EngineStopped, EngineUnavailable


class PoolState:
    """The lock, the life and the counters of one pool."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.closing = False  # takes no more requests
        self.stopped = False  # gives up the requests inside, too
        self.failure: str | None = None  # why there will be no engines, in one line
        self.progress_at = -math.inf  # when an engine last had done a window, or a probe
        self.doubt_at = -math.inf  # when one was last found to hang
        self.counts: collections.Counter[str] = collections.Counter()

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with self.changed:
            self.counts[name] += 1

    def progressed(self) -> None:
        """Note that an engine has done something real."""
        with self.changed:
            self.progress_at = time.monotonic()
            self.changed.notify_all()

    def doubt(self) -> None:
        """Note that an engine hangs: what the others have done before proves nothing any more."""
        with self.changed:
            self.doubt_at = time.monotonic()

    def fail(self, reason: str) -> None:
        """Note that there will be no engines."""
        with self.changed:
            self.failure = reason
            self.changed.notify_all()

    def close(self) -> None:
        """Take no more requests."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()

    def stop(self) -> None:
        """Give up the requests inside."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def check_open(self) -> None:
        """Raise `EngineUnavailable` or `EngineStopped` unless a new request may come in."""
        with self.changed:
            if self.closing:
                raise EngineStopped
            if self.failure:
                raise EngineUnavailable(self.failure)

    def check_running(self) -> None:
        """Raise `EngineUnavailable` or `EngineStopped` unless a request that is inside may go on."""
        with self.changed:
            if self.failure:
                raise EngineUnavailable(self.failure)
            if self.stopped:
                raise EngineStopped
