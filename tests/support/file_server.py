"""A file server on the loopback that serves one recording, and every way not to, also over TLS."""

from __future__ import annotations

import contextlib
import functools
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paths import RECORDINGS

CLIP = "en-00.wav"
CONTENT = (RECORDINGS / CLIP).read_bytes()


@functools.cache
def raw_samples() -> bytes:
    """Return the recording as G.722 without a header."""
    command = ["ffmpeg", "-v", "error", "-i", RECORDINGS / CLIP, "-c:a", "adpcm_g722", "-f", "g722", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


class Files(BaseHTTPRequestHandler):
    """Serves one recording, and every way not to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        name = self.path.partition("?")[0].strip("/").replace("-", "_").replace(".", "_")
        if name.isdigit():
            self.answer(int(name), b"the reason why")
        else:
            getattr(self, name)()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def clip(self):
        self.answer(200, CONTENT)

    def raw(self):
        # Samples of G.722, as telephony keeps them.
        self.answer(200, raw_samples(), Content_Type="audio/G722")

    def raw_g722(self):
        self.answer(200, raw_samples(), Content_Type="application/octet-stream")

    def chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(CONTENT), 7000):
            part = CONTENT[start : start + 7000]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def until_closed(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT)
        self.close_connection = True

    def endless(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def drip_head(self):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Filler: ")

    def drip_body(self):
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")

    def drip(self, head: bytes) -> None:
        self.server.dripping.set()
        self.wfile.write(head)
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)

    def short(self):
        self.answer(200, CONTENT, Content_Length=str(len(CONTENT) + 1))
        self.close_connection = True

    def broken_chunk(self):
        self.answer(200, b"zzz\r\n", Transfer_Encoding="chunked")
        self.close_connection = True

    def compressed(self):
        self.answer(200, CONTENT, Content_Encoding="gzip")

    def nonsense(self):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2 secret-banner\r\n")
        self.close_connection = True

    def redirect(self):
        self.answer(302, b"", Location=self.server.target)

    def chain(self):
        left = int(self.path.partition("?")[2])
        self.answer(307, b"", Location=f"/chain?{left - 1}" if left > 1 else "/clip")

    def page(self):
        self.answer(200, b"<!DOCTYPE html>")

    def log_message(self, *_):
        pass


class FileServer(ThreadingHTTPServer):
    """A file server on the loopback that remembers who asked for what, and who only connected."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0), context: ssl.SSLContext | None = None):
        super().__init__(address, Files)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.dripping = threading.Event()
        self.target = ""
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_):
        pass

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


def certificate(folder: Path, name: str, *, days: int = 2) -> Path:
    """Make a key and a certificate for a name, signed by itself, in one file."""
    pem = folder / f"{name}.pem"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", str(days)]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, *subject, "-keyout", str(pem), "-out", f"{pem}.crt"], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + Path(f"{pem}.crt").read_bytes())
    return pem


def tls_server(pem: Path) -> FileServer:
    """Start a server that speaks TLS with this key and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return FileServer(context=context)


@pytest.fixture(scope="session")
def localhost_pem(tmp_path_factory) -> Path:
    """Key and certificate of a server on localhost that no authority vouches for."""
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")
