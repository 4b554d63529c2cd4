"""Many connections of one caller: others are served, probes have places of their own, and everybody is told."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import threading
import time

import pytest

from bare_server import serving
from whisper_xeon.web.forwarded import TrustedProxies
from whisper_xeon.web.framing import Limits
from whisper_xeon.web.lobby import Lobby
from whisper_xeon.web.server import Request, Response, Server

FEW = Limits(connections=8, connections_each=6, head_time=30)
HEAD = b"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
# What each connection of somebody who wants all of them sends.
KINDS = {"nothing": b"", "half a head": b"POST / HTTP/1.1\r\nHost: a\r\nX: ", "half a body": HEAD + b"a" * 500}


def read_body(request: Request) -> Response:
    """An application that takes in the body."""
    request.body.accept(1 << 20, ValueError)
    while request.body.read():
        pass
    return Response(200, b"served", "text/plain")


def ask(address: tuple[str, int], path: str = "/", caller: str = "127.0.0.9", body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection(*address, timeout=10, source_address=(caller, 0))
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def served(address: tuple[str, int], body: bytes) -> bool:
    """Whether a request is answered with 200, when asked again as a 503 says: the last connection may still count."""
    for _ in range(3):
        status = ask(address, body=body)
        if status != 503:
            break
        time.sleep(0.2)
    return status == 200


def connect(address: tuple[str, int], caller: str, data: bytes) -> socket.socket:
    sock = socket.create_connection(address, timeout=10, source_address=(caller, 0))
    sock.sendall(data)
    return sock


@contextlib.contextmanager
def crowd(address: tuple[str, int], callers: tuple[str, ...], each: int, data: bytes):
    """Hold so many connections of each caller; the block has them."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(address, caller, data)) for caller in callers for _ in range(each)]
        time.sleep(0.2)
        yield socks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("callers", [("127.0.0.2",), ("127.0.0.2", "127.0.0.3", "127.0.0.4")])
def test_who_holds_every_connection_keeps_nobody_else_out(kind, callers):
    with serving(read_body, limits=FEW) as address, crowd(address, callers, 20, KINDS[kind]):
        assert [served(address, body=b"a" * 100) for _ in range(10)] == [True] * 10


def test_who_gives_way_in_the_middle_of_a_request_is_told_so():
    with serving(read_body, limits=Limits(connections=2)) as address, crowd(address, ("127.0.0.2",), 2, HEAD) as socks:
        assert ask(address) == 200
        answer = socks[1].recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"another caller has fewer" in answer
    assert re.search(rb"\r\nRetry-After: \d", answer)


def test_a_request_that_was_worked_for_does_not_keep_the_place_of_the_next_one_on_its_connection():
    def work(request: Request) -> Response:
        if request.method == "GET":
            request.connection.settle()
            return Response(200, b"", "text/plain")
        return read_body(request)

    pipelined = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + KINDS["half a body"]
    with serving(work, limits=Limits(connections=2)) as address, crowd(address, ("127.0.0.2",), 2, pipelined):
        assert ask(address, body=b"a") == 200


@pytest.mark.parametrize("path", ["/readyz", "/health", "/readyz?verbose"])
def test_probes_have_places_of_their_own_even_from_where_all_connections_are_taken(path):
    with serving(read_body, limits=FEW) as address, crowd(address, ("127.0.0.2",), 40, b""):
        assert [ask(address, path, "127.0.0.2") for _ in range(20)] == [200] * 20


def test_a_probe_that_arrives_in_pieces_is_one_too():
    with (
        serving(read_body, limits=FEW) as address,
        crowd(address, ("127.0.0.2",), 6, b""),
        connect(address, "127.0.0.2", b"GET /read") as sock,
    ):
        time.sleep(0.1)
        sock.sendall(b"yz HTTP/1.1\r\nHost:")
        time.sleep(0.1)
        sock.sendall(b" a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"200"]  # and nothing after it


def test_past_the_last_place_everybody_still_gets_a_503():
    with serving(read_body, limits=FEW) as address, crowd(address, ("127.0.0.2",), 6, b""):
        statuses: list[int] = []
        body = bytes(200_000)
        threads = [
            threading.Thread(target=lambda: statuses.append(ask(address, "/", "127.0.0.2", body))) for _ in range(200)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [503] * 200


def test_more_than_the_lobby_holds_are_refused_in_turn():
    with serving(read_body, limits=FEW) as address, crowd(address, ("127.0.0.2",), 1200, b"") as socks:
        assert socks[20].recv(65536).startswith(b"HTTP/1.1 503 ")
        assert ask(address, "/readyz", "127.0.0.2") == 200


def test_refused_connections_are_counted_in_one_line_per_second(caplog):
    with (
        caplog.at_level("WARNING", "whisper_xeon"),
        serving(read_body, limits=FEW) as address,
        crowd(address, ("127.0.0.4",), 6, b""),
    ):
        for _ in range(30):
            assert ask(address, "/", "127.0.0.4") == 503
        time.sleep(1.5)
        lines = [one.fields for one in caplog.records if one.fields.get("client") == "127.0.0.4"]
    assert sum(line["number"] for line in lines) == 30
    assert len(lines) <= 3


def test_without_a_thread_for_it_a_connection_is_told_so(monkeypatch):
    with serving(read_body, limits=FEW) as address:

        def no_thread(server, request, client_address):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("socketserver.ThreadingMixIn.process_request", no_thread)
        assert ask(address) == 503


def test_an_upload_without_a_byte_ends():
    with (
        serving(read_body, limits=Limits(stall=0.3)) as address,
        connect(address, "127.0.0.2", HEAD + b"a" * 500) as sock,
    ):
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("data", [HEAD[:20], HEAD + b"a" * 500])
def test_who_pauses_in_the_middle_of_a_request_does_not_delay_a_stop(data):
    server = Server(read_body, ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    with connect(server.server_address, "127.0.0.2", data) as sock:
        time.sleep(0.2)
        server.stop()
        thread.join()
        assert server.drain(8)
        assert sock.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_who_drips_does_not_delay_a_stop_for_long(monkeypatch):
    monkeypatch.setattr("whisper_xeon.web.server._UPLOAD_WHILE_STOPPING", 1.0)
    server = Server(read_body, ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    with connect(server.server_address, "127.0.0.2", HEAD) as sock:
        stopped = threading.Event()

        def drip() -> None:
            while not stopped.wait(0.1):
                with contextlib.suppress(OSError):
                    sock.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        time.sleep(0.2)
        server.stop()
        thread.join()
        assert server.drain(8)
        stopped.set()
        dripping.join()


def test_a_request_that_is_worked_for_is_finished_by_a_stop():
    def work(request: Request) -> Response:
        request.connection.settle()
        time.sleep(3)
        return Response(200, b"done", "text/plain")

    server = Server(work, ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    with connect(server.server_address, "127.0.0.2", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") as sock:
        time.sleep(0.2)
        server.stop()
        thread.join()
        assert server.drain(8)
        assert sock.recv(65536).endswith(b"done")


def test_behind_a_trusted_proxy_callers_are_told_apart_by_what_it_says():
    callers = []

    def note(request: Request) -> Response:
        callers.append(request.connection.caller)
        return Response(200, b"", "text/plain")

    with serving(note, proxies=TrustedProxies([ipaddress.ip_network("127.0.0.1")])) as address:
        connection = http.client.HTTPConnection(*address, timeout=10)
        for forwarded in ("192.0.2.1", "192.0.2.2", "2001:db8:1:2:3::4", "2001:db8:1:2::5"):
            connection.request("GET", "/", headers={"X-Forwarded-For": forwarded})
            connection.getresponse().read()
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
    assert [caller.id for caller in callers] == [
        "address 192.0.2.1",
        "address 192.0.2.2",
        *["address 2001:db8:1:2::/64"] * 2,
        "address 127.0.0.1",
    ]
    assert [caller.capped for caller in callers] == [True] * 4 + [False]


def test_the_lobby_opens_later_where_no_thread_can_be_started_at_first(monkeypatch):
    lobby = Lobby(["/readyz"], b"refused", lambda *_: False)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    theirs, ours = socket.socketpair()
    with theirs:
        theirs.settimeout(10)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError):
                lobby.add(ours, ("127.0.0.1", 1))
        lobby.add(ours, ("127.0.0.1", 1))
        assert theirs.recv(100) == b"refused"
    lobby.close()
