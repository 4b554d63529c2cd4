"""Carries one request through: waits for a worker, talks to it, and tries again when the worker dies.

It runs in the thread of the request, and is the only one that uses the socket of the worker that it holds.
"""

from __future__ import annotations

import logging
import select
import time
from typing import Any

from whisper_xeon.engine.channel import receive_message, send_message
from whisper_xeon.engine.job import Job
from whisper_xeon.engine.outcome import EngineCrashed, EngineFailed, EngineResult, EngineTimeout, RequestRejected
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.queue import RequestQueue
from whisper_xeon.engine.workers import Worker, Workers
from whisper_xeon.engine.zygote import ANSWER_S
from whisper_xeon.logs import Log
from whisper_xeon.transcript import Transcript

_ATTEMPTS = 2  # one crash may be the worker's own fault; two in a row are the request's
_POLL_S = 0.1  # how often to look whether the request is still wanted


class _WorkerLost(Exception):
    """A worker died; `blame` tells whether the request may have been the reason."""

    def __init__(self, *, blame: bool):
        super().__init__()
        self.blame = blame


class Runner:
    """Transcribes jobs on the workers of one pool. `run` may be called from any number of threads."""

    def __init__(
        self,
        state: PoolState,
        queue: RequestQueue,
        workers: Workers,
        *,
        max_losses: int,
        job_timeout: float,
        loads_each: bool,
        log: Log,
    ):
        """`max_losses` bounds the workers that a job may lose without blame; `job_timeout` the seconds of one attempt.

        `loads_each` says that every attempt loads the model, which is then counted here.
        """
        self._state = state
        self._queue = queue
        self._workers = workers
        self._max_losses = max_losses
        self._job_timeout = job_timeout
        self._loads_each = loads_each
        self._log = log

    def run(self, job: Job) -> EngineResult:
        """Return the job's transcript. Raises a subclass of `EngineError`."""
        entered = time.monotonic()
        attempts = losses = 0
        while True:
            worker = self._queue.acquire(job, first=attempts + losses > 0)
            begun = time.monotonic()
            try:
                transcript, compute_s = self._attempt(worker, job, begun)
            except _WorkerLost as loss:
                attempts += loss.blame
                losses += not loss.blame
                if attempts == _ATTEMPTS or losses > self._max_losses:
                    raise EngineCrashed("two engines in a row crashed on this audio") from None
                self._state.count("retries")
            else:
                self._queue.completed(compute_s)
                return EngineResult(transcript, begun - entered, compute_s, attempts + 1)

    def _attempt(self, worker: Worker, job: Job, begun: float) -> tuple[Transcript, float]:
        """Give the job to a held worker and return its answer; the worker is idle, or doomed, afterwards."""
        started = False
        try:
            worker.jobs.settimeout(ANSWER_S)
            order = {"options": job.options.to_dict(), "samples": job.pcm.samples}
            send_message(worker.jobs, order, list(job.pcm.fds))
            answer = None
            while answer is None:
                message = self._listen(worker, job, begun + self._job_timeout)
                if message["event"] == "started":
                    started = True
                    if self._loads_each:
                        self._state.count("loads")
                else:
                    answer = message
        except (EOFError, OSError, ValueError):
            with_zygote = self._workers.bury(worker, ANSWER_S)
            raise _WorkerLost(blame=started and not with_zygote) from None
        except BaseException:
            self._workers.kill(worker)
            raise
        self._workers.release(worker)
        if answer["event"] == "error":
            if answer["kind"] == "rejected":
                raise RequestRejected(answer["message"])
            self._log(logging.ERROR, "transcription failed", reason=answer["message"])
            raise EngineFailed(answer["message"])
        return Transcript.from_dict(answer["transcript"]), answer["compute_s"]

    def _listen(self, worker: Worker, job: Job, limit: float) -> dict[str, Any]:
        """Return the worker's next message; raises when the request is not wanted any more, or at the limit."""
        poll = select.poll()
        poll.register(worker.jobs, select.POLLIN)
        while True:
            left = min(_POLL_S, limit - time.monotonic(), job.time_left())
            if poll.poll(max(0.0, left) * 1000):
                return receive_message(worker.jobs)[0]
            job.check_wanted()
            if time.monotonic() >= limit:
                raise EngineTimeout(f"the request computed longer than {self._job_timeout:g} s")
