"""Where a request begins and ends: what is ambiguous is refused, what is slow is cut, what is too much is turned away.

The real server on real sockets, with an application of three lines instead of the engines.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bare_server import serving
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.framing import Body, Head, Limits
from whisper_xeon.web.server import Request, Response, Server

BODY_LIMIT = 1000
HEAD = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def echo(request: Request) -> Response:
    """Answer with what arrived; /unread leaves the body where it is."""
    if request.path == "/fault":
        raise RuntimeError("a bug with a secret in it")
    if request.path != "/unread":
        request.body.accept(BODY_LIMIT, HttpError(413, "too large", code="too_large", close=True))
        body = b"".join(iter(request.body.read, b""))
    else:
        body = b""
    return Response(200, f"{request.method} {request.path}?{request.query} ".encode() + body, "text/plain")


@pytest.fixture(scope="module")
def front() -> Iterator[tuple[str, int]]:
    with serving(echo) as address:
        yield address


def exchange(address: tuple[str, int], *pieces: bytes, half_close: bool = True, pause: float = 0) -> bytes:
    """Send pieces and return all that comes back until the server closes."""
    received = b""
    with socket.create_connection(address, timeout=10) as sock:
        with contextlib.suppress(OSError):  # it may have answered and closed before everything is sent
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                received += data
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


REFUSED = {
    # request line
    "no version": (b"GET /\r\nHost: a\r\n\r\n", 400),
    "version in lower case": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "version of three parts": (b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "tab between": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space in front": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two empty lines in front": (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "method that is no token": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target without slash": (b"GET echo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with a space": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with a fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with a control character": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target that is not UTF-8": (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with an overlong slash": (b"GET \xc0\xaf HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with a space beyond ASCII in front": (b"GET \xc2\xa0/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target that is an authority": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute target without a host": (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk with GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "request line that never ends": (b"GET /" + b"a" * 9000, 414),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
    # lines
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "bare LF after a header": (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    "bare CR in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", 400),
    "NUL in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    "control character in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", 400),
    "DEL in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "folded first header": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "header without a colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    "header without a name": (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
    "header name that is no token": (b"GET / HTTP/1.1\r\nHost: a\r\nX{}: x\r\n\r\n", 400),
    "header over its length": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "too many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
    "headers too large together": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 5 + b"\r\n",
        431,
    ),
    # host
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two hosts in one": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
    "host with a port that is no number": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    # length
    "two lengths that differ": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "two lengths that agree": (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "list of lengths": (HEAD + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "length with a sign": (HEAD + b"Content-Length: +3\r\n\r\nabc", 400),
    "length in hex": (HEAD + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "length with an underscore": (HEAD + b"Content-Length: 1_0\r\n\r\nabcabcabca", 400),
    "length in other digits": (HEAD + "Content-Length: ٣\r\n\r\nabc".encode(), 400),
    "empty length": (HEAD + b"Content-Length:\r\n\r\n", 400),
    "length beyond all numbers": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "length over the limit": (HEAD + b"Content-Length: 1001\r\n\r\n", 413),
    "body shorter than its length": (HEAD + b"Content-Length: 9\r\n\r\nabc", 400),
    # transfer encoding
    "chunked and a length": (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "identity": (HEAD + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "chunked with a parameter": (HEAD + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
    "chunked in quotes": (HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    "vertical tab before chunked": (HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # expectations
    "unknown expectation": (HEAD + b"Expect: the-unexpected\r\nContent-Length: 1\r\n\r\na", 417),
    # end
    "end inside the request line": (b"GET / HT", 400),
    "end inside the headers": (b"GET / HTTP/1.1\r\nHost: a\r\n", 400),
}

BAD_CHUNKS = {
    "size is no number": b"x\r\nabc\r\n0\r\n\r\n",
    "size has a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "size has a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size has a space": b"3 \r\nabc\r\n0\r\n\r\n",
    "size is missing": b"\r\nabc\r\n0\r\n\r\n",
    "size overflows": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "size line ends in LF": b"3\nabc\r\n0\r\n\r\n",
    "extension has a control character": b"3;a\x00\r\nabc\r\n0\r\n\r\n",
    "extension is endless": b"3;" + b"a" * 400 + b"\r\nabc\r\n0\r\n\r\n",
    "chunk is longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk is shorter than its size": b"4\r\nabc\r\n0\r\n\r\n",
    "chunk ends in LF": b"3\r\nabc\n0\r\n\r\n",
    "last chunk is missing": b"3\r\nabc\r\n",
    "trailer is malformed": b"0\r\nX : y\r\n\r\n",
    "trailer is folded": b"0\r\nX: y\r\n z\r\n\r\n",
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_could_be_read_in_two_ways_is_refused_and_the_connection_closed(front, request_bytes, status):
    received = exchange(front, request_bytes + NEXT if request_bytes.endswith(b"\r\n\r\n") else request_bytes)
    assert statuses(received) == [status]
    assert b"\r\nConnection: close\r\n" in received


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_a_malformed_chunk_is_refused_and_the_connection_closed(front, chunks):
    assert statuses(exchange(front, HEAD + CHUNKED + chunks + NEXT)) == [400]


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a?b=c "),
        (b"GET http://a:80/b?c HTTP/1.1\r\nHost: a:80\r\n\r\n", b"GET /b?c "),
        ("GET /é?prompt=café%20au HTTP/1.1\r\nHost: a\r\n\r\n".encode(), b"GET /%C3%A9?prompt=caf%C3%A9%20au "),
        (b"GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /? "),
        (b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a? "),
        (b"GET /a HTTP/1.1\r\nhost:[::1]:8000  \r\n\r\n", b"GET /a? "),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n", b"GET /a? "),
        (HEAD + b"Content-Length: 0\r\n\r\n", b"POST /echo? "),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", b"POST /echo? abc"),
        (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"POST /echo? abc"),
        (HEAD + CHUNKED + b'A;x="y"\r\n0123456789\r\n1\r\na\r\n0\r\nX: y\r\n\r\n', b"0123456789a"),
    ],
)
def test_a_valid_request_is_read_and_the_next_one_after_it(front, request_bytes, answer):
    received = exchange(front, request_bytes + NEXT)
    assert statuses(received) == [200, 200]
    assert answer in received
    assert received.endswith(b"GET /next? ")


def test_it_does_not_matter_in_which_pieces_a_request_arrives(front):
    request = HEAD + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + NEXT
    received = exchange(front, *(request[i : i + 1] for i in range(len(request))))
    assert statuses(received) == [200, 200]


def test_http_1_0_gets_its_answer_and_no_second_request(front):
    assert statuses(exchange(front, b"GET /a HTTP/1.0\r\n\r\n" + NEXT)) == [200]


def test_a_body_that_nobody_read_is_not_taken_for_the_next_request(front):
    request = b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: " + str(len(NEXT)).encode() + b"\r\n\r\n" + NEXT
    assert statuses(exchange(front, request)) == [200]


def test_chunks_over_the_limit_are_cut_off(front):
    chunks = b"200\r\n" + b"a" * 0x200 + b"\r\n"
    assert statuses(exchange(front, HEAD + CHUNKED + chunks * 2)) == [413]


def test_a_client_that_is_still_sending_a_refused_upload_gets_to_read_why(front):
    size = 32 << 20
    request = HEAD + b"Content-Length: %d\r\n\r\n" % size
    assert statuses(exchange(front, request, b"a" * size)) == [413]


def test_an_upload_that_is_too_large_is_not_asked_for(front):
    request = HEAD + b"Expect: 100-continue\r\nContent-Length: 2000\r\n\r\n"
    assert statuses(exchange(front, request, half_close=False)) == [413]


def test_an_upload_that_fits_is_asked_for(front):
    with socket.create_connection(front, timeout=10) as sock:
        sock.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_fault_in_the_application_shows_no_traceback(front):
    received = exchange(front, b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n" + NEXT)
    assert statuses(received) == [500]
    assert b"secret" not in received
    assert b"Traceback" not in received


def test_a_request_id_of_the_client_comes_back(front):
    connection = http.client.HTTPConnection(*front)
    connection.request("GET", "/", headers={"X-Request-Id": "trace-1.a_B"})
    assert connection.getresponse().getheader("X-Request-Id") == "trace-1.a_B"
    connection.close()


def test_a_request_id_that_could_harm_a_log_is_replaced(front):
    connection = http.client.HTTPConnection(*front)
    connection.request("GET", "/", headers={"X-Request-Id": 'a" b'})
    assert connection.getresponse().getheader("X-Request-Id").startswith("req_")
    connection.close()


def test_headers_that_drip_in_are_cut_at_their_deadline():
    with serving(echo, limits=Limits(head_time=0.5)) as address:
        drops = [b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 20]
        assert statuses(exchange(address, *drops, half_close=False, pause=0.1)) == [408]


def test_a_body_below_the_least_rate_is_cut():
    with serving(echo, limits=Limits(grace=0.3, rate=1000)) as address:
        drops = [HEAD + b"Content-Length: 900\r\n\r\n", *[b"a"] * 20]
        assert statuses(exchange(address, *drops, half_close=False, pause=0.1)) == [408]


def test_a_body_above_the_least_rate_may_take_longer_than_the_grace():
    with serving(echo, limits=Limits(grace=0.3, rate=10)) as address:
        drops = [HEAD + b"Content-Length: 300\r\n\r\n", *[b"a" * 50] * 6, NEXT]
        assert statuses(exchange(address, *drops, half_close=False, pause=0.1)) == [200, 200]


@pytest.mark.parametrize("mebibytes", [1, 64])
def test_a_body_may_take_as_long_as_its_size_takes_at_the_least_rate(mebibytes):
    deadlines = []

    def arrive(size: int, deadline: float) -> bytes:
        deadlines.append(deadline)
        return bytes(mebibytes << 20)

    head = Head("POST", "/", "", False, {"content-length": str(mebibytes + 1 << 20)})
    body = Body(SimpleNamespace(read_some=arrive), head, Limits(rate=1024, grace=10, stall=1e9), lambda: None)
    body.accept(1 << 40, HttpError(413, "too large", code="file_too_large"))
    body.read()
    body.read()
    assert deadlines[1] - deadlines[0] == pytest.approx(mebibytes * 1024)


def test_a_kept_connection_is_announced_with_its_time(front):
    connection = http.client.HTTPConnection(*front)
    connection.request("GET", "/")
    assert connection.getresponse().getheader("Keep-Alive") == f"timeout={Limits().idle:g}"
    connection.close()


@contextlib.contextmanager
def asking_whether_the_client_is_gone() -> Iterator[tuple[tuple[str, int], threading.Event, list[bool]]]:
    """A server whose application asks, from the event on, twenty times whether its client is gone, and then answers."""
    may_ask, gone = threading.Event(), []

    def ask(request: Request) -> Response:
        assert may_ask.wait(10)
        for _ in range(20):
            gone.append(request.client_gone())
            time.sleep(0.02)
        return Response(200, b"answer", "text/plain")

    server = Server(ask, ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.server_address, may_ask, gone
    finally:
        server.stop()
        thread.join()
        assert server.drain(10)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_closed_only_its_sending_side_gets_its_answer_whole(version):
    with asking_whether_the_client_is_gone() as (address, may_ask, gone):
        may_ask.set()
        received = exchange(address, b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nanswer")
    assert gone == [False] * 20


def test_a_client_that_closed_both_sides_is_gone():
    with asking_whether_the_client_is_gone() as (address, may_ask, gone):
        with socket.create_connection(address, timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        may_ask.set()
    assert gone[-1]


def test_an_idle_connection_is_closed_without_a_word():
    with serving(echo, limits=Limits(idle=0.3)) as address:
        received = exchange(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=False)
        assert statuses(received) == [200]


def test_a_connection_that_never_says_anything_is_closed():
    with serving(echo, limits=Limits(head_time=0.3)) as address:
        assert exchange(address, half_close=False) == b""


def test_a_client_that_reads_nothing_is_cut():
    with (
        serving(echo, limits=Limits(grace=0.3, rate=1 << 30)) as address,
        socket.create_connection(address, timeout=10) as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            sock.sendall(request * 20000)  # far more answers than the buffers of both sides can hold


def test_one_connection_too_many_is_answered_503_at_once_and_the_others_served():
    with serving(echo, limits=Limits(connections=2)) as address, contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(2)]
        received = exchange(address, NEXT)
        assert statuses(received) == [503]
        assert b"\r\nRetry-After: 1\r\n" in received
        held[0].sendall(NEXT)
        assert held[0].recv(65536).startswith(b"HTTP/1.1 200")


def test_one_connection_too_many_takes_the_place_of_the_one_that_was_idle_the_longest():
    with serving(echo, limits=Limits(connections=2)) as address, contextlib.ExitStack() as stack:
        longest, other = (stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(2))
        for sock in (longest, other):
            sock.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.1)
        assert statuses(exchange(address, NEXT)) == [200]
        assert longest.recv(65536) == b""
        other.sendall(NEXT)
        assert other.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_place_is_free_again_when_its_connection_ends():
    with serving(echo, limits=Limits(connections=1)) as address:
        for _ in range(5):
            received = b""
            while not received.startswith(b"HTTP/1.1 200"):  # the place of the last one is given back within moments
                received = exchange(address, NEXT)


def test_hundreds_of_connections_at_once_are_all_served(front):
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(front, timeout=10)) for _ in range(300)]
        for sock in socks:
            sock.sendall(NEXT)
        assert all(sock.recv(65536).startswith(b"HTTP/1.1 200") for sock in socks)


def test_an_ipv6_address_may_be_listened_on():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = Server(echo, ("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        assert server.socket.family == socket.AF_INET6
