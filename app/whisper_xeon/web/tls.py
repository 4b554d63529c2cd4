"""TLS for the HTTP server: the certificate and key, read again when they change, and connections that speak it.

OpenSSL works on memory here, and the socket stays a plain one: whoever waits for a connection, looks whether its client
is gone or ends it needs to know nothing about TLS. One thread at a time uses a connection.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

from whisper_xeon.logs import log

HANDSHAKE = 0x16  # the first byte of every connection
_RECORD = 16384  # bytes that are encrypted at a time
_RECEIVE_BYTES = 1 << 16
_LOOK_S = 1.0  # how often to look whether the files have changed


class CertificateError(Exception):
    """The certificate or its key cannot be used; the message is one line."""


class Certificate:
    """A certificate chain and its key, in PEM files. `context` may be called from any thread."""

    def __init__(self, chain: Path, key: Path):
        """Read both. Raises `CertificateError`."""
        self._chain = chain
        self._key = key
        self._lock = threading.Lock()
        self._read_of = self._signature()
        self._context = self._read()
        self._look_at = time.monotonic() + _LOOK_S

    def context(self) -> ssl.SSLContext:
        """Return what new connections are made with: from the files as they are, or as they last could be read."""
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_S
                found = self._signature()
                if found != self._read_of:
                    self._read_again(found)
            return self._context

    def _read_again(self, found: tuple[Any, ...]) -> None:
        try:
            self._context = self._read()
        except CertificateError as error:
            log(logging.ERROR, "certificate not reloaded", reason=str(error))
        else:
            log(logging.INFO, "certificate reloaded", certificate=str(self._chain))
        self._read_of = found

    def _read(self) -> ssl.SSLContext:
        try:
            return server_context(self._chain, self._key)
        except CertificateError as error:
            files = f"the certificate {self._chain} and its key {self._key}"
            raise CertificateError(f"{files} cannot be used: {error}") from None

    def _signature(self) -> tuple[Any, ...]:
        """Return what changes when somebody replaces one of the files, or what a link leads to."""
        found: list[Any] = []
        for path in (self._chain, self._key):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    """Return what connections are made with. Raises `CertificateError`, which names neither file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password=_no_password)
    except ssl.SSLError as error:
        reason = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else _words(error)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    else:
        return context
    raise CertificateError(reason)


def _no_password() -> str:
    raise ValueError("the key has a password: store it without one, readable by the service alone")


def _words(error: ssl.SSLError) -> str:
    return error.reason.lower().replace("_", " ") if error.reason else "no PEM files"


class TlsSocket:
    """One connection that speaks TLS: what a `Reader`, a `Writer` and `linger` need of a socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, received: bytes, deadline: float):
        """Shake hands until `deadline` (`time.monotonic`); `received` has come from the client. Raises `OSError`."""
        self._sock = sock
        self._timeout: float | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming.write(received)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
                self._flush(deadline)
                return
            except ssl.SSLWantReadError:
                self._flush(deadline)
                if not self._receive(deadline):
                    raise ConnectionAbortedError("the client left") from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush(deadline)  # the alert that says why
                raise

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, seconds: float | None) -> None:
        """Bound each of the calls below."""
        self._timeout = seconds

    def recv_into(self, buffer: Any) -> int:
        """Receive bytes; 0 at the end, which a client may leave unsaid: lengths tell whether something is missing."""
        deadline = self._deadline()
        view, received = memoryview(buffer), 0
        # All that is there: what stays behind in memory, nobody who looks at the socket would see.
        while received < len(view):
            try:
                count = self._tls.read(len(view) - received, view[received:])
            except ssl.SSLWantReadError:
                if received:
                    break
                self._flush(deadline)  # the answer to a new key, for example
                if not self._receive(deadline):
                    break
            except ssl.SSLZeroReturnError:
                break
            else:
                if not count:
                    break
                received += int(count)
        return received

    def recv(self, size: int) -> bytes:
        """Receive bytes."""
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.recv_into(buffer)])

    def send(self, data: Any) -> int:
        """Send some of the bytes, and return how many."""
        deadline = self._deadline()
        sent = self._tls.write(memoryview(data)[:_RECORD])
        self._flush(deadline)
        return sent

    def sendall(self, data: Any) -> None:
        """Send bytes."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += self.send(view[sent:])

    def shutdown(self, how: int) -> None:
        """Tell the client that nothing more is coming, and end the socket's sending side."""
        with contextlib.suppress(ssl.SSLError):  # it waits for the client to say the same, or has failed before
            self._tls.unwrap()
        self._flush(self._deadline())
        self._sock.shutdown(how)

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _flush(self, deadline: float | None) -> None:
        data = self._outgoing.read()
        if data:
            self._sock.settimeout(_left(deadline))
            self._sock.sendall(data)

    def _receive(self, deadline: float | None) -> bool:
        """Wait for more from the client; false at the end."""
        self._sock.settimeout(_left(deadline))
        data = self._sock.recv(_RECEIVE_BYTES)
        self._incoming.write(data)
        return bool(data)


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left
