"""Seeded mutations of what the service reads: recordings, models, addresses of recordings, raw requests.

A fault is a status of 500, a connection that ends without an answer, a model that ends the service by a signal or with
a traceback, and an address that is fetched although it is not allowed.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from whisper_bench.locations import APP_DIR
from whisper_bench.memory import encode
from whisper_bench.processes import Service
from whisper_bench.reliability import Row, engines
from whisper_package.package import Package

COUNTS = {"recordings": 10_000, "models": 1_000, "addresses": 300, "requests": 100_000}
TITLE = "mutated recordings, models, addresses of recordings and raw requests: faults"
GOAL = "10,000, 1,000, 300 and 100,000 without a fault"
TODAY = "2,400 / 500 / 280 / 20,000 without a fault"
SECONDS = 2400

SEED = 15
CLIENTS = 8
ANSWER_S = 60.0
ALLOWED_HOST = "media.example.com"

_FORMATS = {
    "wav": ("-ar", "44100"),
    "mp3": ("-b:a", "64k"),
    "flac": (),
    "ogg": ("-c:a", "libopus"),
    "m4a": (),
    "webm": ("-c:a", "libopus"),
    "aac": (),
    "aiff": (),
    "caf": (),
    "ts": ("-c:a", "aac"),
    "wv": (),
    "w64": (),
}
_HEAD = b"POST /transcribe?response_format=text HTTP/1.1\r\nHost: localhost\r\n"
_REQUESTS = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/models?a=b%20c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: a\r\n\r\n",
    _HEAD + b"Content-Type: audio/wav\r\nContent-Length: 4\r\n\r\nRIFF",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n4;a=b\r\nRIFF\r\n0\r\nX: y\r\n\r\n",
    _HEAD + b"Content-Type: application/json\r\nContent-Length: 24\r\nExpect: 100-continue\r\n\r\n"
    b'{"audio_url": "http://"}',
    _HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 93\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF\r\n--x--\r\n            ',
)
_PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"%00",
        b"..",
        b"//",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"HTTP/1.0",
        b"Expect: 100-continue\r\n",
    ),
    *(b"Content-Encoding: gzip\r\n", b"--x\r\n", b"--x--", b"9" * 30, b"-1", b"a" * 9000, b"{", b'"', b"\\"),
)


def measure(seconds: float) -> Row:
    """Do as much of each as its share of the time allows, and at most all of it."""
    share = min(1.0, seconds / SECONDS)
    counts = {name: max(10, round(count * share)) for name, count in COUNTS.items()}
    directory = engines.packages(engines.FIXTURE)
    faults: list[str] = []
    with Service(directory, engines.FIXTURE, WHISPER_ENGINES="2", WHISPER_THREADS="1") as service:
        service.wait_ready()
        faults += recordings(service.port, counts["recordings"])
        faults += requests(service.port, counts["requests"])
    with canary() as (port, hits):
        allow = {"WHISPER_AUDIO_URL_ALLOW": f"http://{ALLOWED_HOST}"}
        with Service(directory, engines.FIXTURE, **allow) as service:
            service.wait_ready()
            faults += addresses(service.port, counts["addresses"], port)
        faults += [f"an address led to {hit}" for hit in hits]
    faults += models(Package.find(directory, engines.FIXTURE), counts["models"])
    done = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    measured = f"{len(faults)} faults in {done}"
    return Row(measured, not faults and share == 1.0, "; ".join(faults[:5]) or f"seed {SEED}")


def recordings(port: int, count: int, seed: int = SEED) -> list[str]:
    """Send mutated recordings; return the faults."""
    originals = {name: encode("en-00.wav", name, *options) for name, options in _FORMATS.items()}

    def send(number: int) -> str | None:
        chance = random.Random(f"{seed} recording {number}")  # noqa: S311
        name = chance.choice(sorted(originals))
        data = _mutated(originals[name], chance)
        head = _HEAD + b"Content-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        return _fault(f"recording {number} ({name})", _exchange(port, head % len(data) + data))

    return _all(send, range(count))


def requests(port: int, count: int, seed: int = SEED) -> list[str]:
    """Send mutated raw requests; return the faults."""

    def send(number: int) -> str | None:
        chance = random.Random(f"{seed} request {number}")  # noqa: S311
        data = bytearray(chance.choice(_REQUESTS))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.choice((0, 0, 1, 4))] = chance.choice(_PIECES) if chance.random() < 0.8 else b""
        if chance.random() < 0.2:
            data += chance.choice(_REQUESTS)
        return _fault(f"request {number}", _exchange(port, bytes(data)))

    return _all(send, range(count))


def addresses(port: int, count: int, canary_port: int, seed: int = SEED) -> list[str]:
    """Ask for recordings at addresses that must not be fetched; return the faults."""
    own = f"127.0.0.1:{canary_port}"
    forms = (
        *("http://{own}/", "http://{allowed}@{own}/", "http://{own}#@{allowed}/", "http://{own}?@{allowed}/"),
        *("http://{allowed}:{port}@{own}/", "http://{allowed}\\@{own}/", "http://{allowed}%40{own}/", "//{own}/"),
        *(
            "http://{allowed}%23@{own}/",
            "http://[::ffff:127.0.0.1]:{port}/",
            "http://2130706433:{port}/",
            "file:///etc/passwd",
        ),
        *(
            "http://0x7f.1:{port}/",
            "http://127.1:{port}/",
            "http://localhost:{port}/",
            "http://{allowed}.127.0.0.1.nip.io/",
        ),
        *("http://{allowed}:{port}/", "https://{own}/", "http://0:{port}/", "http://[::1]:{port}/", "gopher://{own}/"),
        *("http://169.254.169.254/latest/", "http://{allowed}/../../@{own}", "http://{allowed}\r\nHost: {own}/"),
    )

    def send(number: int) -> str | None:
        chance = random.Random(f"{seed} address {number}")  # noqa: S311
        address = forms[number % len(forms)].format(own=own, allowed=ALLOWED_HOST, port=canary_port)
        if number >= len(forms):
            characters = list(address)
            for _ in range(chance.randint(1, 3)):
                characters.insert(chance.randrange(7, len(characters)), chance.choice("@:/\\#?%\t \u3002\uff0f.[]\0a"))
            address = "".join(characters)
        body = json.dumps({"audio_url": address}).encode()
        head = _HEAD + b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        # 502: the name does not exist here.
        return _fault(f"address {address!r}", _exchange(port, head % len(body) + body), allowed=(502, 504))

    return _all(send, range(count))


def models(package: Package, count: int, seed: int = SEED) -> list[str]:
    """Start the self-test with mutated models; return the faults."""
    original = package.model_file.read_bytes()
    header = min(len(original), 1 << 16)

    def test(number: int) -> str | None:
        chance = random.Random(f"{seed} model {number}")  # noqa: S311
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory) / package.name
            shutil.copytree(package.directory, folder, ignore=shutil.ignore_patterns(package.model_file.name))
            data = bytearray(original)
            for _ in range(chance.randint(1, 8)):
                at = chance.randrange(header if chance.random() < 0.8 else len(data))
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            if chance.random() < 0.2:
                del data[chance.randrange(len(data)) :]
            (folder / package.model_file.name).write_bytes(data)
            finished = subprocess.run(
                [sys.executable, "-m", "whisper_xeon", "--self-test"],
                env={
                    "PATH": "/usr/bin:/bin",
                    "PYTHONPATH": str(APP_DIR),
                    "WHISPER_ARTIFACTS_DIR": directory,
                    "WHISPER_MODEL_SIZE": package.model,
                    "WHISPER_THREADS": "1",
                },
                capture_output=True,
                text=True,
                timeout=ANSWER_S * 5,
                check=False,
            )
        said = finished.stderr.strip()
        if finished.returncode not in (0, 1) or "Traceback" in said:
            return f"model {number}: status {finished.returncode}, {said[-200:]!r}"
        return None

    return _all(test, range(count), clients=2)


@contextlib.contextmanager
def canary() -> Iterator[tuple[int, list[str]]]:
    """Listen on the loopback; the block has the port, and a list of who came."""
    hits: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, address = listener.accept()
                    hits.append(f"{address[0]} at {time.monotonic():.1f} s")
                    sock.close()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], hits
        listener.shutdown(socket.SHUT_RDWR)


def _mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a file with bytes changed, cut out, doubled or put in, mostly near its beginning, where headers are."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        near = min(len(result), 512 if chance.random() < 0.6 else len(result))
        at = chance.randrange(near) if near else 0
        kind = chance.randrange(5)
        length = chance.choice((1, 2, 4, 100, 5000))
        if kind <= 1:
            result[at : at + 1] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF, chance.randrange(256)))])
        elif kind == 2:
            del result[at : at + length]
        elif kind == 3:
            result[at:at] = result[at : at + length]
        else:
            result[at:at] = chance.randbytes(length)
    return bytes(result)


def _exchange(port: int, data: bytes) -> bytes:
    """Send bytes and the end, and return what comes back until the service closes."""
    received = b""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as sock:
        with contextlib.suppress(ConnectionError):  # it may have answered and closed before
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        while block := sock.recv(1 << 16):
            received += block
    return received


def _fault(what: str, answer: bytes, allowed: Iterable[int] = ()) -> str | None:
    """Return what is wrong with an answer."""
    if not answer.startswith(b"HTTP/1.1 "):
        return f"{what}: no answer, but {answer[:40]!r}"
    status = int(answer[9:12])
    if status >= 500 and status not in (503, 505, *allowed):
        return f"{what}: {status}"
    return None


def _all(send: Callable[[int], str | None], numbers: Iterable[int], clients: int = CLIENTS) -> list[str]:
    with ThreadPoolExecutor(clients) as threads:
        return [fault for fault in threads.map(send, numbers) if fault]
