"""Servers as processes: this project's service and what the baselines have in common, requests, and memory."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPMessage
from pathlib import Path

from whisper_bench.locations import APP_DIR

START_SECONDS = 300
REQUEST_SECONDS = 1800
SAMPLE_SECONDS = 0.1
SETTLED_MB = 0.1


class HttpProcess:
    """A server on a free port of the loopback interface, until the block ends."""

    name = "server"
    ready_path = "/health"
    engines = 1
    verbose = False  # writes more to standard error than what went wrong

    def __init__(self, command: list[str | Path], environment: dict[str, str] | None = None):
        """Start `command`; an argument or the value of a variable that is `PORT` is replaced by the port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        port = {"PORT": str(self.port)}
        variables = {name: port.get(value, value) for name, value in (environment or {}).items()}
        self._process = subprocess.Popen(
            [port.get(str(part), str(part)) for part in command],
            env={"PATH": os.environ["PATH"], **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if self.verbose else None,
        )
        self.pid = self._process.pid

    def __enter__(self) -> HttpProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, whatever it is doing: a server that is terminated first answers the requests that wait."""
        self._process.kill()
        self._process.wait()

    def wait_ready(self) -> None:
        """Wait until a request would be served."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self.request("GET", self.ready_path)[0] == 200:
                    return
            time.sleep(0.02)
        raise SystemExit(f"bench: {self.name} did not become ready (exit status {self._process.poll()})")

    def settled_memory(self, *kinds: str) -> float:
        """Return the summed PSS in MB once every engine is up and nothing changes any more; see `summed_pss`."""
        before = 0.0
        for _ in range(START_SECONDS):
            time.sleep(1)
            now = summed_pss(self.pid, *kinds)
            if abs(now - before) <= SETTLED_MB and self._complete():
                return now
            before = now
        raise SystemExit(f"bench: the memory of {self.name} still changes after {START_SECONDS} s")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict | None = None
    ) -> tuple[int, bytes, HTTPMessage]:
        """Return status, body and headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def text(self, audio: bytes) -> str:
        """Return the transcript of a WAV file in English; a failed request ends the measurement."""
        status, answer = self._transcribe_english(audio)
        if status != 200:
            raise SystemExit(f"bench: {self.name} answered {status}: {answer.decode(errors='replace')}")
        return json.loads(answer)["text"]

    def _transcribe_english(self, audio: bytes) -> tuple[int, bytes]:
        raise NotImplementedError

    def _complete(self) -> bool:
        return True


class Service(HttpProcess):
    """This project's service."""

    name = "the service"
    ready_path = "/readyz"

    def __init__(self, artifacts_dir: Path, model: str, **settings: str):
        """`settings` are `WHISPER_*` variables; by default one engine with the service's own number of threads."""
        values = {
            "WHISPER_ARTIFACTS_DIR": str(artifacts_dir),
            "WHISPER_MODEL_SIZE": model,
            "WHISPER_PORT": "PORT",
            "WHISPER_ENGINES": "1",
            "WHISPER_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
            "WHISPER_LOG_LEVEL": "error",
            **settings,
        }
        self.engines = int(values["WHISPER_ENGINES"])
        super().__init__([sys.executable, "-m", "whisper_xeon"], {"PYTHONPATH": str(APP_DIR), **values})

    def transcribe(
        self, audio: bytes, query: str = "", content_type: str = "audio/wav", path: str = "/transcribe"
    ) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        return self.request("POST", f"{path}?{query}" if query else path, audio, {"Content-Type": content_type})[:2]

    def _transcribe_english(self, audio: bytes) -> tuple[int, bytes]:
        return self.transcribe(audio, "language=en")

    def _complete(self) -> bool:
        # It is ready as soon as one engine is up, and an engine cleans up after its answer.
        return len(descendants(self.pid)) == 1 + self.engines


def form(audio: bytes, **fields: str) -> tuple[bytes, str]:
    """Return body and content type of a request with the audio in the form field `file`."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'name="file"; filename="clip"\r\n\r\n' + audio)
    body = b"".join(b"--boundary\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return body + b"--boundary--\r\n", "multipart/form-data; boundary=boundary"


class PeakMemory(threading.Thread):
    """Samples the summed PSS of a process and its descendants until the block ends; `mb` is the highest sum."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.mb = 0.0

    def __enter__(self) -> PeakMemory:
        self.mb = summed_pss(self._pid)  # here, so that what prevents it ends the program
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while True:
            self.mb = max(self.mb, summed_pss(self._pid))
            if self._ended.wait(SAMPLE_SECONDS):
                return


def summed_pss(pid: int, *kinds: str) -> float:
    """Return the proportional set size of a process and its descendants in MB: pages shared by n count 1/n each.

    `kinds` (`Anon`, `File`, `Shmem`) restrict it to pages of these kinds.
    Of the service only root can read it.
    """
    names = "|".join(f"Pss_{kind}" for kind in kinds) or "Pss"
    total = 0
    for process in (pid, *descendants(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            try:
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            except PermissionError:
                raise SystemExit("bench: the service hides its memory from its own user: run this as root") from None
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
