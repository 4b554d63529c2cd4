"""The pool of engines: queues requests, hands each to a worker process, and replaces workers that crash or hang.

It lives in the front process and never loads the library. A supervisor thread owns the zygote; the thread that calls
`transcribe` talks to its worker itself. See `worker` for the processes and their messages.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from whisper_package.package import Package
from whisper_xeon.audio.decode import PcmAudio
from whisper_xeon.engine.channel import receive_message, send_message
from whisper_xeon.transcript import DecodeOptions, Transcript

_ATTEMPTS = 2  # one crash may be the worker's own; two in a row are the request's
_POLL_S = 0.1  # how often a waiting request looks whether it was cancelled
_ANSWER_S = 10.0  # the zygote computes nothing and workers send from memory: longer silence means hung
_FIRST_LOADS = 3  # the first load may be killed for memory once or twice; then the operator should know
_BACKOFF_MAX_S = 30.0
_STABLE_S = 60.0  # a zygote that lived this long has earned a fresh back-off
_FIRST_WORKERS = 5  # the same for workers that do not get as far as taking a request
_READY_GAP_S = 2.0  # without any worker for less than this is a re-fork, not an outage
_SUPERVISED_S = 20.0  # no turn of the supervisor takes as long unless it hangs
_APP_DIR = Path(__file__).resolve().parents[2]


class EngineError(Exception):
    """A request was not transcribed; base of the errors below."""


class QueueFull(EngineError):
    """As many requests wait as may; `retry_after` seconds (whole) later it should be better."""

    def __init__(self, retry_after: int):
        super().__init__(f"all engines are busy and the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class EngineCrashed(EngineError):
    """The worker died on this request, and so did the one that tried again."""


class EngineTimeout(EngineError):
    """The request was not done at its deadline, or computed longer than one may."""


class EngineUnavailable(EngineError):
    """There are no engines: the model cannot be loaded, or the pool was stopped; `reason` says which."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class EngineRefused(EngineError):
    """The model cannot do what the request asks for; the message is for the person who asked."""


class EngineFailed(EngineError):
    """The library reported an error for this request."""


class Cancelled(EngineError):
    """`cancelled` answered true; nobody waits for this request any more."""


@dataclass(frozen=True)
class EngineResult:
    transcript: Transcript
    wait_s: float  # seconds in the queue
    compute_s: float  # seconds of the attempt that succeeded
    attempts: int  # workers that it took: 1, or 2 after a crash


class _Worker:
    """One worker as the pool sees it. The pool's lock guards all fields; `jobs` is its holder's while it is held."""

    def __init__(self, number: int, jobs: socket.socket):
        self.number = number
        self.jobs = jobs
        self.pid: int | None = None
        self.state = "starting"  # then "idle" and "busy" in turn; "doomed" when it will not be used again
        self.since = time.monotonic()  # when the state began
        self.held = False  # a request's thread uses the socket
        self.killed = False  # by our order
        self.gone = False  # the process has ended
        self.with_zygote = False  # … because the zygote did


class _WorkerLost(Exception):
    """A worker died; `blame` tells whether the request may have been the reason."""

    def __init__(self, blame: bool):
        super().__init__()
        self.blame = blame


class EnginePool:
    """`engines` workers around one loaded model. All methods may be called from any thread."""

    def __init__(
        self,
        package: Package,
        *,
        engines: int,
        threads: int,
        queue: int,
        adapter: str = "library",
        audio_ctx: str = "full",
        cpu_variant: str | None = None,
        job_timeout: float = 900.0,
        log: Callable[..., None] | None = None,
    ):
        """`threads` compute one request; `queue` requests may wait beyond those being computed.

        `adapter` is `library`, or `cli` for workers that run whisper-cli, which loads the model for each request;
        `audio_ctx` is `full` or `auto` (`whisper_xeon.engine.adapter`); `cpu_variant` names the CPU library to use, None
        takes the best. `job_timeout` bounds the seconds of one attempt. `log` is called as `log(level, event,
        **fields)`, with a level of `logging`.
        """
        self._package = package
        self._engines = engines
        self._threads = threads
        self._queue = queue
        self._adapter = adapter
        self._audio_ctx = audio_ctx
        self._cpu_variant = cpu_variant
        self._job_timeout = job_timeout
        self._log = log or (lambda level, event, **fields: None)
        self._changed = threading.Condition()
        self._workers: dict[int, _Worker] = {}
        self._idle: collections.deque[_Worker] = collections.deque()
        self._waiting: collections.deque[object] = collections.deque()
        self._admitted = 0
        self._next_number = 0
        self._loaded: dict[str, Any] | None = None
        self._loaded_at: float | None = None
        self._available_at = -_READY_GAP_S  # when there was a worker last
        self._false_starts = 0  # workers in a row that ended before they could take a request
        self._fork_at = 0.0
        self._turn_at = time.monotonic()  # the supervisor's last sign of life
        self._failure: str | None = None
        self._closing = self._stopped = False
        self._average_s: float | None = None
        self._counts: collections.Counter[str] = collections.Counter()
        self._control: socket.socket | None = None
        self._zygote_pid: int | None = None
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._supervisor = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)

    # What the front asks.

    @property
    def state(self) -> str:
        """`loading`, `ready`, `failed` (for good, see `failure`) or `stopped`."""
        with self._changed:
            if self._closing:
                return "stopped"
            if self._failure:
                return "failed"
            recently = time.monotonic() - self._available_at < _READY_GAP_S
            return "ready" if self._alive() or recently else "loading"

    @property
    def supervised(self) -> bool:
        """Whether somebody still looks after the engines: without, no lost one would ever be replaced."""
        return time.monotonic() - self._turn_at < _SUPERVISED_S

    @property
    def failure(self) -> str | None:
        """Why the state is `failed`, in one line."""
        return self._failure

    @property
    def loaded_at(self) -> float | None:
        """Time (seconds since the epoch) of the last load; None before the first."""
        return self._loaded_at

    def start(self) -> None:
        """Begin to load in the background."""
        self._turn_at = time.monotonic()
        self._supervisor.start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until a worker can take a request; false after `timeout` seconds, or when that will never be."""
        end = time.monotonic() + timeout
        with self._changed:
            while not self._alive():
                left = end - time.monotonic()
                if left <= 0 or self._failure or self._closing:
                    return False
                self._changed.wait(left)
            return True

    def transcribe(
        self,
        pcm: PcmAudio,
        options: DecodeOptions,
        *,
        deadline: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> EngineResult:
        """Wait for a worker and return what it made of the audio.

        `deadline` is a time of `time.monotonic`; `cancelled` is asked every 0.1 s. Raises a subclass of `EngineError`.
        """
        with self._changed:
            self._check_open()
            if self._admitted >= self._engines + self._queue:
                self._counts["rejected"] += 1
                raise QueueFull(self._retry_after())
            self._admitted += 1
            self._counts["requests"] += 1
        try:
            return self._attempt(_Job(pcm, options, deadline, cancelled))
        finally:
            with self._changed:
                self._admitted -= 1
                self._changed.notify_all()

    def stats(self) -> dict[str, Any]:
        """Return gauges and counters for `/version` and `/metrics`."""
        with self._changed:
            states = collections.Counter(worker.state for worker in self._workers.values())
            return {
                "engines": self._engines,
                "threads": self._threads,
                "cpu_variant": self._loaded["cpu_variant"] if self._loaded else None,
                "cpu_variant_reason": self._loaded["cpu_variant_reason"] if self._loaded else None,
                "idle": states["idle"],
                "busy": states["busy"],
                "queued": len(self._waiting),
                "queue_limit": self._queue,
                **{
                    name: self._counts[name]
                    for name in (
                        *("requests", "completed", "rejected", "cancelled", "timeouts"),
                        *("crashes", "retries", "restarts", "loads"),
                    )
                },
            }

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that can take, or have, a request."""
        with self._changed:
            return [w.pid for w in self._workers.values() if w.pid and w.state in ("idle", "busy")]

    def pids(self) -> list[int]:
        """Return the process ids of the zygote and of all workers, whatever their state."""
        with self._changed:
            pids = [self._zygote_pid, *(worker.pid for worker in self._workers.values())]
        return [pid for pid in pids if pid]

    def stop(self, grace: float) -> None:
        """Take no more requests, let those inside finish for `grace` seconds, then end every process."""
        end = time.monotonic() + grace
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._admitted and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())
            self._stopped = True
            self._changed.notify_all()
        self._wake()
        if self._supervisor.ident:
            self._supervisor.join()
        self._wake_in.close()
        self._wake_out.close()

    # One request, in its own thread.

    def _attempt(self, job: _Job) -> EngineResult:
        entered = time.monotonic()
        attempts = losses = 0
        while True:
            worker = self._acquire(job, first=attempts + losses > 0)
            begun = time.monotonic()
            try:
                transcript, compute_s = self._run(worker, job, begun)
                with self._changed:
                    self._counts["completed"] += 1
                    self._average_s = compute_s if self._average_s is None else 0.8 * self._average_s + 0.2 * compute_s
                return EngineResult(transcript, begun - entered, compute_s, attempts + 1)
            except _WorkerLost as loss:
                attempts += loss.blame
                losses += not loss.blame
                if attempts == _ATTEMPTS or losses > self._engines + _ATTEMPTS:
                    raise EngineCrashed("the engine crashed on this audio, and so did the second one") from None
                with self._changed:
                    self._counts["retries"] += 1

    def _acquire(self, job: _Job, first: bool) -> _Worker:
        """Wait in line for an idle worker and hold it; a request that is tried again goes to the front."""
        ticket = object()
        with self._changed:
            self._waiting.appendleft(ticket) if first else self._waiting.append(ticket)
        try:
            while True:
                with self._changed:
                    if self._failure or self._stopped:
                        raise EngineUnavailable(self._failure or "the service is stopping")
                    if self._idle and self._waiting[0] is ticket:
                        worker = self._idle.popleft()
                        self._set_state(worker, "busy")
                        worker.held = True
                        return worker
                    self._changed.wait(min(_POLL_S, job.time_left()))
                self._check_wanted(job)
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _check_wanted(self, job: _Job) -> None:
        if job.cancelled and job.cancelled():
            self._count("cancelled")
            raise Cancelled("the request was cancelled")
        if job.time_left() <= 0:
            self._count("timeouts")
            raise EngineTimeout("the request was not done at its deadline")

    def _run(self, worker: _Worker, job: _Job, begun: float) -> tuple[Transcript, float]:
        """Give the job to a held worker and return its answer; the worker is idle, or doomed, afterwards."""
        started = False
        try:
            worker.jobs.settimeout(_ANSWER_S)
            order = {"options": job.options.to_dict(), "samples": job.pcm.samples}
            send_message(worker.jobs, order, [job.pcm.fd])
            answer = None
            while answer is None:
                message = self._listen(worker, job, begun + self._job_timeout)
                if message["event"] == "started":
                    started = True
                    if self._adapter == "cli":
                        self._count("loads")
                else:
                    answer = message
        except (EOFError, OSError, ValueError):
            with_zygote = self._bury(worker)
            raise _WorkerLost(blame=started and not with_zygote) from None
        except BaseException:
            self._kill(worker)
            raise
        with self._changed:
            worker.held = False
            if worker.state == "busy":
                self._offer(worker)
            self._close_if_done(worker)
        if answer["event"] == "error":
            if answer["kind"] == "refused":
                raise EngineRefused(answer["message"])
            self._log(logging.ERROR, "transcription failed", reason=answer["message"])
            raise EngineFailed(answer["message"])
        return Transcript.from_dict(answer["transcript"]), answer["compute_s"]

    def _listen(self, worker: _Worker, job: _Job, limit: float) -> dict[str, Any]:
        """Return the worker's next message; raises when the request is not wanted any more, or at the limit."""
        poll = select.poll()
        poll.register(worker.jobs, select.POLLIN)
        while True:
            left = min(_POLL_S, limit - time.monotonic(), job.time_left())
            if poll.poll(max(0.0, left) * 1000):
                return receive_message(worker.jobs)[0]
            self._check_wanted(job)
            if time.monotonic() >= limit:
                self._count("timeouts")
                raise EngineTimeout(f"the request computed longer than {self._job_timeout:g} s")

    def _kill(self, worker: _Worker) -> None:
        """Have the zygote kill a held worker that works in vain, or not at all; another takes its place at once."""
        with self._changed:
            worker.held, worker.killed = False, True
            self._discard(worker)
            self._close_if_done(worker)

    def _bury(self, worker: _Worker) -> bool:
        """Wait until a held worker that fell silent is gone; return whether it went with the zygote."""
        end = time.monotonic() + _ANSWER_S
        with self._changed:
            self._discard(worker)
            while not worker.gone and not self._stopped and time.monotonic() < end:
                self._changed.wait(_POLL_S)
            worker.held = False
            self._close_if_done(worker)
            if self._stopped:
                raise EngineUnavailable("the service is stopping")
            return worker.with_zygote

    # The supervisor thread.

    def _supervise(self) -> None:
        failures = 0
        try:
            while not self._stopped:
                begun = time.monotonic()
                reason, permanent = self._host_zygote()
                if self._stopped:
                    return
                if time.monotonic() - begun > _STABLE_S:
                    failures = 0
                failures += 1
                if not self._loaded and (permanent or failures == _FIRST_LOADS):
                    self._fail(reason)
                    return
                self._log(logging.ERROR, "engine host lost", reason=reason)
                delay = min(_BACKOFF_MAX_S, 0.0 if failures == 1 else 0.5 * 2 ** (failures - 2))
                self._turn_at = time.monotonic() + delay
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, delay)
        except BaseException as error:
            self._fail(f"the supervisor of the engines failed: {type(error).__name__}: {error}")
            raise

    def _fail(self, reason: str) -> None:
        with self._changed:
            self._failure = reason
            self._changed.notify_all()

    def _host_zygote(self) -> tuple[str, bool]:
        """Start a zygote and serve it to its end; return why it ended and whether another try is pointless."""
        ours, theirs = socket.socketpair()
        try:
            zygote = subprocess.Popen(
                [sys.executable, "-m", "whisper_xeon.engine.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                # GGML_NO_BACKTRACE: ggml's own abort handler would fork a debugger inside a dying worker.
                env={**os.environ, "PYTHONPATH": str(_APP_DIR), "GGML_NO_BACKTRACE": "1"},
            )
        except OSError as error:
            ours.close()
            return f"the engine host cannot be started: {error.strerror}", False
        finally:
            theirs.close()
        with self._changed:
            self._control, self._zygote_pid = ours, zygote.pid
        ended: tuple[str, bool] | None = None
        try:
            ours.settimeout(_ANSWER_S)
            directory = str(self._package.directory.absolute())
            order = {"op": "load", "adapter": self._adapter, "directory": directory, "threads": self._threads}
            send_message(ours, {**order, "audio_ctx": self._audio_ctx, "cpu_variant": self._cpu_variant})
            ended = self._serve_zygote(ours)
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self._lose_zygote(zygote, ours)
        return ended or (f"the engine host {_describe(zygote.returncode)}", False)

    def _serve_zygote(self, control: socket.socket) -> tuple[str, bool]:
        """Follow the zygote's events and keep the number of workers; return like `_host_zygote`."""
        loaded = False
        while not self._stopped:
            self._turn_at = time.monotonic()
            poll = select.poll()
            poll.register(control, select.POLLIN)
            poll.register(self._wake_out, select.POLLIN)
            with self._changed:
                starting = {w.jobs.fileno(): w for w in self._workers.values() if w.state == "starting"}
            for fd in starting:
                poll.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(1000)}
            if self._wake_out.fileno() in ready:
                self._wake_out.recv(4096)
            for fd in ready & starting.keys():
                failure = self._greet(starting[fd])
                if failure and self._available_at < 0 and self._false_starts >= _FIRST_WORKERS:
                    return failure, True
            if control.fileno() in ready:
                event, _ = receive_message(control)
                if event["event"] == "failed":
                    return event["reason"], True
                loaded = loaded or event["event"] == "loaded"
                self._follow(event)
            if loaded:
                self._fill()
                if self._is_late():
                    return "the engine host does not answer", False
        return "the service is stopping", False

    def _follow(self, event: dict[str, Any]) -> None:
        with self._changed:
            if event["event"] == "loaded":
                self._loaded, self._loaded_at = event, time.time()
                self._counts["loads"] += self._adapter == "library"
            elif event["event"] == "forked":
                self._workers[event["id"]].pid = event["pid"]
            elif event["event"] == "exited":
                self._end(self._workers[event["id"]], event["status"])
            self._changed.notify_all()
        if event["event"] == "loaded":
            self._log(
                logging.INFO,
                "model loaded" if self._adapter == "library" else "model checked",
                adapter=self._adapter,
                model=self._package.model,
                release_id=self._package.release_id,
                quantization=self._package.quantization,
                whisper_cpp=self._package.manifest["whisper_cpp"]["version"],
                cpu_variant=event["cpu_variant"],
                cpu_variant_reason=event["cpu_variant_reason"],
                load_s=event["load_s"],
            )

    def _greet(self, worker: _Worker) -> str | None:
        """Take a starting worker's first message; return the reason if it could not start."""
        reason = "an engine worker ended while it was starting"
        try:
            worker.jobs.settimeout(_ANSWER_S)
            message, _ = receive_message(worker.jobs)
            reason = message.get("reason")
        except (EOFError, OSError, ValueError):
            pass
        with self._changed:
            if reason is None:
                self._false_starts = 0
                self._offer(worker)
            else:
                self._false_starts += 1
                self._fork_at = time.monotonic() + min(_BACKOFF_MAX_S, 0.05 * 2**self._false_starts)
                self._discard(worker)
        return reason

    def _fill(self) -> None:
        """Fork as many workers as are missing."""
        with self._changed:
            if time.monotonic() < self._fork_at:
                return
            usable = sum(worker.state != "doomed" for worker in self._workers.values())
            for _ in range(self._engines - usable):
                ours, theirs = socket.socketpair()
                with theirs:
                    worker = _Worker(self._next_number, ours)
                    self._next_number += 1
                    self._workers[worker.number] = worker
                    self._order({"op": "fork", "id": worker.number}, [theirs.fileno()])

    def _is_late(self) -> bool:
        """Tell whether the zygote leaves an order undone."""
        limit = time.monotonic() - _ANSWER_S
        with self._changed:
            return any(
                (worker.state == "doomed" or worker.pid is None) and worker.since < limit
                for worker in self._workers.values()
            )

    def _lose_zygote(self, zygote: subprocess.Popen, control: socket.socket) -> None:
        """End the zygote, and with it every worker."""
        with self._changed:
            self._control = None
        control.close()  # it leaves at the end of file
        try:
            zygote.wait(timeout=1)
        except subprocess.TimeoutExpired:
            zygote.kill()
            zygote.wait()
        with self._changed:
            self._zygote_pid = None
            orphans = [worker.pid for worker in self._workers.values() if worker.pid]
            for worker in list(self._workers.values()):
                worker.with_zygote = True
                self._end(worker, 0)
            self._changed.notify_all()
        _reap(orphans)

    def _end(self, worker: _Worker, status: int) -> None:
        """Forget a worker whose process has ended with `status`, as os.waitpid gives it. The lock is held."""
        self._discard(worker)
        worker.gone = True
        del self._workers[worker.number]
        self._close_if_done(worker)
        self._counts["restarts"] += 1
        if worker.with_zygote:
            return
        if not worker.killed:
            self._counts["crashes"] += 1
            reason = _describe(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
            self._log(logging.ERROR, "engine worker lost", pid=worker.pid, reason=reason)

    def _count(self, name: str) -> None:
        with self._changed:
            self._counts[name] += 1

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b"x")

    # What follows is called with the lock held.

    def _set_state(self, worker: _Worker, state: str) -> None:
        if state != "doomed" or worker.state in ("idle", "busy"):
            self._available_at = time.monotonic()
        worker.state, worker.since = state, time.monotonic()

    def _offer(self, worker: _Worker) -> None:
        self._set_state(worker, "idle")
        self._idle.append(worker)
        self._changed.notify_all()

    def _discard(self, worker: _Worker) -> None:
        """Never use a worker again, whatever its process still does."""
        if worker.state == "doomed":
            return
        self._set_state(worker, "doomed")
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        self._order({"op": "kill", "id": worker.number})
        self._wake()

    def _close_if_done(self, worker: _Worker) -> None:
        # Never under the feet of a thread that still listens: the descriptor's number would be somebody else's.
        if worker.gone and not worker.held:
            worker.jobs.close()

    def _order(self, order: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Tell the zygote something; when it is gone, the supervisor will notice."""
        if self._control:
            with contextlib.suppress(OSError):
                send_message(self._control, order, fds)

    def _alive(self) -> bool:
        return any(worker.state in ("idle", "busy") for worker in self._workers.values())

    def _check_open(self) -> None:
        if self._closing:
            raise EngineUnavailable("the service is stopping")
        if self._failure:
            raise EngineUnavailable(self._failure)

    def _retry_after(self) -> int:
        average = 5.0 if self._average_s is None else self._average_s
        return max(1, min(600, round(average * self._admitted / self._engines / 2)))


@dataclass(frozen=True)
class _Job:
    pcm: PcmAudio
    options: DecodeOptions
    deadline: float | None
    cancelled: Callable[[], bool] | None

    def time_left(self) -> float:
        return math.inf if self.deadline is None else self.deadline - time.monotonic()


def _describe(returncode: int) -> str:
    if returncode >= 0:
        return f"exited with status {returncode}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-returncode).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"was killed by signal {-returncode}"


def _reap(pids: list[int]) -> None:
    """Collect the workers of a dead zygote where this process inherits them: as the first of a container."""
    end = time.monotonic() + 1
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < end:
                time.sleep(0.01)
