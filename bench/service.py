"""What the measurements share: the real service as a process, its memory, the machine's name."""

from __future__ import annotations

import contextlib
import http.client
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import packages

START_SECONDS = 300
REQUEST_SECONDS = 1800
SAMPLE_SECONDS = 0.1
SETTLED_MB = 0.1


class Service:
    """The service on a free port of the loopback, until the block ends."""

    def __init__(self, artifacts_dir: Path, model: str, **settings: str):
        """`settings` are `WHISPER_*` variables; without any, one engine with as many threads as is usual."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        values = {
            "WHISPER_ARTIFACTS_DIR": str(artifacts_dir),
            "WHISPER_MODEL_SIZE": model,
            "WHISPER_PORT": str(self._port),
            "WHISPER_ENGINES": "1",
            "WHISPER_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
            "WHISPER_LOG_LEVEL": "error",
            **settings,
        }
        self._engines = int(values["WHISPER_ENGINES"])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "whisper_xeon"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages.ROOT / "app"), **values},
        )
        self.pid = self._process.pid

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def wait_ready(self) -> None:
        """Wait until a request would be served."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self._request("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        raise SystemExit(f"the service did not get ready (exit status {self._process.poll()})")

    def transcribe(
        self, audio: bytes, query: str = "", content_type: str = "audio/wav", path: str = "/transcribe"
    ) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        return self._request("POST", f"{path}?{query}" if query else path, audio, {"Content-Type": content_type})

    def settled_memory(self, *kinds: str) -> float:
        """Return the summed PSS in MB when every engine is there and nothing moves any more; see `summed_pss`.

        The service is ready as soon as it has one engine, and an engine tidies up after its answer.
        """
        before = 0.0
        for _ in range(START_SECONDS):
            time.sleep(1)
            now = summed_pss(self.pid, *kinds)
            if abs(now - before) <= SETTLED_MB and len(descendants(self.pid)) == 1 + self._engines:
                return now
            before = now
        raise SystemExit("the service's memory does not come to rest")

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()


class PeakMemory(threading.Thread):
    """Samples the summed PSS of a process and all below it while the block runs; `mb` is the highest sum."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.mb = 0.0

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.mb = max(self.mb, summed_pss(self._pid))


def summed_pss(pid: int, *kinds: str) -> float:
    """Return the proportional set size of a process and its descendants in MB: pages that n share count 1/n each.

    `kinds` (`Anon`, `File`, `Shmem`) restrict it to such pages.
    """
    names = "|".join(f"Pss_{kind}" for kind in kinds) or "Pss"
    total = 0
    for process in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += sum(int(kilobytes) for kilobytes in re.findall(rf"^(?:{names}): +(\d+) kB$", rollup, re.MULTILINE))
    return total * 1024 / 1e6


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


def origin() -> str:
    """Return the machine and the command behind the figures, in words."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found.group(1) if found else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores; made with `python {shlex.join(sys.argv)}`."
