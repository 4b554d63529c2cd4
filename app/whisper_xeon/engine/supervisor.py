"""The thread that keeps the engines alive: starts the zygote, has workers forked, replaces what crashes or hangs.

Its own fields are written by this thread only. Others read them, each in one step, so they need no lock; what it shares
with the threads of requests lies in `Workers`.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from whisper_package.package import Package
from whisper_xeon.engine.channel import receive_message
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.pulse import LOOK_S, STILL, Pulse
from whisper_xeon.engine.workers import Worker, Workers
from whisper_xeon.engine.zygote import ANSWER_S, ZygoteProcess, reap_orphans
from whisper_xeon.footprint import Footprint
from whisper_xeon.logs import Log

_FIRST_LOADS = 3  # the first load may be killed for memory once or twice; then the operator should know
_FIRST_WORKERS = 5  # the same for workers that do not get as far as taking a request
_BACKOFF_MAX_S = 30.0
_STABLE_S = 60.0  # a zygote that lived this long starts with a fresh back-off
_TURN_MS = 1000  # how often to look for what no event reports …
_LOOK_MS = int(1000 * LOOK_S)  # … and while the zygote, or a worker that starts, has something to do
_SUPERVISED_S = 20.0  # no turn takes as long unless it hangs


class Wakeup:
    """Ends the supervisor's wait for events early, from any thread."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._in.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that is readable after `set`."""
        return self._out.fileno()

    def set(self) -> None:
        """End the wait that goes on, or the next one."""
        with contextlib.suppress(OSError):  # full: it is set already; closed: the supervisor has ended
            self._in.send(b"x")

    def clear(self) -> None:
        """Wait properly again."""
        self._out.recv(4096)

    def close(self) -> None:
        """Close both descriptors; closing twice is harmless."""
        self._in.close()
        self._out.close()


@dataclass(frozen=True)
class Loaded:
    """What the zygote said of its last load."""

    cpu_variant: str
    cpu_variant_reason: str
    at: float  # seconds since the epoch


class _End(NamedTuple):
    """Why a zygote ended, and whether another try would be pointless."""

    reason: str
    permanent: bool = False


class Supervisor:
    """Keeps `engines` workers of one package alive, from `start` until the pool's state says stop."""

    def __init__(
        self,
        state: PoolState,
        workers: Workers,
        wakeup: Wakeup,
        package: Package,
        *,
        engines: int,
        order: dict[str, Any],
        log: Log,
    ):
        """`order` is what every zygote is told to load (see `worker`)."""
        self._state = state
        self._workers = workers
        self._wakeup = wakeup
        self._package = package
        self._engines = engines
        self._order = order
        self._log = log
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self._turn_at = time.monotonic()  # the last sign of life
        self._false_starts = 0  # workers in a row that ended before they could take a request
        self._fork_at = 0.0  # not before
        self.loaded: Loaded | None = None
        self.zygote_footprint: Footprint | None = None  # once it has loaded

    @property
    def responsive(self) -> bool:
        """Whether the thread still does its work: without it, no lost worker would ever be replaced."""
        return time.monotonic() - self._turn_at < _SUPERVISED_S

    def start(self) -> None:
        """Begin to load in the background."""
        self._turn_at = time.monotonic()
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread, after the state says stop."""
        self._wakeup.set()
        if self._thread.ident:
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        try:
            while not self._state.stopped:
                begun = time.monotonic()
                end = self._host()
                if self._state.stopped:
                    return
                if time.monotonic() - begun > _STABLE_S:
                    failures = 0
                failures += 1
                if not self.loaded and (end.permanent or failures == _FIRST_LOADS):
                    self._state.fail(end.reason)
                    return
                self._log(logging.ERROR, "engine host lost", reason=end.reason)
                delay = min(_BACKOFF_MAX_S, 0.0 if failures == 1 else 0.5 * 2 ** (failures - 2))
                self._turn_at = time.monotonic() + delay
                with self._state.changed:
                    self._state.changed.wait_for(lambda: self._state.stopped, delay)
        except BaseException as error:
            self._state.fail(f"the supervisor of the engines failed: {type(error).__name__}: {error}")
            raise

    def _host(self) -> _End:
        """Start a zygote and serve it until its end."""
        try:
            zygote = ZygoteProcess()
        except OSError as error:
            return _End(f"the engine host cannot be started: {error.strerror}")
        self._workers.attach(zygote.control)
        end: _End | None = None
        try:
            zygote.load(self._order)
            end = self._serve(zygote)
        except (EOFError, OSError, ValueError):
            pass  # it is gone, or hung or broken: how it ends says more
        finally:
            self._workers.detach()
            exit_reason = zygote.end()
            self.zygote_footprint = None
            reap_orphans(self._workers.exited_with_zygote())
        return end or _End(f"the engine host {exit_reason}")

    def _serve(self, zygote: ZygoteProcess) -> _End:
        """Follow the zygote's events and keep up the number of workers."""
        loaded = False
        pulse = Pulse(zygote.pid)
        while not self._state.stopped:
            self._turn_at = time.monotonic()
            starting = self._workers.starting()
            poll = select.poll()
            for fd in (zygote.control.fileno(), self._wakeup.fileno(), *starting):
                poll.register(fd, select.POLLIN)
            expectant = bool(starting) or self._workers.overdue(0)
            ready = {fd for fd, _ in poll.poll(_LOOK_MS if expectant else _TURN_MS)}
            if expectant and not ready:
                for _ in range(self._workers.discard_stuck()):
                    self._started_falsely()
                pulse.look()
            if self._wakeup.fileno() in ready:
                self._wakeup.clear()
            for fd in ready & starting.keys():
                failure = self._greet(starting[fd])
                if failure and self._workers.never_served and self._false_starts >= _FIRST_WORKERS:
                    return _End(failure, permanent=True)
            if zygote.control.fileno() in ready:
                event, descriptors = zygote.receive()
                if event["event"] == "failed":
                    return _End(event["reason"], permanent=True)
                if event["event"] == "loaded":
                    loaded = True
                    self.zygote_footprint = Footprint(descriptors)
                self._follow(event)
            if loaded:
                if time.monotonic() >= self._fork_at:
                    self._workers.fill(self._engines)
                if self._workers.fork_overdue(STILL * LOOK_S) and pulse.still >= STILL:
                    return _End("the engine host hangs")
                if self._workers.overdue(ANSWER_S):
                    return _End("the engine host does not answer")
        return _End("the service is stopping")

    def _follow(self, event: dict[str, Any]) -> None:
        if event["event"] == "forked":
            self._workers.forked(event["id"], event["pid"])
        elif event["event"] == "exited":
            self._workers.exited(event["id"], event["status"])
        elif event["event"] == "loaded":
            self.loaded = Loaded(event["cpu_variant"], event["cpu_variant_reason"], time.time())
            in_memory = self._order["adapter"] == "library"
            if in_memory:
                self._state.count("loads")
            self._log(
                logging.INFO,
                "model loaded" if in_memory else "model checked",
                adapter=self._order["adapter"],
                model=self._package.model,
                release_id=self._package.release_id,
                quantization=self._package.quantization,
                whisper_cpp=self._package.manifest["whisper_cpp"]["version"],
                cpu_variant=event["cpu_variant"],
                cpu_variant_reason=event["cpu_variant_reason"],
                load_s=event["load_s"],
            )
            if in_memory and not self._package.alignment_heads:
                self._log(logging.WARNING, "word times are estimates: build the package again to have words aligned")

    def _greet(self, worker: Worker) -> str | None:
        """Take a starting worker's first message; return the reason if it could not start."""
        reason: str | None = "an engine worker ended while it was starting"
        try:
            worker.jobs.settimeout(ANSWER_S)
            message, descriptors = receive_message(worker.jobs)
            worker.footprint = Footprint(descriptors)
            reason = message.get("reason")
        except (EOFError, OSError, ValueError):
            pass
        if reason is None:
            self._false_starts = 0
            self._workers.felt(worker)
            self._workers.offer(worker)
        else:
            self._started_falsely()
            self._workers.discard(worker)
        return reason

    def _started_falsely(self) -> None:
        """Wait with the next fork, longer each time in a row that a worker did not get as far as taking a request."""
        self._false_starts += 1
        self._fork_at = time.monotonic() + min(_BACKOFF_MAX_S, 0.05 * 2 ** min(self._false_starts, 10))
