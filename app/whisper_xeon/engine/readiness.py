"""Whether the engines work now, and not only did once: found out when somebody asks.

What counts is a sign of life from after the question, of any worker: that it computes a request, or that an idle one
answers. If nothing real was done for a while, or since a worker hung, the idle one computes a little for it.
"""

from __future__ import annotations

import threading
import time

from whisper_xeon.engine.pool_state import PoolState
from whisper_xeon.engine.queue import RequestQueue
from whisper_xeon.engine.runner import Runner
from whisper_xeon.engine.workers import Workers

_PROOF_S = 30.0  # how long a window or a probe proves that idle engines can compute
_PATIENCE_S = 1.0
_POLL_S = 0.05
_FRESH_S = 0.1  # so that it costs nothing to be asked very often


class Readiness:
    """Knows whether the engines of one pool work. `proven` may be called from any thread."""

    def __init__(self, state: PoolState, queue: RequestQueue, workers: Workers, runner: Runner):
        self._state = state
        self._queue = queue
        self._workers = workers
        self._runner = runner
        self._asking = threading.Lock()

    def proven(self) -> bool:
        """Return whether a worker proves that it works, within about a second."""
        asked = time.monotonic()
        with self._asking:  # one checks, and the others learn from it
            while True:
                with self._state.changed:
                    doubted = self._state.progress_at < self._state.doubt_at
                    old = time.monotonic() - self._state.progress_at > _PROOF_S
                    # Those who wait for a worker come first, and their worker shows whether it works.
                    idle = not self._queue.length and self._workers.states()["idle"] > 0
                    alive = self._workers.alive_at() >= asked - _FRESH_S
                    if alive and not doubted and not (idle and old):
                        return True
                    worker = self._workers.take() if idle else None
                    if worker is None:
                        if time.monotonic() > asked + _PATIENCE_S:
                            return False
                        self._state.changed.wait(_POLL_S)
                        continue
                return self._runner.check(worker, compute=doubted or old)
