"""Which names the service answers to."""

from __future__ import annotations

import socket

import pytest

from bare_server import serving
from whisper_xeon.web.hosts import allow_hosts
from whisper_xeon.web.server import Response

NAMES = ("stt.example.com", "*.internal.example.com", "192.0.2.7", "2001:db8::1")


@pytest.fixture(scope="module")
def ask():
    with serving(allow_hosts(lambda request: Response(200, b""), NAMES)) as address:

        def status(host: str) -> int:
            with socket.create_connection(address[:2], timeout=10) as sock:
                sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return int(sock.recv(65536)[9:12])

        yield status


@pytest.mark.parametrize(
    "host",
    [
        *("stt.example.com", "STT.Example.com:8000", "stt.example.com.", "a.internal.example.com"),
        *("a.b.internal.example.com:1", "192.0.2.7:8000", "[2001:db8::1]", "[2001:DB8::1]:8000"),
        *("localhost", "localhost:8000", "127.0.0.1", "127.0.0.2:80", "[::1]:8000"),
    ],
)
def test_a_name_of_the_service_is_served(ask, host):
    assert ask(host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "example.com", "stt.example.com.evil.example", "xstt.example.com", "internal.example.com"),
        *("127.0.0.1.evil.example", "192.0.2.8", "[2001:db8::2]", "localhost.evil.example", "0.0.0.0"),
    ],
)
def test_another_name_is_421(ask, host):
    assert ask(host) == 421
