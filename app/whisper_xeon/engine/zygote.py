"""The zygote as the front process sees it: a child process that is started, talked to and ended. See `worker`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from whisper_xeon.engine.channel import receive_message, send_message

ANSWER_S = 10.0  # the zygote computes nothing and workers send from memory: longer silence means hung
_END_S = 1.0  # to leave by itself once its socket is closed
_APP_DIR = Path(__file__).resolve().parents[2]


class ZygoteProcess:
    """One running zygote, and its control socket."""

    def __init__(self) -> None:
        """Start the process. Raises `OSError`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "whisper_xeon.engine.worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    # GGML_NO_BACKTRACE: ggml's own abort handler would fork a debugger inside a dying worker.
                    env={**os.environ, "PYTHONPATH": str(_APP_DIR), "GGML_NO_BACKTRACE": "1"},
                )
        except BaseException:
            ours.close()
            raise
        ours.settimeout(ANSWER_S)
        self.control = ours
        self.pid = self._process.pid

    def load(self, order: dict[str, Any]) -> None:
        """Tell it what to load. Raises `OSError` when it is gone."""
        send_message(self.control, {"op": "load", **order})

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Return its next message, and what it passes. Raises `EOFError`, `OSError` or `ValueError` if it is gone or
        broken."""
        return receive_message(self.control)

    def end(self) -> str:
        """End it, and with it every worker; return how it ended, in words that follow "the engine host"."""
        self.control.close()  # it leaves at the end of file
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return describe_exit(self._process.returncode)


def describe_exit(returncode: int) -> str:
    """Say in words how a process ended; `returncode` is as `subprocess` gives it."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-returncode).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"was killed by signal {-returncode}"


def reap_orphans(pids: Iterable[int]) -> None:
    """Collect the workers of a dead zygote where this process inherits them: as the first process of a container."""
    end = time.monotonic() + _END_S
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < end:
                time.sleep(0.01)
