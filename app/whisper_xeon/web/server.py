"""Connections, threads and the life of the HTTP front: accept, serve, refuse, drain.

Bounded in connections, threads, bytes and time; see `framing.Limits`. The application is a plain callable from
`Request` to `Response`. A client never gets to see a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Callable

from whisper_xeon.formats import JSON_TYPE, encode_json
from whisper_xeon.logs import log, logger
from whisper_xeon.web.errors import ClientGone, HttpError
from whisper_xeon.web.framing import Body, Head, Limits, Stream, encode_head, read_head

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REFUSED_AT_ONCE = 64  # refused connections that are let go gently at the same time; more are just closed
_REFUSED_SECONDS = 1.0
_FIRST_REQUEST_WHILE_STOPPING = 1.0  # a connection made just before the stop still gets its request in
_CLIENT_GONE_STATUS = 499  # nginx's number for it; only ever logged


@dataclass
class Request:
    """One request as the application sees it."""

    id: str
    method: str
    path: str
    query: str
    headers: dict[str, str]  # lower-case names
    body: Body
    client_gone: Callable[[], bool]
    log: dict[str, Any] = field(default_factory=dict)  # figures for the request's log line; never text or names


@dataclass
class Response:
    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)


Application = Callable[[Request], Response]


def error_response(error: HttpError) -> Response:
    """Return an error in OpenAI's shape."""
    return Response(error.status, encode_json(error.body()), headers=error.headers)


def listen(host: str, port: int, limits: Limits) -> socket.socket:
    """Return a listening socket on the first address of `host`; `::` takes IPv4 as well. Raises `OSError`."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(limits.backlog)
    except OSError:
        listener.close()
        raise
    return listener


class Server:
    """Serves an application on listening sockets, one thread a connection, until it is stopped."""

    def __init__(
        self,
        application: Application,
        listeners: Iterable[socket.socket],
        *,
        inherited: bool = False,
        limits: Limits | None = None,
    ):
        """`inherited`: the listening sockets outlive this process, and what it has not accepted is the next one's."""
        self._application = application
        self._listeners = list(listeners)
        self._inherited = inherited
        self._limits = limits or Limits()
        self._changed = threading.Condition()
        self._connections = 0
        self._refused: dict[int, tuple[socket.socket, float]] = {}
        self._stopping = False
        # Readable from the stop on, and never read: every wait on an idle connection watches it.
        self._stop_reader, self._stop_writer = os.pipe()
        for listener in self._listeners:
            listener.setblocking(False)

    def stop(self) -> None:
        """Make `run` return, from a signal handler or any thread; running requests go on until `drain`."""
        if not self._stopping:
            self._stopping = True
            os.write(self._stop_writer, b"x")

    def run(self, tick: Callable[[], None] = lambda: None, interval: float = 1.0) -> None:
        """Accept connections until `stop`; calls `tick` at least every `interval` seconds, as a sign of life.

        Returns with the listening sockets closed in this process only, never shut down: what waits in the backlog of
        a socket that systemd holds waits there for the next process.
        """
        poll = select.poll()
        listeners = {listener.fileno(): listener for listener in self._listeners}
        for descriptor in (*listeners, self._stop_reader):
            poll.register(descriptor, select.POLLIN)
        while not self._stopping:
            for descriptor, _ in poll.poll(interval * 1000):
                if descriptor in listeners:
                    self._accept(listeners[descriptor], poll)
                elif descriptor in self._refused:
                    self._discard(descriptor, poll)
            self._forget_refused(poll)
            tick()
        for listener in self._listeners:
            if not self._inherited:
                self._accept(listener, poll)  # who is in the backlog now would be cut off
            listener.close()

    def drain(self, seconds: float) -> bool:
        """Wait until the running requests are answered, `seconds` at most; returns whether all are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, seconds)

    def _accept(self, listener: socket.socket, poll: select.poll) -> None:
        # A handful a turn, so that a flood of connections does not keep `tick` from being called.
        for _ in range(64):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log(logging.ERROR, "cannot accept connections", reason=error.strerror)
                    time.sleep(0.1)
                    return
                continue
            client = str(address[0]) if address else "unix"
            with self._changed:
                full = self._connections >= self._limits.connections
                self._connections += not full
            if full:
                self._refuse(sock, client, poll)
                continue
            try:
                threading.Thread(target=self._connection, args=(sock, client), daemon=True).start()
            except RuntimeError:  # the unit's TasksMax, for one
                self._connection_ended()
                self._refuse(sock, client, poll)

    def _connection_ended(self) -> None:
        with self._changed:
            self._connections -= 1
            self._changed.notify_all()

    def _refuse(self, sock: socket.socket, client: str, poll: select.poll) -> None:
        error = HttpError(
            503, "too many connections: try again soon", code="too_many_connections", headers={"Retry-After": "1"}
        )
        request_id = _new_request_id()
        response = error_response(error)
        try:
            sock.setblocking(False)
            sock.send(_encode(response, request_id, close=True, head_only=False))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
        else:
            if len(self._refused) < _REFUSED_AT_ONCE:
                self._refused[sock.fileno()] = (sock, time.monotonic() + _REFUSED_SECONDS)
                poll.register(sock, select.POLLIN)
            else:
                sock.close()
        _log_request(request_id, error.status, client, {"route": None})

    def _discard(self, descriptor: int, poll: select.poll) -> None:
        sock, _ = self._refused[descriptor]
        with contextlib.suppress(OSError):
            if sock.recv(1 << 16):
                return
        self._close_refused(descriptor, poll)

    def _forget_refused(self, poll: select.poll) -> None:
        now = time.monotonic()
        for descriptor in [d for d, (_, deadline) in self._refused.items() if now > deadline]:
            self._close_refused(descriptor, poll)

    def _close_refused(self, descriptor: int, poll: select.poll) -> None:
        poll.unregister(descriptor)
        self._refused.pop(descriptor)[0].close()

    def _connection(self, sock: socket.socket, client: str) -> None:
        stream = Stream(sock)
        try:
            with contextlib.suppress(OSError):  # a Unix socket has no Nagle to turn off
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first = True
            while self._await_request(sock, stream, first) and self._exchange(stream, client):
                first = False
        except ClientGone:
            pass
        except Exception:
            logger.exception("a connection ended unexpectedly")
        finally:
            sock.close()
            self._connection_ended()

    def _await_request(self, sock: socket.socket, stream: Stream, first: bool) -> bool:
        """Wait for the first byte of a request; returns whether one came."""
        if stream.buffered:
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._stop_reader, select.POLLIN)
        seconds = self._limits.head_time if first else self._limits.idle
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        if first and ready == {self._stop_reader}:
            poll.unregister(self._stop_reader)
            ready = {descriptor for descriptor, _ in poll.poll(_FIRST_REQUEST_WHILE_STOPPING * 1000)}
        if sock.fileno() not in ready:
            return False
        try:
            return bool(sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _exchange(self, stream: Stream, client: str) -> bool:
        """Read one request and answer it; returns whether the connection stays open."""
        start = time.monotonic()
        request: Request | None = None
        head: Head | None = None
        keep = False
        request_id = _new_request_id()
        fields: dict[str, Any] = {"route": None}
        status = _CLIENT_GONE_STATUS
        try:
            try:
                head = read_head(stream, self._limits)
                request_id = _request_id(head)
                request = Request(
                    request_id,
                    head.method,
                    head.path,
                    head.query,
                    head.headers,
                    Body(stream, head, self._limits),
                    stream.client_gone,
                    fields,
                )
                response = self._application(request)
                keep = head.keep_alive and request.body.finished and not self._stopping
            except HttpError as error:
                response = error_response(error)
                finished = request is not None and request.body.finished
                keep = finished and head.keep_alive and not error.close and not self._stopping
            except ClientGone:
                raise
            except Exception:
                logger.exception("a request failed unexpectedly", extra={"fields": {"id": request_id}})
                response = error_response(
                    HttpError(500, f"internal error; the log has it as {request_id}", code="internal_error")
                )
            head_only = head is not None and head.method == "HEAD"
            stream.write(_encode(response, request_id, close=not keep, head_only=head_only), self._limits)
            status = response.status
        finally:
            fields["bytes"] = request.body.received if request else 0
            fields["total_ms"] = round((time.monotonic() - start) * 1000, 1)
            _log_request(request_id, status, client, fields)
        if not keep and (request is None or not request.body.finished):
            stream.linger(self._limits.linger)
        return keep


def _new_request_id() -> str:
    return "req_" + secrets.token_hex(12)


def _request_id(head: Head) -> str:
    """The client's own X-Request-Id when it is harmless, so that its log and ours can be joined; else a new one."""
    given = head.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else _new_request_id()


def _encode(response: Response, request_id: str, *, close: bool, head_only: bool) -> bytes:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Request-Id", request_id),
        *response.headers.items(),
    ]
    if close:
        headers.append(("Connection", "close"))
    return encode_head(response.status, headers) + (b"" if head_only else response.body)


def _log_request(request_id: str, status: int, client: str, fields: dict[str, Any]) -> None:
    log(logging.INFO, "request", id=request_id, status=status, client=client, **fields)
