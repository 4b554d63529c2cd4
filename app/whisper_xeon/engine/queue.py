"""The queue of requests: how many may come in, who is next, and when to come back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from whisper_xeon.engine.job import Job
from whisper_xeon.engine.outcome import QueueFull
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.workers import Worker, Workers
from whisper_xeon.shares import Caller, Guest, Line, NoneLeft, SentAway, Shares

_POLL_S = 0.1  # how often a waiting request looks whether it is still wanted
_GUESS_S = 5.0  # computing time of a request before the first one is done
_RETRY_MAX_S = 600


class RequestQueue:
    """Lets requests in and hands out idle workers, in turn to the callers that wait."""

    def __init__(self, state: PoolState, workers: Workers, *, engines: int, limit: int):
        """`limit` requests may wait beyond the `engines` being computed."""
        self._state = state
        self._workers = workers
        self._engines = engines
        self.limit = limit
        self._admitted = Shares("queue", engines + limit)
        self._line = Line(self._computing)
        self._average_s: float | None = None

    @property
    def length(self) -> int:
        """How many requests are waiting for a worker."""
        return len(self._line)

    @contextlib.contextmanager
    def admitted(self, guest: Guest) -> Iterator[None]:
        """Let a request in for the block.

        Raises `QueueFull`, `EngineUnavailable` or `EngineStopped`, or `OverLimit` by the limit of its caller.
        """
        with self._state.changed:
            self._state.check_open()
            try:
                place = self._admitted.take(guest)
            except NoneLeft:
                self._state.count("rejected")
                raise QueueFull(self._retry_after()) from None
            self._state.count("requests")
        try:
            yield
        finally:
            with self._state.changed:
                place.close()
                self._state.changed.notify_all()

    def _computing(self, caller: Caller) -> int:
        """Return how many requests of a caller have a worker."""
        return self._admitted.held(caller) - self._line.waiting(caller)

    def acquire(self, job: Job, *, first: bool) -> Worker:
        """Wait for an idle worker and hold it; with `first`, ahead of all others.

        Raises `Cancelled`, `EngineTimeout`, `EngineUnavailable` or `EngineStopped`, or `SentAway` when another caller
        got its place in the queue.
        """
        with self._state.changed:
            ticket = self._line.enter(job.guest.caller, first=first)
        try:
            while True:
                with self._state.changed:
                    self._state.check_running()
                    worker = self._workers.take() if self._line.next() is ticket else None
                    if worker:
                        self._settle(job.guest, worker)
                        self._line.served(ticket)
                        return worker
                    self._state.changed.wait(min(_POLL_S, job.time_left()))
                job.guest.check()
                job.check_wanted()
        finally:
            with self._state.changed:
                self._line.leave(ticket)
                self._state.changed.notify_all()

    def _settle(self, guest: Guest, worker: Worker) -> None:
        try:
            guest.settle()
        except SentAway:
            self._workers.release(worker)
            raise

    def completed(self, compute_s: float) -> None:
        """Count a request that was transcribed, and learn how long one computes."""
        with self._state.changed:
            self._state.count("completed")
            self._average_s = compute_s if self._average_s is None else 0.8 * self._average_s + 0.2 * compute_s

    def await_empty(self, end: float) -> None:
        """Wait until no request is inside, until the `time.monotonic` value `end` at most."""
        with self._state.changed:
            while self._admitted.used and time.monotonic() < end:
                self._state.changed.wait(end - time.monotonic())

    def _retry_after(self) -> int:
        average = _GUESS_S if self._average_s is None else self._average_s
        return max(1, min(_RETRY_MAX_S, round(average * self._admitted.used / self._engines / 2)))
