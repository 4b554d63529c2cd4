"""Module `whisper_service_fetch` against stores that send elsewhere, trickle or stop: it runs as root and must end."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from collection_module import load_module

module = load_module("whisper_service_fetch")
host_check = load_module("whisper_service_host_check")
CONTENT = bytes(range(256)) * 40


@contextlib.contextmanager
def store(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve every GET by `answer`; the block has the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(folder: Path, address: str) -> int:
    entry = {"path": "package/p/model.bin", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    (folder / "package" / "p").mkdir(parents=True)
    return module.fetch(folder, "package/p", [entry], {"model.bin": f"{address}/p/model.bin?X-Amz-Signature=secret"})


def head(request: BaseHTTPRequestHandler, size: int) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(size))
    request.end_headers()


def trickle(request: BaseHTTPRequestHandler) -> None:
    head(request, len(CONTENT))
    for byte in CONTENT:
        request.wfile.write(bytes([byte]))
        time.sleep(0.02)


def trickle_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    for _ in range(3000):
        request.wfile.write(b"x")
        time.sleep(0.02)


@pytest.fixture
def impatient(monkeypatch):
    """Have the module wait for moments only."""
    monkeypatch.setattr(module, "LEAST_BYTES", 5000)
    monkeypatch.setattr(module, "LEAST_BYTES_S", 0.3)
    monkeypatch.setattr(module, "ATTEMPTS", 2)


def test_a_file_is_fetched(tmp_path):
    def answer(request):
        head(request, len(CONTENT))
        request.wfile.write(CONTENT)

    with store(answer) as address:
        assert fetch(tmp_path, address) == len(CONTENT)
    assert (tmp_path / "package/p/model.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/admin", "file:///etc/shadow", "ftp://127.0.0.1/x"])
def test_a_redirect_is_not_followed(tmp_path, target):
    seen = []

    def answer(request):
        seen.append(request.path.partition("?")[0])
        request.send_response(302)
        request.send_header("Location", target.format(port=request.server.server_address[1]))
        request.send_header("Content-Length", "0")
        request.end_headers()

    with store(answer) as address:
        with pytest.raises(module.FetchError, match=r"302 Found \(redirects are not followed\)") as error:
            fetch(tmp_path, address)
        (problem,) = host_check.store_problems(f"{address}/manifest.json", "0" * 64)
    assert "secret" not in str(error.value)
    assert "302 Found), which is not followed" in problem
    assert seen == ["/p/model.bin", "/manifest.json"]


@pytest.mark.parametrize("answer", [trickle, trickle_headers])
def test_a_store_that_trickles_ends_the_fetch(tmp_path, impatient, answer):
    begun = time.monotonic()
    with store(answer) as address, pytest.raises(module.FetchError, match=r"less than 5 kB in 0\.3 s"):
        fetch(tmp_path, address)
    assert time.monotonic() - begun < 20  # by 200 s without an end


def test_a_store_that_trickles_ends_the_check_of_the_host(monkeypatch):
    monkeypatch.setattr(host_check, "STORE_TIMEOUT_S", 0.3)
    with store(trickle) as address:
        (problem,) = host_check.store_problems(f"{address}/manifest.json", "0" * 64)
    assert address in problem
