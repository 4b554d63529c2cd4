"""Fetches the file at a URL that a client sent, from where `url_policy` allows it and from nowhere else.

The name is resolved once and the connection made to an address that was checked; each redirect is checked again; no
proxy, cookie or credential takes part; size and time are bounded as a whole. Messages are for the person who sent the
URL: they name the host, and never contain its query or anything that was received.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import http.client
import io
import ipaddress
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, cast
from urllib.parse import unquote, urljoin

import whisper_xeon
from whisper_xeon.audio.file_types import FileHint
from whisper_xeon.audio.url_policy import (
    Address,
    AllowList,
    AudioUrlError,
    Entry,
    Url,
    UrlInvalid,
    UrlNotAllowed,
    unwrap,
)

_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECT_SECONDS = 10.0  # for each address of a host
_POLL_SECONDS = 0.25
_RECEIVE_BYTES = 1 << 16


class HostRejected(AudioUrlError):
    """The host does not give the file: it answered with an error of the 4xx kind."""


class HostFailed(AudioUrlError):
    """The host cannot be reached, or does not speak the protocol properly."""


class HostTooSlow(AudioUrlError):
    """The file had not arrived at the deadline."""


class FetchCancelled(AudioUrlError):
    """`cancelled` returned true; nobody is waiting for the file any more."""


class FileTooLarge(Exception):
    """The file is larger than `maximum`; only the caller knows which limit that is."""


def fetch(
    text: str,
    allowed: AllowList,
    write: Callable[[bytes], None],
    *,
    context: ssl.SSLContext,
    maximum: int,
    deadline: float,
    cancelled: Callable[[], bool],
) -> FileHint:
    """Give the bytes of the file at the URL `text` to `write`, piece by piece; return what its host says about it.

    `context` is how TLS peers are verified; `maximum` bytes are accepted; `deadline` (a `time.monotonic` value) bounds
    all of it together; `cancelled` is asked every quarter of a second. Raises a subclass of `AudioUrlError`, or
    `FileTooLarge`.
    """
    wait = _Wait(deadline, cancelled)
    url = Url.parse(text)
    entries = allowed.find(url)
    for _ in range(_MAX_REDIRECTS + 1):
        with _failures_of(url), contextlib.ExitStack() as stack:
            sock = stack.enter_context(contextlib.closing(_connect(url, entries, wait)))
            if url.scheme == "https":
                # The connection stays the same; the certificate must be for the name.
                sock = stack.enter_context(contextlib.closing(_start_tls(sock, url.host, context, wait)))
            response = stack.enter_context(contextlib.closing(_ask(sock, url, wait)))
            location = response.getheader("Location") if response.status in _REDIRECTS else None
            if location is None:
                _receive(response, url, write, maximum)
                path = unquote(url.target.partition("?")[0])
                return FileHint(response.getheader("Content-Type", ""), path.rpartition("/")[2])
        host = url.host
        try:
            url = Url.parse(urljoin(str(url), location))
            entries = allowed.find(url)
        except (UrlInvalid, ValueError):
            raise HostFailed(f"{host} redirects to something that is not a URL") from None
        except UrlNotAllowed:  # the target is what the host said, and not repeated
            raise UrlNotAllowed(f"{host} redirects to a URL that this server is not allowed to fetch") from None
    raise HostFailed(f"{host} redirects more than {_MAX_REDIRECTS} times")


@dataclass(frozen=True)
class _Wait:
    """How long to wait, and for whom."""

    deadline: float
    cancelled: Callable[[], bool]

    def left(self) -> float:
        """Return the seconds until the next look. Raises `FetchCancelled` or `HostTooSlow`."""
        if self.cancelled():
            raise FetchCancelled("nobody is waiting for the file any more")
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise HostTooSlow("the file did not arrive in time")
        return min(left, _POLL_SECONDS)

    def ready(self, sock: socket.socket, event: int, until: float | None = None) -> bool:
        """Wait for an event of a socket; false when it has not come by the time `until`."""
        poll = select.poll()
        poll.register(sock, event)
        while not poll.poll(self.left() * 1000):
            if until is not None and time.monotonic() >= until:
                return False
        return True

    def repeat(self, sock: socket.socket, operation: Callable[[], Any]) -> Any:
        """Return the result of an operation on a socket that never blocks, once it can be done."""
        while True:
            try:
                return operation()
            except (ssl.SSLWantReadError, BlockingIOError):
                self.ready(sock, select.POLLIN)
            except ssl.SSLWantWriteError:
                self.ready(sock, select.POLLOUT)


@contextlib.contextmanager
def _failures_of(url: Url) -> Iterator[None]:
    """Say what the host did wrong, in words that do not depend on what it sent."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise HostFailed(f"the certificate of {url.host} is not valid: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise HostFailed(f"{url.host} does not speak TLS properly on port {url.port}") from error
    except OSError as error:
        raise HostFailed(f"the connection to {url.host} failed: {error.strerror or 'it was closed early'}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise HostFailed(f"{url.host} does not speak HTTP properly on port {url.port}") from error
    except HostTooSlow:
        raise HostTooSlow(f"{url.host} did not send the file in time") from None


def _connect(url: Url, entries: list[Entry], wait: _Wait) -> socket.socket:
    """Return a connection, which never blocks, to an address that the entries permit."""
    addresses = [a for a in _resolve(url, wait) if any(entry.permits(a) for entry in entries)]
    if not addresses:
        raise UrlNotAllowed(
            f"{url.host} has no address that may be connected to; the operator can allow an internal one with "
            f"{url.origin}=<network>"
        )
    code = 0
    for address in addresses:
        try:
            sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        except OSError as error:  # a kernel without IPv6
            code = error.errno or errno.EAFNOSUPPORT
            continue
        try:
            sock.setblocking(False)
            code = sock.connect_ex((str(address), url.port))
            if code == errno.EINPROGRESS:
                arrived = wait.ready(sock, select.POLLOUT, time.monotonic() + _CONNECT_SECONDS)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if arrived else errno.ETIMEDOUT
            if not code:
                return sock
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise OSError(code, os.strerror(code))


def _resolve(url: Url, wait: _Wait) -> list[Address]:
    """Return the addresses of the URL's host, in the resolver's order.

    The resolver knows no deadline, so it runs in a thread that is left behind when it takes too long.
    """
    if url.address is not None:
        return [url.address]
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    while True:
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=wait.left())
            break
    if isinstance(answer, Exception):
        raise HostFailed(f"the name {url.host} cannot be resolved")
    found = (unwrap(ipaddress.ip_address(entry[4][0].partition("%")[0])) for entry in answer)
    return list(dict.fromkeys(found))


def _start_tls(sock: socket.socket, host: str, context: ssl.SSLContext, wait: _Wait) -> ssl.SSLSocket:
    secured = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        wait.repeat(secured, secured.do_handshake)
    except BaseException:
        secured.close()
        raise
    return secured


def _ask(sock: socket.socket, url: Url, wait: _Wait) -> http.client.HTTPResponse:
    """Send the request and read the head of the answer."""
    request = (
        f"GET {url.target} HTTP/1.1\r\nHost: {url.authority}\r\nUser-Agent: whisper-xeon/{whisper_xeon.__version__}\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
    while request:
        sent = wait.repeat(sock, functools.partial(sock.send, request))
        request = request[sent:]
    # It wants a socket for its `makefile` only.
    response = http.client.HTTPResponse(cast("socket.socket", _Readable(sock, wait)), method="GET")
    response.begin()
    return response


def _receive(response: http.client.HTTPResponse, url: Url, write: Callable[[bytes], None], maximum: int) -> None:
    if response.status != 200:
        kind = HostRejected if 400 <= response.status < 500 else HostFailed
        raise kind(f"{url.host} answered with status {response.status}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise HostFailed(f"{url.host} sent the file compressed, although it was asked not to")
    expected, received = response.length, 0
    if expected is not None and expected > maximum:
        raise FileTooLarge
    while expected is None or received < expected:
        data = response.read1(_RECEIVE_BYTES)
        if not data:
            break
        received += len(data)
        if received > maximum:
            raise FileTooLarge
        write(data)
    if expected is not None and received != expected:
        raise HostFailed(f"{url.host} closed the connection in the middle of the file")


class _Readable(io.RawIOBase):
    """A socket that never blocks, as `http.client` wants to read it: within the time that there is."""

    def __init__(self, sock: socket.socket, wait: _Wait):
        self._sock = sock
        self._wait = wait

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _RECEIVE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size: int = self._wait.repeat(self._sock, lambda: self._sock.recv_into(buffer))
        return size
