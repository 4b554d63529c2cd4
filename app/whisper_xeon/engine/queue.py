"""The queue of requests: how many may come in, who is next, and when to come back."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator

from whisper_xeon.engine.job import Job
from whisper_xeon.engine.outcome import QueueFull
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.workers import Worker, Workers

_POLL_S = 0.1  # how often a waiting request looks whether it is still wanted
_GUESS_S = 5.0  # computing time of a request before the first one is done
_RETRY_MAX_S = 600


class RequestQueue:
    """Lets requests in and hands out idle workers in the order in which the requests came."""

    def __init__(self, state: PoolState, workers: Workers, *, engines: int, limit: int):
        """`limit` requests may wait beyond the `engines` being computed."""
        self._state = state
        self._workers = workers
        self._engines = engines
        self.limit = limit
        self._admitted = 0
        self._waiting: collections.deque[object] = collections.deque()
        self._average_s: float | None = None

    @property
    def length(self) -> int:
        """How many requests are waiting for a worker."""
        return len(self._waiting)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a request in for the block. Raises `QueueFull`, `EngineUnavailable` or `EngineStopped`."""
        with self._state.changed:
            self._state.check_open()
            if self._admitted >= self._engines + self.limit:
                self._state.count("rejected")
                raise QueueFull(self._retry_after())
            self._admitted += 1
            self._state.count("requests")
        try:
            yield
        finally:
            with self._state.changed:
                self._admitted -= 1
                self._state.changed.notify_all()

    def acquire(self, job: Job, *, first: bool) -> Worker:
        """Wait for an idle worker and hold it; with `first`, ahead of all others.

        Raises `Cancelled`, `EngineTimeout`, `EngineUnavailable` or `EngineStopped`.
        """
        ticket = object()
        with self._state.changed:
            if first:
                self._waiting.appendleft(ticket)
            else:
                self._waiting.append(ticket)
        try:
            while True:
                with self._state.changed:
                    self._state.check_running()
                    worker = self._workers.take() if self._waiting[0] is ticket else None
                    if worker:
                        return worker
                    self._state.changed.wait(min(_POLL_S, job.time_left()))
                job.check_wanted()
        finally:
            with self._state.changed:
                self._waiting.remove(ticket)
                self._state.changed.notify_all()

    def completed(self, compute_s: float) -> None:
        """Count a request that was transcribed, and learn how long one computes."""
        with self._state.changed:
            self._state.count("completed")
            self._average_s = compute_s if self._average_s is None else 0.8 * self._average_s + 0.2 * compute_s

    def await_empty(self, end: float) -> None:
        """Wait until no request is inside, until the `time.monotonic` value `end` at most."""
        with self._state.changed:
            while self._admitted and time.monotonic() < end:
                self._state.changed.wait(end - time.monotonic())

    def _retry_after(self) -> int:
        average = _GUESS_S if self._average_s is None else self._average_s
        return max(1, min(_RETRY_MAX_S, round(average * self._admitted / self._engines / 2)))
