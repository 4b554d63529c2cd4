"""Whose request it is behind a proxy: only a trusted one is believed, and only for what it adds itself."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import struct
import time

import pytest

from bare_server import serving
from whisper_xeon.web.forwarded import TrustedProxies
from whisper_xeon.web.server import Response

TRUSTED = TrustedProxies([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8")])
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({}, "127.0.0.1"),
        ({"x-forwarded-for": "192.0.2.1"}, "192.0.2.1"),
        ({"x-forwarded-for": "192.0.2.1:4711"}, "192.0.2.1"),
        ({"x-forwarded-for": "203.0.113.9, 192.0.2.1, 10.1.2.3"}, "192.0.2.1"),
        ({"x-forwarded-for": "10.1.2.3"}, "10.1.2.3"),
        ({"x-forwarded-for": "2001:db8::1"}, "2001:db8::1"),
        ({"x-forwarded-for": "[2001:db8::1]:80, ::ffff:10.0.0.1"}, "2001:db8::1"),
        ({"x-forwarded-for": "192.0.2.1, unknown"}, "127.0.0.1"),
        ({"x-forwarded-for": "<script>"}, "127.0.0.1"),
        ({"forwarded": "for=192.0.2.1;proto=https;by=203.0.113.43"}, "192.0.2.1"),
        ({"forwarded": 'for=203.0.113.9, For="[2001:db8::1]:4711"'}, "2001:db8::1"),
        ({"forwarded": "for=_hidden"}, "127.0.0.1"),
        ({"forwarded": "proto=https"}, "127.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_trusted_proxys_is_the_clients(headers, client):
    assert TRUSTED.client("127.0.0.1", headers) == client


def test_others_are_not_believed():
    assert TRUSTED.client("198.51.100.7", {"x-forwarded-for": "192.0.2.1"}) == "198.51.100.7"
    assert TrustedProxies(()).client("127.0.0.1", {"x-forwarded-for": "192.0.2.1"}) == "127.0.0.1"


def sent_in_pieces(caplog, *pieces: bytes, proxies: TrustedProxies | None = TRUSTED) -> tuple[bytes, list[dict]]:
    """Send pieces one after the other, and no more; return what is answered, and the requests' log lines."""
    with (
        caplog.at_level(logging.INFO, "whisper_xeon"),
        serving(lambda request: Response(200, b"served"), proxies=proxies) as address,
        socket.create_connection(address, timeout=10) as sock,
    ):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.05)
        sock.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    return received, [record.fields for record in caplog.records if record.getMessage() == "request"]


def logged_client(caplog, sent: bytes, proxies: TrustedProxies | None = TRUSTED) -> tuple[int, str]:
    """Send bytes; return the status of the answer and the client in the log line."""
    with (
        caplog.at_level(logging.INFO, "whisper_xeon"),
        serving(lambda request: Response(200, b"served"), proxies=proxies) as address,
        socket.create_connection(address, timeout=10) as sock,
    ):
        sock.sendall(sent)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    status = re.match(rb"HTTP/1\.1 (\d+) ", received)
    (line,) = [record.fields for record in caplog.records if record.getMessage() == "request"]
    return int(status[1]), line["client"]


def block(command: int, family: int, addresses: bytes, more: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses + more)) + addresses + more


V4 = bytes([192, 0, 2, 1, 127, 0, 0, 1]) + bytes(4)
V6 = ipaddress.ip_address("2001:db8::1").packed + bytes(20)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"", "127.0.0.1"),
        (b"\r\n", "127.0.0.1"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 8000\r\n", "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 4711 8000\r\n", "2001:db8::1"),
        (b"PROXY TCP6 2001:DB8:0:0::1 ::1 4711 8000\r\n", "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 8000\r\n", "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (block(0x21, 0x11, V4), "192.0.2.1"),
        (block(0x21, 0x11, V4, b"\x04\x00\x01x"), "192.0.2.1"),
        (block(0x21, 0x21, V6), "2001:db8::1"),
        (block(0x20, 0x00, b""), "127.0.0.1"),
    ],
)
def test_a_proxy_introduces_its_client(caplog, header, client):
    assert logged_client(caplog, header + REQUEST + b"\r\n") == (200, client)


@pytest.mark.parametrize(
    "header",
    [b"PROXY TCP4 192.0.2.1\r\n", b"PROXY TCP4 999.0.2.1 127.0.0.1 4711 8000\r\n",
     b"PROXY TCP4 ::::: 127.0.0.1 4711 8000\r\n", b"PROXY TCP4 " + b"1" * 200 + b"\r\n", block(0x31, 0x11, V4),
     SIGNATURE + b"\x21\x11\xff\xff"],
)  # fmt: skip
def test_a_malformed_introduction_is_refused(caplog, header):
    assert logged_client(caplog, header + REQUEST + b"\r\n") == (400, "127.0.0.1")


INTRODUCTIONS = (b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 8000\r\n", block(0x21, 0x11, V4))


@pytest.mark.parametrize("at", [1, 2, 5, 11])
@pytest.mark.parametrize("header", INTRODUCTIONS)
def test_an_introduction_may_arrive_in_pieces(caplog, header, at):
    received, (line,) = sent_in_pieces(caplog, header[:at], header[at:], REQUEST + b"\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert line["client"] == "192.0.2.1"


@pytest.mark.parametrize("at", [1, 2])
def test_a_request_may_begin_like_an_introduction(caplog, at):
    request = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    received, (line,) = sent_in_pieces(caplog, request[:at], request[at:])
    assert received.startswith(b"HTTP/1.1 200 ")
    assert line["client"] == "127.0.0.1"


@pytest.mark.parametrize("header", [b"", *INTRODUCTIONS, block(0x20, 0x00, b"")])
def test_a_proxy_that_only_probes_is_no_request(caplog, header):
    assert sent_in_pieces(caplog, *([header] if header else [])) == (b"", [])


@pytest.mark.parametrize("header", INTRODUCTIONS)
def test_nobody_else_introduces_a_client(caplog, header):
    assert logged_client(caplog, header + REQUEST + b"\r\n", None) == (400, "127.0.0.1")


def test_the_headers_of_a_trusted_proxy_reach_the_log(caplog):
    sent = REQUEST + b"X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n\r\n"
    assert logged_client(caplog, sent) == (200, "192.0.2.1")
