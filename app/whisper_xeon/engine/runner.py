"""Carries one request through: waits for a worker, talks to it, and tries again when the worker dies or hangs.

It runs in the thread of the request, and is the only one that uses the socket of the worker that it holds.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from whisper_xeon.engine.channel import receive_message, send_message
from whisper_xeon.engine.job import Job
from whisper_xeon.engine.live_text import LiveText
from whisper_xeon.engine.outcome import EngineCrashed, EngineFailed, EngineResult, EnginesHang, RequestRejected
from whisper_xeon.engine.pace import Pace
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.pulse import LOOK_S
from whisper_xeon.engine.queue import RequestQueue
from whisper_xeon.engine.workers import Worker, Workers
from whisper_xeon.engine.zygote import ANSWER_S
from whisper_xeon.logs import Log
from whisper_xeon.transcript import Transcript

_CRASHES = 2  # one may be the worker's own fault; two in a row are the request's
# Somebody who kills workers meets the same request by chance, even some times in a row; one who does it for the memory
# that this request takes always will.
_KILLS = 10
_HANGS = 3  # the request may be the reason, or somebody stops every worker that there is
_VMSTAT = Path("/proc/vmstat")
_CHECK_S = 30.0  # the longest that a probe may compute
# By these a process dies of what it does itself.
_OWN_FAULT = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)


class _WorkerLost(Exception):
    """A worker died before it answered."""


class _WorkerHangs(Exception):
    """A worker made no progress, and was killed."""


@dataclass
class _Order:
    """What a worker is told to do, and how far it has got."""

    message: dict[str, Any]
    limit: Callable[[], float]  # seconds until it must have got further
    fds: Sequence[int] = ()
    check_wanted: Callable[[], None] = lambda: None  # raises when nobody is waiting for it any more
    live: LiveText | None = None
    started: bool = False
    windows: int = 0


class Runner:
    """Transcribes jobs on the workers of one pool. Its methods may be called from any number of threads."""

    def __init__(
        self, state: PoolState, queue: RequestQueue, workers: Workers, pace: Pace, *, loads_each: bool, log: Log
    ):
        """`loads_each` says that every attempt loads the model, which is then counted here."""
        self._state = state
        self._queue = queue
        self._workers = workers
        self._pace = pace
        self._loads_each = loads_each
        self._log = log

    def run(self, job: Job) -> EngineResult:
        """Return the job's transcript. Raises a subclass of `EngineError`.

        When its worker is lost it is tried again, ahead of all others, until its deadline or until it looks as if it
        were the reason. After so many kills that it may be, its deadline moves on no longer.
        """
        entered = time.monotonic()
        attempts = crashes = kills = hangs = 0
        while True:
            worker = self._queue.acquire(job, first=attempts > 0)
            begun = time.monotonic()
            attempts += 1
            order = _Order(
                {"options": job.options.to_dict(), "samples": job.pcm.samples, "live": job.live is not None},
                limit=functools.partial(self._pace.limit, job),
                fds=job.pcm.fds,
                check_wanted=job.check_wanted,
                live=job.live,
            )
            out_of_memory = _kills_for_memory()
            try:
                answer = self._exchange(worker, order)
            except _WorkerLost:
                crashes += order.started and _is_own_fault(worker.status, out_of_memory)
                if crashes == _CRASHES:
                    raise EngineCrashed("two engines crashed on this audio") from None
                kills += order.started
                if kills == _KILLS:
                    job = job.with_fixed_deadline()
            except _WorkerHangs:
                hangs += 1
                if hangs == _HANGS:
                    raise EnginesHang from None
            else:
                transcript, compute_s = self._read(answer)
                self._queue.completed(compute_s)
                self._pace.learn(job, order.windows, compute_s, transcript.speech_seconds)
                if job.live:
                    job.live.finish(transcript)
                return EngineResult(transcript, begun - entered, compute_s, attempts)
            self._state.count("retries")

    def check(self, worker: Worker, *, compute: bool) -> bool:
        """Have a held, idle worker answer, and with `compute` compute a little; false when it dies or hangs."""
        try:
            answer = self._exchange(worker, _Order({"check": compute}, limit=lambda: _CHECK_S))
        except (_WorkerLost, _WorkerHangs):
            return False
        return answer["event"] in ("alive", "probed")

    def _exchange(self, worker: Worker, order: _Order) -> dict[str, Any]:
        """Send a held worker an order and return its answer; the worker is idle, or doomed, afterwards."""
        try:
            worker.jobs.settimeout(ANSWER_S)
            send_message(worker.jobs, order.message, order.fds)
            if order.live:
                order.live.begin()
            while True:
                message = self._listen(worker, order)
                self._workers.felt(worker)
                if message["event"] == "started":
                    order.started = True
                    if self._loads_each:
                        self._state.count("loads")
                elif message["event"] == "window":
                    order.windows += 1
                    if order.windows > 1:  # the one before is done
                        self._state.progressed()
                elif message["event"] == "text" and order.live:
                    order.live.add(message["language"], message["texts"])
                else:
                    break
        except (EOFError, OSError, ValueError):
            self._workers.bury(worker, ANSWER_S)
            raise _WorkerLost from None
        except _WorkerHangs:
            self._workers.kill_hung(worker)
            raise
        except BaseException:
            self._workers.kill(worker)
            raise
        self._workers.release(worker)
        if message["event"] in ("done", "probed"):
            self._state.progressed()
        return message

    def _listen(self, worker: Worker, order: _Order) -> dict[str, Any]:
        """Return the worker's next message. Raises `_WorkerHangs`, or what the order's `check_wanted` raises."""
        poll = select.poll()
        poll.register(worker.jobs, select.POLLIN)
        limit = time.monotonic() + order.limit()
        if worker.pulse:
            worker.pulse.start_over()
        while not poll.poll(LOOK_S * 1000):
            order.check_wanted()
            if worker.pulse and worker.pulse.look():
                self._workers.felt(worker)
            if worker.is_still or time.monotonic() > limit:
                raise _WorkerHangs
        return receive_message(worker.jobs)[0]

    def _read(self, answer: dict[str, Any]) -> tuple[Transcript, float]:
        if answer["event"] == "error":
            if answer["kind"] == "rejected":
                raise RequestRejected(answer["message"])
            self._log(logging.ERROR, "transcription failed", reason=answer["message"])
            raise EngineFailed(answer["message"])
        return Transcript.from_dict(answer["transcript"]), answer["compute_s"]


def _is_own_fault(status: int | None, out_of_memory: int) -> bool:
    """Tell whether a worker that ended with `status` (`os.waitpid`; None: unknown) died of what it was computing.

    Somebody may have killed it; so does the kernel when memory runs out, as it had done `out_of_memory` times before.
    """
    if status is None:
        return False
    if not os.WIFSIGNALED(status):
        return True
    if os.WTERMSIG(status) == signal.SIGKILL:
        return _kills_for_memory() > out_of_memory
    return os.WTERMSIG(status) in _OWN_FAULT


def _kills_for_memory() -> int:
    """Return how many processes the kernel has killed on this host because memory ran out; 0 where it does not tell."""
    with contextlib.suppress(OSError):
        found = re.search(rb"^oom_kill (\d+)$", _VMSTAT.read_bytes(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0
