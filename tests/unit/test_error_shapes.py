"""WHISPER_ERROR_FORMAT=fastapi where no endpoint answers: no slot, no HTTP, no TLS, no time, a fault.

The real server on real sockets; tests/integration/test_error_format.py has the errors of the whole service.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket

import pytest

from bare_server import serving
from certificates import Authority
from whisper_xeon.web import events
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.forwarded import TrustedProxies
from whisper_xeon.web.framing import Limits
from whisper_xeon.web.server import Request, Response
from whisper_xeon.web.tls import Certificate

WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def fail(request: Request) -> Response:
    if request.path == "/overloaded":
        raise MemoryError
    raise RuntimeError("a bug with a secret in it")


def error_of(address: tuple[str, int], sent: bytes) -> tuple[int, str]:
    """Send bytes; return the status of the answer and the code in its header. Its body is one `detail` in words."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(sent)
        head, _, body = b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    ((name, detail),) = json.loads(body).items()
    assert (name, type(detail)) == ("detail", str)
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)["X-Whisper-Error"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"no HTTP\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHo", 408, "request_timeout"),
        (b"GET /" + b"a" * (1 << 14), 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: a\r\n" * 1000, 431, "headers_too_large"),
        (WHOLE, 500, "internal_error"),
        (WHOLE.replace(b"/", b"/overloaded", 1), 503, "overloaded"),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "http_version_not_supported"),
    ],
)
def test_what_is_answered_without_an_endpoint_is_a_detail(sent, status, code):
    with serving(fail, error_format="fastapi", limits=Limits(head_time=0.5)) as address:
        assert error_of(address, sent) == (status, code)


def test_a_connection_without_a_slot_gets_a_detail():
    with (
        serving(fail, error_format="fastapi", limits=Limits(connections=1)) as address,
        socket.create_connection(address, timeout=10) as held,
    ):
        held.sendall(b"GET")
        assert error_of(address, WHOLE) == (503, "too_many_connections")


def test_an_error_in_the_middle_of_a_stream_is_an_event_with_a_detail():
    def fail_late(request: Request) -> Response:
        request.begin({})
        request.send(events.delta("a"))
        raise HttpError(500, "it ends here", code="engine_error")

    with (
        serving(fail_late, error_format="fastapi") as address,
        contextlib.closing(http.client.HTTPConnection(*address[:2], timeout=10)) as connection,
    ):
        connection.request("GET", "/")
        assert connection.getresponse().read().endswith(b'data: {"detail": "it ends here"}\n\n')


def test_a_proxy_that_introduces_nobody_gets_a_detail():
    proxies = TrustedProxies([ipaddress.ip_network("127.0.0.0/8")])
    with serving(fail, error_format="fastapi", proxies=proxies) as address:
        assert error_of(address, b"PROXY nobody\r\n" + WHOLE) == (400, "bad_request")


def test_plain_http_where_https_is_spoken_gets_a_detail(tmp_path):
    certificate = Certificate(*Authority(tmp_path).issue("localhost"))
    with serving(fail, error_format="fastapi", certificate=certificate) as address:
        assert error_of(address, WHOLE) == (400, "https_required")
