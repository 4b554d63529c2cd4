"""The workers as the front process sees them: which there are, what each is doing, and which one is free.

All state here is guarded by the pool's lock (see `pool_state`). What the zygote must do about a worker is sent to it
from here, under the same lock, so that its orders keep the order of the decisions.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Callable

from whisper_xeon.engine.channel import send_message
from whisper_xeon.engine.outcome import EngineStopped
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.pulse import STILL, Pulse
from whisper_xeon.engine.zygote import describe_exit
from whisper_xeon.footprint import Footprint
from whisper_xeon.logs import Log

_POLL_S = 0.1
_REFORK_S = 2.0  # less than this without a worker is a re-fork, not an outage
_SERVING = ("idle", "busy")


class Worker:
    """One worker process. The pool's lock guards all fields; `jobs` belongs to its holder while it is held."""

    def __init__(self, number: int, jobs: socket.socket):
        self.number = number
        self.jobs = jobs
        self.pid: int | None = None
        self.footprint: Footprint | None = None  # once it has greeted
        self.state = "starting"  # then "idle" and "busy" alternately; "doomed" when it will not be used again
        self.since = time.monotonic()  # when the state began
        self.pulse: Pulse | None = None  # known with the process id
        self.alive_at = -math.inf  # the last sign of life
        self.held = False  # a request's thread uses the socket
        self.killed = False  # on our order
        self.gone = False  # the process has ended
        self.status: int | None = None  # … with this status of os.waitpid; None: it was lost with the zygote

    @property
    def is_still(self) -> bool:
        """Whether it has not computed for so long that it hangs, if it has something to compute."""
        return self.pulse is not None and self.pulse.still >= STILL


class Workers:
    """The workers of one pool.

    The thread of a request calls `take`, then `release`, `kill`, `kill_hung` or `bury`; the supervisor calls what comes
    after them.
    Every public method takes the pool's lock; for the private ones it is held.
    """

    def __init__(self, state: PoolState, wake_supervisor: Callable[[], None], log: Log):
        """`wake_supervisor` is called when a worker must be replaced."""
        self._state = state
        self._wake_supervisor = wake_supervisor
        self._log = log
        self._workers: dict[int, Worker] = {}
        self._idle: collections.deque[Worker] = collections.deque()
        self._next_number = 0
        self._control: socket.socket | None = None
        self._served_at = -math.inf  # when there was a worker that serves, last

    @property
    def serving(self) -> bool:
        """Whether a worker can take, or has, a request."""
        with self._state.changed:
            return any(worker.state in _SERVING for worker in self._workers.values())

    @property
    def served_recently(self) -> bool:
        """Whether there was such a worker a moment ago, which a new one is about to replace."""
        return time.monotonic() - self._served_at < _REFORK_S

    @property
    def never_served(self) -> bool:
        """Whether no worker has ever got as far as taking a request."""
        return self._served_at == -math.inf

    def states(self) -> collections.Counter[str]:
        """Return how many workers are in each state."""
        with self._state.changed:
            return collections.Counter(worker.state for worker in self._workers.values())

    def serving_pids(self) -> list[int]:
        """Return the process ids of the workers that can take, or have, a request."""
        with self._state.changed:
            return [w.pid for w in self._workers.values() if w.pid and w.state in _SERVING]

    def pids(self) -> list[int]:
        """Return the process ids of all workers, whatever their state."""
        with self._state.changed:
            return [worker.pid for worker in self._workers.values() if worker.pid]

    def footprints(self) -> list[Footprint]:
        """Return what to read the memory of the workers from."""
        with self._state.changed:
            return [worker.footprint for worker in self._workers.values() if worker.footprint]

    def take(self) -> Worker | None:
        """Hold an idle worker for a request; None when there is none."""
        with self._state.changed:
            if not self._idle:
                return None
            worker = self._idle.popleft()
            self._set_state(worker, "busy")
            worker.held = True
            return worker

    def release(self, worker: Worker) -> None:
        """Give back a held worker that has answered."""
        with self._state.changed:
            worker.held = False
            if worker.state == "busy":
                self.offer(worker)
            self._close_if_done(worker)

    def kill(self, worker: Worker) -> None:
        """Have a held worker killed that hangs or computes for nobody; another replaces it at once."""
        with self._state.changed:
            worker.held, worker.killed = False, True
            self.discard(worker)
            self._close_if_done(worker)

    def kill_hung(self, worker: Worker) -> None:
        """Have a held worker killed that hangs, and the idle ones: whatever stopped it may have stopped them, too."""
        with self._state.changed:
            self._state.count("hangs")
            self._log(logging.ERROR, "engine worker hangs", pid=worker.pid, still=worker.is_still)
            self._state.doubt()
            self.kill(worker)
            for idle in list(self._idle):
                idle.killed = True
                self.discard(idle)

    def discard_stuck(self) -> int:
        """Look once at the workers that are starting, give up those that hang, and return how many did."""
        stuck = 0
        with self._state.changed:
            for worker in self._workers.values():
                if worker.state == "starting" and worker.pulse:
                    worker.pulse.look()
                    if worker.is_still:
                        stuck += 1
                        self._state.count("hangs")
                        self._log(logging.ERROR, "engine worker hangs while it starts", pid=worker.pid)
                        worker.killed = True
                        self.discard(worker)
        return stuck

    def bury(self, worker: Worker, seconds: float) -> None:
        """Wait until a held worker that fell silent is gone, for `seconds` at most.

        Raises `EngineStopped` when the pool was stopped meanwhile.
        """
        end = time.monotonic() + seconds
        with self._state.changed:
            self.discard(worker)
            while not worker.gone and not self._state.stopped and time.monotonic() < end:
                self._state.changed.wait(_POLL_S)
            worker.held = False
            self._close_if_done(worker)
            if self._state.stopped:
                raise EngineStopped

    def attach(self, control: socket.socket) -> None:
        """Send orders to the zygote at the other end of `control` from now on."""
        with self._state.changed:
            self._control = control

    def detach(self) -> None:
        """Send no more orders; then the supervisor may close the socket."""
        with self._state.changed:
            self._control = None

    def fill(self, number: int) -> None:
        """Have as many workers forked as are missing from `number`."""
        with self._state.changed:
            usable = sum(worker.state != "doomed" for worker in self._workers.values())
            for _ in range(number - usable):
                ours, theirs = socket.socketpair()
                with theirs:
                    worker = Worker(self._next_number, ours)
                    self._next_number += 1
                    self._workers[worker.number] = worker
                    self._order({"op": "fork", "id": worker.number}, [theirs.fileno()])

    def starting(self) -> dict[int, Worker]:
        """Return the workers whose first message is still to come, by the descriptors of their sockets."""
        with self._state.changed:
            return {w.jobs.fileno(): w for w in self._workers.values() if w.state == "starting"}

    def forked(self, number: int, pid: int) -> None:
        """Note the process id of a worker."""
        with self._state.changed:
            self._workers[number].pid = pid
            self._workers[number].pulse = Pulse(pid)

    def offer(self, worker: Worker) -> None:
        """Let requests have a worker."""
        with self._state.changed:
            self._set_state(worker, "idle")
            self._idle.append(worker)
            self._state.changed.notify_all()

    def felt(self, worker: Worker) -> None:
        """Note a sign of life of a worker."""
        with self._state.changed:
            worker.alive_at = time.monotonic()
            self._state.changed.notify_all()

    def alive_at(self) -> float:
        """Return when one of the workers gave a sign of life, last."""
        with self._state.changed:
            return max((worker.alive_at for worker in self._workers.values()), default=-math.inf)

    def discard(self, worker: Worker) -> None:
        """Never use a worker again, whatever its process still does."""
        with self._state.changed:
            if worker.state == "doomed":
                return
            self._set_state(worker, "doomed")
            with contextlib.suppress(ValueError):
                self._idle.remove(worker)
            self._order({"op": "kill", "id": worker.number})
            self._wake_supervisor()

    def exited(self, number: int, status: int) -> None:
        """Forget a worker whose process has ended with `status`, as `os.waitpid` gives it."""
        with self._state.changed:
            worker = self._workers[number]
            worker.status = status
            self._forget(worker)
            if not worker.killed:
                self._state.count("crashes")
                reason = describe_exit(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
                self._log(logging.ERROR, "engine worker lost", pid=worker.pid, reason=reason)
            self._state.changed.notify_all()

    def exited_with_zygote(self) -> list[int]:
        """Forget all workers, whose zygote is gone; return their process ids."""
        with self._state.changed:
            pids = self.pids()
            for worker in list(self._workers.values()):
                self._forget(worker)
            self._state.changed.notify_all()
            return pids

    def overdue(self, seconds: float) -> bool:
        """Tell whether the zygote has left an order undone for `seconds`."""
        return self._due(lambda worker: worker.state == "doomed" or worker.pid is None, seconds)

    def fork_overdue(self, seconds: float) -> bool:
        """Tell whether it has not forked for `seconds` after it was told to: only that is up to itself.

        How long a killed worker takes to die is not: it may have gigabytes to give back.
        """
        return self._due(lambda worker: worker.pid is None, seconds)

    def _due(self, concerned: Callable[[Worker], bool], seconds: float) -> bool:
        limit = time.monotonic() - seconds
        with self._state.changed:
            return any(concerned(worker) and worker.since < limit for worker in self._workers.values())

    def _set_state(self, worker: Worker, state: str) -> None:
        if state in _SERVING or worker.state in _SERVING:
            self._served_at = time.monotonic()
        worker.state, worker.since = state, time.monotonic()

    def _forget(self, worker: Worker) -> None:
        self.discard(worker)
        worker.gone = True
        del self._workers[worker.number]
        self._close_if_done(worker)
        self._state.count("restarts")

    def _close_if_done(self, worker: Worker) -> None:
        # Not while a thread still listens: the descriptor's number could become that of another file.
        if worker.gone and not worker.held:
            worker.jobs.close()

    def _order(self, order: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send the zygote an order; if it is gone, the supervisor will notice."""
        if self._control:
            with contextlib.suppress(OSError):
                send_message(self._control, order, fds)
