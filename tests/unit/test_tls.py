"""HTTPS: the same server with TLS in front, on real sockets and with real certificates."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import subprocess
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from bare_server import serving
from certificates import Authority
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.forwarded import TrustedProxies
from whisper_xeon.web.framing import Limits
from whisper_xeon.web.server import Request, Response
from whisper_xeon.web.tls import Certificate, CertificateError

LARGE = 3 << 20


def echo(request: Request) -> Response:
    request.body.accept(LARGE, HttpError(413, "too large", code="too_large", close=True))
    return Response(200, b"".join(iter(request.body.read, b"")) or request.path.encode(), "text/plain")


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def certificate(authority) -> Certificate:
    return Certificate(*authority.issue("localhost"))


@pytest.fixture
def server(certificate):
    with serving(echo, certificate=certificate) as address:
        yield address


@contextlib.contextmanager
def connected(address, authority, *, context: ssl.SSLContext | None = None, first: bytes = b""):
    with socket.create_connection(address[:2], timeout=10) as sock:
        sock.sendall(first)
        with (context or authority.client()).wrap_socket(sock, server_hostname="localhost") as secured:
            yield secured


def get(address, authority, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("localhost", address[1], timeout=10, context=authority.client())
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def received(sock) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_requests_follow_each_other_on_one_connection(server, authority):
    connection = http.client.HTTPSConnection("localhost", server[1], timeout=10, context=authority.client())
    with contextlib.closing(connection):
        for _ in range(3):
            connection.request("POST", "/", bytes(range(256)) * 4096)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, bytes(range(256)) * 4096)
            sock = connection.sock
        assert sock.version() == "TLSv1.3"
        assert sock.selected_alpn_protocol() in (None, "http/1.1")


def test_pipelined_requests_are_all_answered(server, authority):
    with connected(server, authority) as sock:
        sock.sendall(
            b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 50 + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        assert received(sock).count(b"HTTP/1.1 200 OK") == 51


def test_the_end_is_told(server, authority):
    with connected(server, authority) as sock:
        sock.suppress_ragged_eofs = False  # an end that is not told raises
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert received(sock).startswith(b"HTTP/1.1 200 OK")


def test_large_bodies_go_both_ways_to_many_clients(server, authority):
    body = os.urandom(LARGE)

    def post(_: int) -> bytes:
        connection = http.client.HTTPSConnection("localhost", server[1], timeout=30, context=authority.client())
        with contextlib.closing(connection):
            connection.request("POST", "/", body)
            return connection.getresponse().read()

    with ThreadPoolExecutor(8) as clients:
        assert all(answer == body for answer in clients.map(post, range(16)))


@pytest.mark.parametrize(
    ("version", "spoken"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_old_versions_are_refused(server, authority, version, spoken):
    context = authority.client()
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the version itself
        context.minimum_version = context.maximum_version = version
    refused = contextlib.nullcontext() if spoken else pytest.raises((ssl.SSLError, ConnectionError))
    with refused, connected(server, authority, context=context) as sock:
        assert sock.version() == version.name.replace("_", ".")


def test_plain_http_is_told_to_come_by_https_and_the_server_serves_on(server, authority):
    with socket.create_connection(server[:2], timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = received(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "https_required"' in answer
    assert get(server, authority) == (200, b"/")


@pytest.mark.parametrize("first", [b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16" + os.urandom(2000)])
def test_a_broken_handshake_ends_its_connection_and_no_other(certificate, authority, first):
    limits = Limits(head_time=0.5)
    with (
        serving(echo, certificate=certificate, limits=limits) as address,
        socket.create_connection(address[:2], timeout=10) as sock,
    ):
        sock.sendall(first)
        assert get(address, authority) == (200, b"/")
        with contextlib.suppress(ConnectionError):
            received(sock)


def test_a_slow_handshake_has_a_deadline(certificate):
    limits = Limits(head_time=0.5)

    def trickle(sock: socket.socket) -> None:
        for byte in b"\x16\x03\x01\x02\x00" + bytes(200):
            sock.sendall(bytes([byte]))
            time.sleep(0.05)

    with (
        serving(echo, certificate=certificate, limits=limits) as address,
        socket.create_connection(address[:2], timeout=10) as sock,
        pytest.raises(ConnectionError),
    ):
        trickle(sock)


def test_a_handshake_byte_by_byte_is_a_handshake(server, authority):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(server[:2], timeout=10) as sock:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    sock.sendall(bytes([byte]))
                incoming.write(sock.recv(65536))
        client.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))
        data = b""
        while b"/slow" not in data:
            incoming.write(sock.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    data += client.read(65536)
        assert data.startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_only_ends_its_sending_side_gets_its_answer(certificate, authority):
    going_on = threading.Event()

    def slow(request: Request) -> Response:
        while not going_on.wait(0.02):
            if request.client_gone():
                raise AssertionError("it is still there")
        return Response(200, b"late", "text/plain")

    with serving(slow, certificate=certificate) as address, connected(address, authority) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        socket.socket.shutdown(sock, socket.SHUT_WR)
        time.sleep(0.2)
        going_on.set()
        assert received(sock).endswith(b"late")


def test_a_client_that_leaves_is_noticed(certificate, authority):
    gone = threading.Event()

    def wait(request: Request) -> Response:
        while not request.client_gone():
            time.sleep(0.02)
        gone.set()
        return Response(200, b"")

    with serving(wait, certificate=certificate) as address:
        with connected(address, authority) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.1)
        assert gone.wait(10)


def test_an_answer_before_the_upload_is_read_reaches_its_client(certificate, authority):
    def refuse(request: Request) -> Response:
        raise HttpError(413, "too large", code="too_large", close=True)

    with serving(refuse, certificate=certificate) as address, connected(address, authority) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(OSError):
            sock.sendall(bytes(500_000))
        assert received(sock).startswith(b"HTTP/1.1 413 ")


def test_a_trusted_proxy_introduces_its_client_before_the_handshake(certificate, authority):
    proxies = TrustedProxies([ipaddress.ip_network("127.0.0.1")])

    def client(request: Request) -> Response:
        return Response(200, request.client.encode(), "text/plain")

    introduction = b"PROXY TCP4 192.0.2.7 192.0.2.1 1000 443\r\n"
    with (
        serving(client, certificate=certificate, proxies=proxies) as address,
        connected(address, authority, first=introduction) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert received(sock).endswith(b"192.0.2.7")


def test_without_a_slot_a_client_is_told_so_and_a_probe_is_answered(certificate, authority):
    limits = Limits(connections=2, connections_each=2)
    with serving(echo, certificate=certificate, limits=limits) as address, contextlib.ExitStack() as stack:
        for _ in range(2):
            busy = stack.enter_context(connected(address, authority))
            busy.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        time.sleep(0.2)
        assert get(address, authority, "/readyz") == (200, b"/readyz")
        status, body = get(address, authority, "/transcribe")
        assert (status, b"too_many_connections" in body) == (503, True)


def test_a_new_certificate_is_served_without_a_restart(server, authority, tmp_path):
    def serial() -> str:
        with connected(server, authority) as sock:
            return sock.getpeercert()["serialNumber"]

    with connected(server, authority) as kept:
        before = serial()
        authority.issue("localhost", "new.pem", "new.key")
        # One after the other: between them they do not belong together, and the old ones are served on.
        (tmp_path / "new.pem").replace(tmp_path / "cert.pem")
        time.sleep(1.2)
        assert serial() == before
        (tmp_path / "new.key").replace(tmp_path / "key.pem")
        time.sleep(1.2)
        assert serial() != before
        kept.sendall(b"GET /kept HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert received(kept).endswith(b"/kept")


def test_files_that_are_no_pair_are_told_of(authority, tmp_path):
    certificate, key = authority.issue("localhost")
    _, other = authority.issue("localhost", "other.pem", "other.key")
    (tmp_path / "empty").touch()
    for pair, reason in (
        ((certificate, other), "do not belong together"),
        ((key, key), "cannot be used"),
        ((certificate, tmp_path / "empty"), "cannot be used"),
        ((certificate, tmp_path / "none"), "No such file"),
    ):
        with pytest.raises(CertificateError, match=reason):
            Certificate(*pair)


def test_a_key_with_a_password_is_told_of(authority, tmp_path):
    certificate, key = authority.issue("localhost")
    locked = tmp_path / "locked"
    subprocess.run(["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    with pytest.raises(CertificateError, match="without one"):
        Certificate(certificate, locked)
