"""The real service as a process of its own, for tests: started, waited for, talked to over HTTP, ended by its pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paths import RECORDINGS, ROOT

EXACT = {
    entry["file"]: entry
    for entry in json.loads((RECORDINGS / "refs.json").read_text(encoding="utf-8"))["recordings"]
    if entry["exact"]
}
ADAPTERS = ("library", "cli")  # WHISPER_ADAPTER: what the API does is the same with both
START_SECONDS = 60


@dataclass
class Answer:
    """One HTTP answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a service with these `WHISPER_*` settings and nothing inherited but PATH."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "app"), "LC_ALL": "C.UTF-8", **settings}


def run_cli(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m whisper_xeon` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "whisper_xeon", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def encode_form(parts: Iterable[tuple[str, str | bytes | Path]]) -> tuple[bytes, str]:
    """Return a multipart body and its content type; a `Path` or `bytes` becomes a file, a `str` a field."""
    boundary = uuid.uuid4().hex
    body = b""
    for name, value in parts:
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if isinstance(value, str):
            body += b"\r\n\r\n" + value.encode()
        else:
            content = value.read_bytes() if isinstance(value, Path) else value
            body += b'; filename="clip"\r\nContent-Type: application/octet-stream\r\n\r\n' + content
        body += b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen
    port: int
    log_file: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def logs(self) -> str:
        """Return what conftest prints beside a failed test."""
        return self.log_text

    @property
    def log_text(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_text.splitlines() if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.log_lines if line["event"] == event]

    def request_line(self, request_id: str) -> dict[str, Any]:
        """Wait for the log line of one request, which follows its answer."""
        return wait_for(lambda: [line for line in self.events("request") if line["id"] == request_id])[0]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send one request on a connection of its own; `content_type` means Content-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post_form(self, path: str, *parts: tuple[str, str | bytes | Path], **headers: str) -> Answer:
        body, content_type = encode_form(parts)
        return self.request("POST", path, body, content_type=content_type, **headers)

    def transcribe(self, recording: str, *fields: tuple[str, str], path: str = "/v1/audio/transcriptions") -> Answer:
        """Post one of the test recordings."""
        return self.post_form(path, ("file", RECORDINGS / recording), *fields)

    def raw(self, data: bytes, *, half_close: bool = False, timeout: float = 15) -> bytes:
        """Send bytes as they are and return everything that comes back until the service closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as sock:
            with contextlib.suppress(OSError):  # it may have answered and closed before everything is sent
                sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while data := sock.recv(65536):
                    received += data
            return received

    def wait_ready(self) -> None:
        wait_for(self._is_ready, START_SECONDS)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended with status {self.process.returncode}")
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def engine_pids(self) -> list[int]:
        """Return the processes under the service's own."""
        return _descendants(self.process.pid)

    def worker_pids(self) -> list[int]:
        """Return the workers: the processes below the zygote, which is the service's only long-lived child."""
        return [pid for pid in self.engine_pids() if _parent(pid) != self.process.pid]

    @contextlib.contextmanager
    def workers_held(self) -> Iterator[None]:
        """Stop every worker where it is, and those that replace them: what they are given is never done."""
        held, released = threading.Event(), threading.Event()

        def hold() -> None:
            while True:
                for pid in self.worker_pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                held.set()
                if released.wait(0.02):
                    return

        with ThreadPoolExecutor(1) as thread:
            holding = thread.submit(hold)
            try:
                assert held.wait(60)
                yield
            finally:
                released.set()
                holding.result()

    def release_workers(self) -> None:
        """Let the workers that were stopped go on."""
        for pid in self.worker_pids():
            os.kill(pid, signal.SIGCONT)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)


@contextlib.contextmanager
def running_service(
    artifacts_dir: Path, *, wait: bool = True, python: Sequence[str] = (sys.executable,), **settings: str
) -> Iterator[Service]:
    """Run the service on a free port of the loopback, by the command `python`; on failure its log is printed."""
    port = free_port()
    values = {
        "WHISPER_ARTIFACTS_DIR": str(artifacts_dir),
        "WHISPER_PORT": str(port),
        "WHISPER_THREADS": "1",
        **settings,
    }
    with tempfile.TemporaryDirectory(prefix="whisper-xeon-test-") as folder:
        log_file = Path(folder) / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*python, "-m", "whisper_xeon"],
                env=environment(TMPDIR=folder, **values),
                stdout=log,
                stderr=log,
                cwd=folder,
            )
        service = Service(process, port, log_file)
        try:
            if wait:
                service.wait_ready()
            yield service
        except BaseException:
            print(f"--- log of the service on port {port}\n{service.log_text}")
            raise
        finally:
            end(process)


def submit(service: Service, path: Path, **fields: str) -> socket.socket:
    """Send a transcription request whole and return the socket without waiting for the answer."""
    return _submit(service, "/v1/audio/transcriptions", *encode_form([("file", path), *fields.items()]))


def submit_json(service: Service, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a JSON body whole and return the socket without waiting for the answer."""
    return _submit(service, path, json.dumps(body).encode(), "application/json")


def _submit(service: Service, path: str, body: bytes, content_type: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    headers = {"Host": "a", "Connection": "close", "Content-Type": content_type, "Content-Length": len(body)}
    lines = [f"{name}: {value}\r\n" for name, value in {**headers, **service.headers}.items()]
    sock.sendall(f"POST {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body)
    return sock


def end(process: subprocess.Popen) -> None:
    """End a process that a test started, politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition, seconds: float = 20) -> Any:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)
    return value


def process_stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return process_stat(pid)[:1] not in ([], ["Z"])


def _parent(pid: int) -> int:
    return int((process_stat(pid) or ["", "0"])[1])


def _descendants(pid: int) -> list[int]:
    parents = {int(entry.name): _parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found
