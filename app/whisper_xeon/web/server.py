"""The server: `http.server` with strict framing, deadlines, bounds and a stop that lets running requests finish.

Bounded in connections, threads, bytes and time; see `framing.Limits`. The application is a plain callable from
`Request` to `Response`. A client never sees a traceback. Each override says why the base is not enough.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import re
import secrets
import socket
import socketserver
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from whisper_xeon.formats import JSON_TYPE, encode_json
from whisper_xeon.logs import log, logger
from whisper_xeon.shares import NoneLeft, SentAway
from whisper_xeon.web import events
from whisper_xeon.web.connection_slots import Connection, ConnectionSlots
from whisper_xeon.web.errors import ERROR_FORMATS, ClientGone, HttpError
from whisper_xeon.web.forwarded import TrustedProxies, read_proxy_header
from whisper_xeon.web.framing import Body, Limits, Parts, Reader, Writer, linger, read_head
from whisper_xeon.web.lobby import Lobby
from whisper_xeon.web.overload import is_starved, overload, overloads_answered
from whisper_xeon.web.tls import HANDSHAKE, Certificate, TlsSocket

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBES_AT_ONCE = 8  # that are answered when there is no slot …
_HANDSHAKES_AT_ONCE = 32  # … or, with TLS, all who come then: only afterwards is known what they want
_PROBE_SECONDS = 1.0  # for a handshake and for a head then
_PROBE_PATHS = ("/readyz", "/health")
_FIRST_REQUEST_WHILE_STOPPING = 1.0  # a connection made just before the stop may still send its request
_SILENCE_WHILE_STOPPING = 2.0  # that is allowed of an upload
_UPLOAD_WHILE_STOPPING = 30.0
_NOTICE_STOP_SECONDS = 0.25
_HANDSHAKE_BYTES = 1 << 16
_CLIENT_GONE_STATUS = 499  # nginx's number for it; only logged and counted


@dataclass
class Request:
    """One request as the application sees it.

    An answer may come as events: `begin` sends its head, with further headers, and `send` a part of it. What the
    application then returns, or raises, becomes its end. Both raise `ClientGone`.
    """

    id: str
    method: str
    path: str
    query: str
    headers: dict[str, str]  # lower-case names
    body: Body
    client_gone: Callable[[], bool]
    connection: Connection
    begin: Callable[[dict[str, str]], None]
    send: Callable[[bytes], None]
    client: str = ""  # address
    log: dict[str, Any] = field(default_factory=dict)  # figures for the request's log line; never text or names


@dataclass
class Response:
    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)


Application = Callable[[Request], Response]


class Server(ThreadingHTTPServer):
    """Serves an application on one listening socket, a thread for each connection, until it is stopped."""

    request_queue_size = 1024  # the base's 5 would refuse connections during a restart
    allow_reuse_port = False  # two services on one port would get its requests at random

    def __init__(
        self,
        application: Application,
        address: tuple[str, int] | socket.socket,
        *,
        limits: Limits | None = None,
        proxies: TrustedProxies | None = None,
        certificate: Certificate | None = None,
        error_format: str = "openai",
        answered: Callable[[str | None, int], None] = lambda route, status: None,
    ):
        """Listen on a host and port, or use a socket that is already listening and outlives this process.

        `proxies` are believed whose request it is; none by default. With a `certificate`, the server speaks TLS.
        `error_format` is one of `ERROR_FORMATS`. `answered` is called after each request with its route (None: unknown)
        and status (499: the client left).
        Raises `OSError`.
        """
        self.application = application
        self.answered = answered
        self.limits = limits or Limits()
        self.proxies = proxies or TrustedProxies(())
        self.certificate = certificate
        self._error_body = ERROR_FORMATS[error_format]
        self.slots = ConnectionSlots(self.limits.connections, each=self.limits.connections_each)
        self.stopping = False
        self._starved = False  # of files or memory: the last iteration could not accept a connection
        self._spare = open(os.devnull, "rb")  # noqa: SIM115 - kept, to tell somebody so with
        self._refusal = _head_and_body(self.error_response(overload(NoneLeft("connections"))))
        self._lobby = Lobby(_PROBE_PATHS, self._refusal, self._let_in, secured=certificate is not None)
        self._probing = threading.BoundedSemaphore(_HANDSHAKES_AT_ONCE if certificate else _PROBES_AT_ONCE)
        self._inherited = isinstance(address, socket.socket)
        if isinstance(address, socket.socket):
            # The base always makes a socket; the sandbox of the unit allows no other family than this one.
            self.address_family = socket.AF_UNIX
            super().__init__(address.getsockname(), Handler, bind_and_activate=False)
            self.socket.close()
            self.socket, self.address_family = address, address.family
        else:
            host, port = address
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family = found[0][0]
            first_address: Any = found[0][4]
            super().__init__(first_address, Handler)
        # The client may be gone when the wait for it has ended: accepting must not wait for the next one.
        os.set_blocking(self.fileno(), False)

    def error_response(self, error: HttpError) -> Response:
        """Return an error's answer. Its code is in a header too, since not every shape has a place for it."""
        return Response(
            error.status, encode_json(self._error_body(error)), headers={"X-Whisper-Error": error.code, **error.headers}
        )

    def server_bind(self) -> None:
        """Bind; `::` accepts IPv4 as well. The base also asks a name server for the host's full name."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def stop(self) -> None:
        """Make `run` return, from a signal handler or any thread; running requests continue until `drain`.

        The base's `shutdown` would wait for the loop that the signal handler interrupts.
        """
        self.stopping = True

    def run(self, tick: Callable[[], None] = lambda: None, interval: float = 1.0) -> None:
        """Accept connections until `stop`; calls `tick` at least every `interval` seconds, as a sign of life.

        There is none while this loop hangs, nor while connections wait that cannot be accepted. When it returns, the
        listening socket is closed in this process only: the backlog of a socket that systemd holds waits for the next
        process.
        """
        self.timeout = min(interval, _NOTICE_STOP_SECONDS)
        while not self.stopping:
            self._starved = False
            self.handle_request()
            if not self._starved:
                tick()
        if not self._inherited:
            self.timeout = 0
            for _ in range(self.request_queue_size):  # the backlog would be cut off
                self.handle_request()
        self.server_close()

    def drain(self, seconds: float) -> bool:
        """Wait until the running requests are answered, for `seconds` at most; returns whether all are."""
        deadline = time.monotonic() + seconds
        self.slots.end_waiting(fresh=False)
        upload_until = time.monotonic() + _UPLOAD_WHILE_STOPPING

        def await_empty(until: float) -> bool:
            return self.slots.await_empty(until, silence=_SILENCE_WHILE_STOPPING, upload_until=upload_until)

        if await_empty(min(deadline, time.monotonic() + _FIRST_REQUEST_WHILE_STOPPING)):
            return True
        self.slots.end_waiting(fresh=True)
        return await_empty(deadline)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. The base leaves Nagle's delay on and, out of files or memory, spins silently."""
        try:
            sock, address = super().get_request()
        except OSError as error:
            if is_starved(error) and error.errno != errno.EAGAIN:
                self._starved = True
                log(logging.ERROR, "cannot accept connections", reason=error.strerror)
                self._refuse_one()
            raise
        with contextlib.suppress(OSError):  # a Unix socket has none
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, address

    def server_close(self) -> None:
        """Close the listening socket, and what is beside it."""
        super().server_close()
        self._lobby.close()
        self._spare.close()

    def _refuse_one(self) -> None:
        """Tell one that waits to be accepted that there is no file for it, with the one that is kept for that."""
        self._spare.close()
        try:
            with super().get_request()[0] as sock:
                sock.settimeout(_NOTICE_STOP_SECONDS)
                if not self.certificate:
                    sock.sendall(self._refusal)
                linger(sock, _NOTICE_STOP_SECONDS)  # nobody else is accepted meanwhile
        except OSError:
            time.sleep(0.1)  # not even that one: do not spin
        with contextlib.suppress(OSError):  # whoever took the last file gives it back some time
            self._spare = open(os.devnull, "rb")  # noqa: SIM115

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread if it gets a slot. The base has no limit."""
        if self.slots.take(request, self.proxies.caller(_host(client_address))):
            try:
                super().process_request(request, client_address)
                return
            except RuntimeError as error:  # no thread available, because of the unit's TasksMax for example
                log(logging.ERROR, "cannot serve a connection", reason=str(error))
                self.slots.leave(request)
        self._lobby.add(request, client_address)

    def _let_in(self, request: socket.socket, client_address: Any) -> bool:
        """Serve a probe that got no slot; false when there are too many."""
        if self._probing.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
                return True
            except RuntimeError:
                self._probing.release()
        return False

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection, in its thread. The base knows nothing about the slot that was taken for it."""
        connection = self.slots.find(request)
        try:
            Handler(request, client_address, self)
        finally:
            if connection:
                self.slots.leave(request)
            else:
                self._probing.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection. The base prints a traceback beside the log."""
        logger.exception("a connection ended unexpectedly")


class Handler(BaseHTTPRequestHandler):
    """Serves one connection: requests one after another, each with one answer and one log line."""

    protocol_version = "HTTP/1.1"
    server: Server
    rfile: Reader
    wfile: Writer

    def setup(self) -> None:
        """Wrap the connection. The base's files have a timeout for each system call, but not for a whole request."""
        self.connection = self.request
        self.rfile, self.wfile = Reader(self.connection), Writer(self.connection, self.server.limits)
        self._kept = False  # whether a request was answered on this connection
        self._peer = _host(self.client_address)
        place = self.server.slots.find(self.connection)
        self._is_probe = place is None
        limits = self.server.limits
        self._limits = dataclasses.replace(limits, head_time=_PROBE_SECONDS) if self._is_probe else limits
        self._place = place or Connection(self.connection, self.server.proxies.caller(self._peer))
        self._place.silent_since = self.rfile.silent_since
        self._behind = self.server.proxies.trust(self._peer)
        self._introduced = not self._behind  # whether what a proxy may send before all else was read
        self._secured = self.server.certificate is None  # whether what is read now is no TLS, or no longer
        self._malformed: HttpError | None = None  # what is wrong with that

    def handle_one_request(self) -> None:
        """Answer one request. The base answers in HTML, by method only, and prints errors to standard error."""
        if not (self._await_request() and self._introduce() and self._secure()):
            self.close_connection = True
            return
        self._begin()
        request: Request | None = None
        status = _CLIENT_GONE_STATUS
        try:
            try:
                with overloads_answered():
                    request = self._read_request()
                    response = self.server.application(request)
            except HttpError as raised:
                # To the thread of a connection that is sent away it looks as if its client ended it.
                away = self._place.sent_away
                error = raised if away is None else overload(SentAway(away))
                response = self.server.error_response(error)
                self.close_connection |= error.close
            except ClientGone:
                raise
            except Exception:
                logger.exception("a request failed unexpectedly", extra={"fields": {"id": self._request_id}})
                message = f"internal error: the log has it as {self._request_id}"
                response = self.server.error_response(HttpError(500, message, code="internal_error"))
                self.close_connection = True
            unread = request is None or not request.body.finished
            self.close_connection |= unread or self.server.stopping
            self._answer(response)
            status = response.status
        except ClientGone:
            self.close_connection, unread = True, False
        finally:
            self._fields["bytes"] = request.body.received if request else 0
            self._fields["total_ms"] = round((time.monotonic() - self._start) * 1000, 1)
            self.log_request(status)
            self.server.answered(self._fields["route"], status)
        if unread:
            linger(self.connection, self.server.limits.linger)
        self._kept = True

    def finish(self) -> None:
        """End the connection. The base knows nothing of TLS, in which a client is told that this is the end."""
        super().finish()
        if self.connection is not self.request:
            with contextlib.suppress(OSError):
                self.connection.settimeout(_NOTICE_STOP_SECONDS)
                self.connection.shutdown(socket.SHUT_WR)

    def handle_expect_100(self) -> bool:
        """Tell a client that waits for it to send the body. The base leaves the line in the buffer."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write the request's structured line. The base's line is text, with the path in it."""
        log(logging.INFO, "request", id=self._request_id, status=code, client=self._client, **self._fields)

    def _begin(self) -> None:
        self._start = time.monotonic()
        self._place.rest()  # whatever was done for the request before it
        self._request_id = "req_" + secrets.token_hex(12)
        self._client = self._peer
        self._fields: dict[str, Any] = {"route": None}
        self._parts: Parts | None = None  # of the answer, once it has begun
        self.command = ""
        self.request_version = self.protocol_version
        self.close_connection = True

    def _await_request(self) -> bool:
        """Wait for the first byte of a request; false when none came or the connection must end."""
        if self._is_probe:  # it has arrived, and nothing after it is served
            return not self._kept
        if self.rfile.buffered:
            return True
        if not self.server.slots.wait(self._place, kept=self._kept):
            return False
        arrived = self.rfile.wait(self.server.limits.idle if self._kept else self.server.limits.head_time)
        return self.server.slots.resume(self._place) and arrived

    def _introduce(self) -> bool:
        """Read what a trusted proxy sends before all else; false when no request follows, as when it only probes."""
        if self._introduced:
            return True
        self._introduced = True
        try:
            self._peer = read_proxy_header(self.rfile, self._peer, time.monotonic() + self.server.limits.head_time)
        except HttpError as error:
            self._malformed = error
            return True
        except ClientGone:
            return False
        return self._await_request()

    def _secure(self) -> bool:
        """Shake hands, where the server speaks TLS; false when no request follows."""
        if self._secured or self._malformed or self.server.certificate is None:
            return True
        self._secured = True
        deadline = time.monotonic() + self._limits.head_time
        if not self.rfile.wait(self._limits.head_time):
            return False
        if self.rfile.peek(1)[0] != HANDSHAKE:
            self._malformed = HttpError(400, "this port speaks HTTPS: use https://", code="https_required", close=True)
            return True
        received = self.rfile.read_some(_HANDSHAKE_BYTES, deadline)
        try:
            self.connection = TlsSocket(self.request, self.server.certificate.context(), received, deadline)
        except OSError as error:  # a scanner, or a client that does not trust the certificate
            log(logging.DEBUG, "no TLS", client=self._peer, reason=str(error))
            return False
        self.rfile, self.wfile = Reader(self.connection), Writer(self.connection, self.server.limits)
        self._place.silent_since = self.rfile.silent_since
        return self._await_request()

    def _read_request(self) -> Request:
        if self._malformed:
            raise self._malformed
        head = read_head(self.rfile, self._limits)
        if self._is_probe and head.path not in _PROBE_PATHS:
            raise overload(NoneLeft("connections"))
        self._client = self.server.proxies.client(self._peer, head.headers) if self._behind else self._peer
        self._place.identify(self.server.proxies.caller(self._client))
        self.command = head.method
        self.close_connection = not head.keep_alive or self._is_probe
        self._chunked = not head.http_1_0
        # The client's own id if it is harmless, so that its log and ours can be joined.
        given = head.headers.get("x-request-id", "")
        if _REQUEST_ID.fullmatch(given):
            self._request_id = given
        body = Body(self.rfile, head, self.server.limits, self.handle_expect_100)
        return Request(
            self._request_id,
            head.method,
            head.path,
            head.query,
            head.headers,
            body,
            self.wfile.client_gone,
            self._place,
            self._begin_events,
            self._send_events,
            self._client,
            self._fields,
        )

    def _begin_events(self, headers: dict[str, str]) -> None:
        self.close_connection |= self.server.stopping
        framing = {"Transfer-Encoding": "chunked"} if self._chunked else {}
        self._send_head(200, events.EVENTS_TYPE, {**framing, **events.HEADERS, **headers})
        self._parts = Parts(self.wfile, chunked=self._chunked)

    def _send_events(self, data: bytes) -> None:
        assert self._parts
        self._parts.send(data)

    def _answer(self, response: Response) -> None:
        if self._parts:
            self._parts.end(response.body if response.content_type == events.EVENTS_TYPE else events.of(response.body))
            return
        length = {"Content-Length": str(len(response.body))}
        self._send_head(response.status, response.content_type, {**length, **response.headers})
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def _send_head(self, status: int, content_type: str, further: dict[str, str]) -> None:
        self.send_response_only(status)
        headers = {
            "Date": self.date_time_string(),
            "Content-Type": content_type,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Request-Id": self._request_id,
            **further,
        }
        if self.close_connection:
            headers["Connection"] = "close"
        else:
            headers["Keep-Alive"] = f"timeout={self.server.limits.idle:g}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _host(client_address: Any) -> str:
    return str(client_address[0]) if client_address else "unix"


def _head_and_body(response: Response) -> bytes:
    """Return an answer as it is sent to a connection that gets no slot."""
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    status = HTTPStatus(response.status)
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode("ascii") + response.body
