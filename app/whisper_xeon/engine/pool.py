"""The pool of engines: queues requests, hands each to a worker process, and replaces workers that crash or hang.

It lives in the front process and never loads the library. A supervisor thread owns the zygote; the thread that calls
`transcribe` talks to its worker itself. The parts: `pool_state` (the lock), `workers`, `supervisor` with `zygote`,
`queue`, `runner` for one request, `pace` and `pulse` to tell when a worker hangs, and `readiness`; see `worker` for the
processes and their messages.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable

from whisper_package.package import Package
from whisper_xeon.audio.decode import PcmAudio
from whisper_xeon.engine.job import Job
from whisper_xeon.engine.live_text import LiveText, Reader
from whisper_xeon.engine.outcome import Cancelled, EngineResult, EngineTimeout
from whisper_xeon.engine.pace import Pace
from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.queue import RequestQueue
from whisper_xeon.engine.readiness import Readiness
from whisper_xeon.engine.runner import Runner
from whisper_xeon.engine.supervisor import Supervisor, Wakeup
from whisper_xeon.engine.workers import Workers
from whisper_xeon.footprint import Footprint
from whisper_xeon.logs import Log
from whisper_xeon.shares import Guest
from whisper_xeon.transcript import DecodeOptions

_COUNTERS = (
    *("requests", "completed", "rejected", "cancelled", "timeouts"),
    *("crashes", "hangs", "retries", "restarts", "loads"),
)


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
        audio_ctx: str = "auto",
        cpu_variant: str | None = None,
        vad: bool = True,
        log: Log | None = None,
    ):
        """`threads` compute one request; `queue` requests may wait beyond those being computed.

        `adapter` is `library`, or `cli` for workers that run whisper-cli, which loads the model for each request;
        `audio_ctx` is `auto` or `full` (see `adapter`); `cpu_variant` names the CPU library to use, None takes the
        best; `vad` has what is not speech skipped, if the package can tell. `log` is called as
        `log(level, event, **fields)`, with a level of `logging`.
        """
        log = log or _no_log
        self._engines = engines
        self._threads = threads
        self._vad = vad and package.vad_file is not None
        if vad and not self._vad:
            log(logging.INFO, "voice detection is off: the package is from before it, build it again to have it")
        self._state = PoolState()
        self._wakeup = Wakeup()
        self._workers = Workers(self._state, self._wakeup.set, log)
        self._queue = RequestQueue(self._state, self._workers, engines=engines, limit=queue)
        loads_each = adapter == "cli"
        pace = Pace(whole=loads_each)
        self._runner = Runner(self._state, self._queue, self._workers, pace, loads_each=loads_each, log=log)
        self._readiness = Readiness(self._state, self._queue, self._workers, self._runner)
        order = {
            "adapter": adapter,
            "directory": str(package.directory.absolute()),
            "threads": threads,
            "audio_ctx": audio_ctx,
            "cpu_variant": cpu_variant,
            "vad": self._vad,
        }
        self._supervisor = Supervisor(
            self._state, self._workers, self._wakeup, package, engines=engines, order=order, log=log
        )

    @property
    def state(self) -> str:
        """`loading`, `ready`, `failed` (for good, see `failure`) or `stopped`."""
        with self._state.changed:
            if self._state.closing:
                return "stopped"
            if self._state.failure:
                return "failed"
            return "ready" if self._workers.serving or self._workers.served_recently else "loading"

    def readiness(self) -> str:
        """Return `state`, or `hanging` where that is `ready` and no engine proves it; takes a second at most, or so."""
        state = self.state
        return "hanging" if state == "ready" and not self._readiness.proven() else state

    @property
    def supervised(self) -> bool:
        """Whether somebody still looks after the engines: without, no lost one would ever be replaced."""
        return self._supervisor.responsive

    @property
    def failure(self) -> str | None:
        """Why the state is `failed`, in one line."""
        return self._state.failure

    @property
    def loaded_at(self) -> float | None:
        """Time (seconds since the epoch) of the last load; None before the first."""
        loaded = self._supervisor.loaded
        return loaded.at if loaded else None

    def start(self) -> None:
        """Begin to load in the background."""
        self._supervisor.start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until a worker can take a request; false after `timeout` seconds, or when that will never be."""
        end = time.monotonic() + timeout
        with self._state.changed:
            while not self._workers.serving:
                left = end - time.monotonic()
                if left <= 0 or self._state.failure or self._state.closing:
                    return False
                self._state.changed.wait(left)
            return True

    def check_open(self) -> None:
        """Raise `EngineUnavailable` or `EngineStopped` when a request would be given up at once."""
        self._state.check_open()

    def transcribe(
        self,
        pcm: PcmAudio,
        options: DecodeOptions,
        *,
        deadline: float | None = None,
        patience: float = 0.0,
        cancelled: Callable[[], bool] | None = None,
        read: Reader | None = None,
        guest: Guest | None = None,
    ) -> EngineResult:
        """Wait for a worker and return what it made of the audio.

        `deadline` is a time of `time.monotonic`, and moves on to `patience` seconds after each window that an engine
        has done; `cancelled` is asked every 0.1 s; `read` gets the text on the way, in this thread; `guest` is whose
        request it is. Raises a subclass of `EngineError`, or `SentAway` or `OverLimit`.
        """
        live = LiveText(read) if read else None
        job = Job(pcm, options, deadline, patience, lambda: self._state.progress_at, cancelled, live, guest or Guest())
        with self._queue.admitted(job.guest):
            try:
                return self._runner.run(job)
            except Cancelled:
                self._state.count("cancelled")
                raise
            except EngineTimeout:
                self._state.count("timeouts")
                raise

    def stats(self) -> dict[str, Any]:
        """Return gauges and counters for `/version` and `/metrics`."""
        loaded = self._supervisor.loaded
        with self._state.changed:
            states = self._workers.states()
            return {
                "engines": self._engines,
                "threads": self._threads,
                "vad": "on" if self._vad else "off",
                "cpu_variant": loaded.cpu_variant if loaded else None,
                "cpu_variant_reason": loaded.cpu_variant_reason if loaded else None,
                "idle": states["idle"],
                "busy": states["busy"],
                "queued": self._queue.length,
                "queue_limit": self._queue.limit,
                **{name: self._state.counts[name] for name in _COUNTERS},
            }

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that can take, or have, a request."""
        return self._workers.serving_pids()

    def footprints(self) -> list[Footprint]:
        """Return what to read the memory of the zygote and of its workers from, once they have loaded."""
        zygote = self._supervisor.zygote_footprint
        return [*([zygote] if zygote else []), *self._workers.footprints()]

    def stop(self, grace: float) -> None:
        """Take no more requests, let those inside finish for `grace` seconds, then end every process."""
        end = time.monotonic() + grace
        self._state.close()
        self._queue.await_empty(end)
        self._state.stop()
        self._supervisor.join()
        self._wakeup.close()


def _no_log(level: int, event: str, /, **fields: Any) -> None:
    """Write nothing."""
