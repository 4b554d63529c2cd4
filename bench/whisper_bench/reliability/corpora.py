"""What others wrote down as requests that a server must not accept, sent to the service's HTTP server.

gunicorn's source distribution carries its corpus of invalid requests; it is fetched from the package index, pinned by
its digest, and kept nowhere. h1spec's cases are in no package: they are here by name, in our words.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from whisper_bench.reliability import Row
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.server import Request, Response, Server

TITLE = "h1spec's 33 cases by name / gunicorn's corpus of 74 invalid requests"
GOAL = "33 / at least 70, and why the rest is right"
TODAY = "32 / 65 of 74"

CORPUS = "gunicorn==26.2.0"
DIGEST = "62b864895d9ebff0b2f9867ba04fe811c93121596540830c9c916d0769668447"
AT_LEAST = 70
# What is answered all the same, and why that is right.
ANSWERED = {
    "006.http": "a request line of 4,112 bytes: 8,190 are allowed, since a query may hold a prompt",
    "011.http": "three headers, with gunicorn set to allow two",
    "012.http": "a header of 100 bytes, with gunicorn set to allow 98",
}

_HOST = "Host: example.com\r\n"
# Its name, the request, and which statuses it must have (-1: none, as it is not complete).
H1SPEC: tuple[tuple[str, str, range], ...] = (
    ("Fragmented method", "G", range(-1, 0)),
    ("Fragmented URL 1", "GET ", range(-1, 0)),
    ("Fragmented URL 2", "GET /hello", range(-1, 0)),
    ("Fragmented URL 3", "GET /hello ", range(-1, 0)),
    ("Fragmented HTTP version", "GET /hello HTTP", range(-1, 0)),
    ("Fragmented request line", "GET /hello HTTP/1.1", range(-1, 0)),
    ("Fragmented request line newline 1", "GET /hello HTTP/1.1\r", range(-1, 0)),
    ("Fragmented request line newline 2", "GET /hello HTTP/1.1\r\n", range(-1, 0)),
    ("Fragmented field name", "GET /hello HTTP/1.1\r\nHos", range(-1, 0)),
    ("Fragmented field value 1", "GET /hello HTTP/1.1\r\nHost:", range(-1, 0)),
    ("Fragmented field value 2", "GET /hello HTTP/1.1\r\nHost: ", range(-1, 0)),
    ("Fragmented field value 3", "GET /hello HTTP/1.1\r\nHost: example.com", range(-1, 0)),
    ("Fragmented field value 4", "GET /hello HTTP/1.1\r\nHost: example.com\r", range(-1, 0)),
    ("Fragmented request", f"GET /hello HTTP/1.1\r\n{_HOST}", range(-1, 0)),
    ("Fragmented request termination", f"GET /hello HTTP/1.1\r\n{_HOST}\r", range(-1, 0)),
    ("Request without HTTP version", "GET / \r\n\r\n", range(400, 600)),
    ("Request with Expect header", f"GET / HTTP/1.1\r\n{_HOST}Expect: 100-continue\r\n\r\n", range(100, 300)),
    ("Valid GET request", f"GET / HTTP/1.1\r\n{_HOST}\r\n", range(200, 300)),
    ("Valid GET request with edge cases", "GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n", range(200, 300)),
    ("Invalid header characters", f"GET / HTTP/1.1\r\n{_HOST}X-Invalid[]: test\r\n\r\n", range(400, 500)),
    ("Missing Host header", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", range(400, 500)),
    ("Multiple Host headers", f"GET / HTTP/1.1\r\n{_HOST}Host: example.org\r\n\r\n", range(400, 500)),
    (
        "Overflowing negative Content-Length header",
        f"GET / HTTP/1.1\r\n{_HOST}Content-Length: -{'123456789' * 3}\r\n\r\n",
        range(400, 500),
    ),
    ("Negative Content-Length header", f"GET / HTTP/1.1\r\n{_HOST}Content-Length: -1234\r\n\r\n", range(400, 500)),
    ("Non-numeric Content-Length header", f"GET / HTTP/1.1\r\n{_HOST}Content-Length: abc\r\n\r\n", range(400, 500)),
    ("Empty header value", f"GET / HTTP/1.1\r\n{_HOST}X-Empty-Header: \r\n\r\n", range(200, 300)),
    (
        "Header containing invalid control character",
        f"GET / HTTP/1.1\r\n{_HOST}X-Bad-Control-Char: test\x07\r\n\r\n",
        range(400, 500),
    ),
    ("Invalid HTTP version", f"GET / HTTP/9.9\r\n{_HOST}\r\n", range(400, 600)),
    ("Invalid prefix of request", f"Extra lineGET / HTTP/1.1\r\n{_HOST}\r\n", range(400, 600)),
    ("Invalid line ending", f"GET / HTTP/1.1\r\n{_HOST}\rSome-Header: Test\r\n\r\n", range(400, 500)),
    ("Valid POST request with body", f"POST / HTTP/1.1\r\n{_HOST}Content-Length: 5\r\n\r\nhello", range(200, 300)),
    (
        "Chunked Transfer-Encoding",
        f"POST / HTTP/1.1\r\n{_HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        range(200, 300),
    ),
    (
        "Conflicting Transfer-Encoding and Content-Length in varying case",
        f"POST / HTTP/1.1\r\n{_HOST}content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        range(400, 500),
    ),
)
WAITED_S = 0.5  # as h1spec does


def measure(seconds: float) -> Row:
    """Send every request once; `seconds` does not matter."""
    with tempfile.TemporaryDirectory() as directory, _serving() as address:
        failed = [name for name, request, right in H1SPEC if not _passes(address, request.encode("latin-1"), right)]
        invalid = _corpus(Path(directory))
        answered = {name for name, request in invalid.items() if _is_answered(address, request)}
    passed, refused = len(H1SPEC) - len(failed), len(invalid) - len(answered)
    reasons = [f"{name}: {ANSWERED.get(name, 'no reason known')}" for name in sorted(answered)]
    met = not failed and refused >= AT_LEAST and answered <= ANSWERED.keys()
    return Row(f"{passed} of {len(H1SPEC)} / {refused} of {len(invalid)}", met, "; ".join([*failed, *reasons]))


@contextlib.contextmanager
def _serving() -> Iterator[tuple[str, int]]:
    """Run the service's HTTP server with an application that answers with the body that it was sent."""
    server = Server(_echo, ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield ("127.0.0.1", server.server_port)
    finally:
        server.stop()
        thread.join()
        server.drain(10)


def _echo(request: Request) -> Response:
    request.body.accept(1 << 20, HttpError(413, "too large", code="too_large", close=True))
    return Response(200, b"".join(iter(request.body.read, b"")), "text/plain")


def _corpus(directory: Path) -> dict[str, bytes]:
    """Fetch gunicorn's invalid requests, by file name."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "gunicorn", CORPUS]
    subprocess.run([*command, "--dest", directory], check=True)
    [archive] = directory.iterdir()
    if hashlib.sha256(archive.read_bytes()).hexdigest() != DIGEST:
        raise SystemExit(f"bench: {archive.name} is not the one that is pinned")
    with tarfile.open(archive) as files:
        return {
            Path(member.name).name: _decoded(stream.read())
            for member in files
            if re.search(r"/tests/requests/invalid/[^/]+\.http$", member.name) and (stream := files.extractfile(member))
        }


def _decoded(text: bytes) -> bytes:
    r"""Return the bytes that a file of the corpus stands for: \r\n and the like are written out, line ends are not."""
    data = text.replace(b"\n", b"")
    for written, meant in ((rb"\r\n", b"\r\n"), (rb"\0", b"\0"), (rb"\n", b"\n"), (rb"\t", b"\t")):
        data = data.replace(written, meant)
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), data)


def _is_answered(address: tuple[str, int], request: bytes) -> bool:
    """Whether the last answer is a success, when nothing follows the request."""
    received = b""
    with socket.create_connection(address, timeout=15) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                received += data
    statuses = re.findall(rb"HTTP/1\.1 (\d{3})", received)
    return not statuses or int(statuses[-1]) < 400


def _passes(address: tuple[str, int], request: bytes, right: range) -> bool:
    """Whether the first thing that is received has a right status, and the body that was sent."""
    with socket.create_connection(address, timeout=WAITED_S) as sock:
        sock.sendall(request)
        try:
            received = sock.recv(1024)
        except socket.timeout:
            return -1 in right
    status, body = int(received[9:12]), received.partition(b"\r\n\r\n")[2]
    return status in right and (status != 200 or not request.startswith(b"POST") or body == b"hello")
