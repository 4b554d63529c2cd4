"""Where an HTTP/1.1 request begins and ends, read strictly and under deadlines (RFC 9110, RFC 9112).

Whatever two readers could frame in two ways is rejected with 400 and the connection closed: request smuggling depends
on it, and `http.server`'s own parser accepts it. Every wait has a deadline for its whole phase, so that a client that
sends a byte now and then gains nothing. Nothing here knows about routes.
"""

from __future__ import annotations

import io
import re
import select
import socket
import time
from dataclasses import dataclass
from typing import Any, Callable, Protocol
from urllib.parse import quote

from whisper_xeon.web.errors import ClientGone, HttpError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 3986 has a target in ASCII; clients that do not escape what a person typed send it in UTF-8.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_ASCII_TARGET = "".join(map(chr, range(0x21, 0x7F)))  # stays as it is
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)(/?[^#]*)", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?")
# Headers that say where the request ends, whom it is for or who sends it: a duplicate makes it ambiguous.
_ONLY_ONCE = frozenset(
    ("host", "content-length", "transfer-encoding", "content-type", "authorization", "expect", "x-request-id")
)
_BEGINNING = b"HTTP/1.1 "  # of every answer
_RECEIVE_BYTES = 1 << 16
_CHUNK_LINE_BYTES = 256


@dataclass(frozen=True)
class Limits:
    """What one client may use: sizes in bytes, times in seconds."""

    line: int = 8188  # request line, or one header line; with its end 8190, as in Apache and what follows it
    headers: int = 100
    head: int = 32768  # request line and all headers
    connections: int = 512
    connections_each: int = 384  # of one caller without an API key
    uploads: int = 384  # bodies that are being received
    idle: float = 15.0  # between two requests of a connection
    head_time: float = 10.0
    grace: float = 10.0  # for a body or an answer before its rate counts
    rate: int = 1024  # bytes per second that a body or an answer must move after the grace
    stall: float = 15.0  # for a body without a byte
    linger: float = 10.0  # for the rest of a rejected upload, so that the client reads why


def bad_request(message: str) -> HttpError:
    """Return the answer to a request whose framing is wrong or ambiguous."""
    return HttpError(400, message, code="bad_request", close=True)


class Stream(Protocol):
    """What is used of a socket here; each call takes as long as `settimeout` allows."""

    def fileno(self) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def recv_into(self, buffer: Any, /) -> int: ...
    def send(self, data: Any, /) -> int: ...
    def sendall(self, data: Any, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...


class Reader(io.BufferedReader):
    """What a client sends. Every wait ends at a deadline (a `time.monotonic` value)."""

    def __init__(self, sock: Stream):
        self._receiver = _Receiver(sock)
        super().__init__(self._receiver, _RECEIVE_BYTES)

    def silent_since(self) -> float | None:
        """Return since when it waits for the client to send; None while it does not."""
        return self._receiver.silent_since

    def wait(self, seconds: float) -> bool:
        """Wait for a byte; false when none came in time or the client has sent its last one."""
        self._receiver.deadline = time.monotonic() + seconds
        try:
            return bool(self.peek(1))
        except (HttpError, ClientGone):
            return False

    @property
    def buffered(self) -> bool:
        """Whether bytes have been received and not read yet."""
        return self.wait(0)

    def peek_until(self, enough: Callable[[bytes], bool], deadline: float) -> bytes:
        """Return what has arrived as soon as that is `enough`, without taking it."""
        data = self.read_some(_RECEIVE_BYTES, deadline)
        while not enough(data):
            data += self.read_some(_RECEIVE_BYTES, deadline)
        self._receiver.returned = data
        return data

    def read_line(self, limit: int, deadline: float, too_long: HttpError) -> bytes:
        """Return the next line without its CRLF. A line end other than CRLF is a bad request."""
        self._receiver.deadline = deadline
        line = self.readline(limit + 2)
        if not line.endswith(b"\n"):
            raise too_long if len(line) == limit + 2 else _ended()
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise bad_request("a line does not end with CRLF")
        return line[:-2]

    def read_some(self, size: int, deadline: float) -> bytes:
        """Return between 1 and `size` bytes."""
        self._receiver.deadline = deadline
        data = self.read1(size)
        if not data:
            raise _ended()
        return data


class _Receiver(io.RawIOBase):
    """The socket under a `Reader`: each receive call may take until the deadline."""

    def __init__(self, sock: Stream):
        self._sock = sock
        self.deadline = 0.0
        self.silent_since: float | None = None
        self.returned = b""  # was received before, and comes again

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.returned:
            size = min(len(buffer), len(self.returned))
            buffer[:size], self.returned = self.returned[:size], self.returned[size:]
            return size
        self.silent_since = time.monotonic()
        try:
            self._sock.settimeout(_remaining(self.deadline))
            return self._sock.recv_into(buffer)
        except socket.timeout:
            raise HttpError(408, "the request did not arrive in time", code="request_timeout", close=True) from None
        except OSError:
            raise ClientGone from None
        finally:
            self.silent_since = None


class Writer(io.BufferedIOBase):
    """What goes to a client with the next `flush`; the client must take it at the rate in `limits`."""

    def __init__(self, sock: Stream, limits: Limits):
        self._sock = sock
        self._limits = limits
        self._buffer = bytearray()
        self._begun = False  # whether the beginning of the next answer is sent already
        self.in_parts = False  # whether an answer is being sent that has not ended: nothing may come in between

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._buffer += data
        return len(data)

    def flush(self) -> None:
        """Send everything. Raises `ClientGone`."""
        data, self._buffer = self._buffer, bytearray()
        if self._begun and data:
            data, self._begun = data[len(_BEGINNING) :], False
        start = time.monotonic()
        sent = 0
        with memoryview(data) as view:
            while sent < len(view):
                try:
                    self._sock.settimeout(_remaining(start + self._limits.grace + sent / self._limits.rate))
                    sent += self._sock.send(view[sent:])
                except OSError:
                    raise ClientGone from None

    def client_gone(self) -> bool:
        """Whether the client will not read an answer.

        One that only closed its sending side still reads, and looks the same from here as one that closed all of it,
        until it is sent something: then the kernel of the latter resets the connection. So such a client gets the
        first bytes of its answer, which are the same for all, ahead of the rest.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        events = sum(event for _, event in poll.poll(0))
        if events & (select.POLLHUP | select.POLLERR):
            return True
        if events and not self._begun and not self.in_parts:
            self._begun = True
            try:
                self._sock.settimeout(self._limits.grace)
                self._sock.sendall(_BEGINNING)
            except OSError:
                return True
        return False


class Parts:
    """The body of an answer that begins before its length is known: in chunks, or else until the connection ends."""

    def __init__(self, writer: Writer, *, chunked: bool):
        self._writer = writer
        self._chunked = chunked
        writer.in_parts = True

    def send(self, data: bytes) -> None:
        """Send a part, which is not empty. Raises `ClientGone`."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        self._writer.flush()

    def end(self, data: bytes) -> None:
        """Send the last part. Raises `ClientGone`."""
        self.send(data)
        if self._chunked:
            self._writer.write(b"0\r\n\r\n")
            self._writer.flush()
        self._writer.in_parts = False


def linger(sock: Stream, seconds: float) -> None:
    """Close the sending side and discard what still arrives, for `seconds` at most.

    Closing at once would reset the connection, and the reset could overtake the answer.
    """
    deadline = time.monotonic() + seconds
    try:
        sock.shutdown(socket.SHUT_WR)
        while True:
            sock.settimeout(min(2.0, _remaining(deadline)))
            if not sock.recv(_RECEIVE_BYTES):
                return
    except OSError:
        return


def _ended() -> HttpError:
    return bad_request("the connection ended in the middle of the request")


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise socket.timeout
    return remaining


@dataclass(frozen=True)
class Head:
    """The request line and headers of one request."""

    method: str
    path: str  # as sent, not decoded, without the query
    query: str
    http_1_0: bool
    headers: dict[str, str]  # lower-case names; repeated fields joined by ", "

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to send another request on this connection."""
        options = {option.strip().lower() for option in self.headers.get("connection", "").split(",")}
        return not self.http_1_0 and "close" not in options

    @property
    def chunked(self) -> bool:
        return "transfer-encoding" in self.headers

    @property
    def content_length(self) -> int:
        return int(self.headers.get("content-length", 0))


def read_head(reader: Reader, limits: Limits) -> Head:
    """Read one request line and its headers. Raises `HttpError` (always closing) or `ClientGone`."""
    deadline = time.monotonic() + limits.head_time
    too_long = HttpError(414, f"the request line is longer than {limits.line} bytes", code="uri_too_long", close=True)
    too_large = HttpError(
        431,
        f"the headers exceed {limits.headers} fields, {limits.line} bytes per field or {limits.head} bytes in total",
        code="headers_too_large",
        close=True,
    )
    line = reader.read_line(limits.line, deadline, too_long)
    if not line:  # RFC 9112, 2.2: old clients send an empty line before a request
        line = reader.read_line(limits.line, deadline, too_long)
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise bad_request("the request line is malformed")
    try:
        method, target, major, minor = (group.decode("utf-8") for group in match.groups())
    except UnicodeDecodeError:
        raise bad_request("the request target is not UTF-8") from None
    target = quote(target, safe=_ASCII_TARGET)
    if major != "1":
        raise HttpError(505, "this server speaks HTTP/1.1 only", code="http_version_not_supported", close=True)
    headers: dict[str, str] = {}
    size, count = len(line), 0
    while True:
        line = reader.read_line(limits.line, deadline, too_large)
        if not line:
            break
        size, count = size + len(line) + 2, count + 1
        if size > limits.head or count > limits.headers:
            raise too_large
        name, value = _parse_header(line)
        if "_" in name and name.replace("_", "-") in _ONLY_ONCE:  # which some readers take for the same
            raise bad_request(f"the header {name.title()} has underscores")
        if name in headers:
            if name in _ONLY_ONCE:
                raise bad_request(f"duplicate header {name.title()}")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    http_1_0 = minor == "0"
    _check_framing(headers, http_1_0)
    path, query = _parse_target(method, target, headers, http_1_0)
    return Head(method, path, query, http_1_0, headers)


def _parse_header(line: bytes) -> tuple[str, str]:
    if line[:1] in (b" ", b"\t"):
        raise bad_request("a header is folded over two lines")
    match = _HEADER_LINE.fullmatch(line)
    if not match:
        raise bad_request("a header line is malformed")
    return match.group(1).decode("ascii").lower(), match.group(2).strip(b" \t").decode("latin-1")


def _check_framing(headers: dict[str, str], http_1_0: bool) -> None:
    length = headers.get("content-length")
    encoding = headers.get("transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise bad_request("Transfer-Encoding and Content-Length must not be used together")
        if http_1_0 or encoding.lower() != "chunked":
            raise bad_request("the only Transfer-Encoding allowed is chunked, with HTTP/1.1")
    if length is not None and not re.fullmatch(r"[0-9]{1,18}", length):
        raise bad_request("Content-Length is not a number of bytes")


def _parse_target(method: str, target: str, headers: dict[str, str], http_1_0: bool) -> tuple[str, str]:
    host = headers.get("host")
    if host is None and not http_1_0:
        raise bad_request("the header Host is missing")
    if host is not None and not _HOST.fullmatch(host):
        raise bad_request("the header Host is malformed")
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute:
        if not _HOST.fullmatch(absolute.group(1)):
            raise bad_request("the request target has no valid host")
        target = absolute.group(2) or "/"
        target = target if target.startswith("/") else "/" + target
    elif not target.startswith("/") and not (target == "*" and method == "OPTIONS"):
        raise bad_request("the request target is malformed")
    if "#" in target:
        raise bad_request("the request target is malformed")
    path, _, query = target.partition("?")
    return path, query


class Body:
    """The body of one request, read in pieces; nothing of it is read before `accept`."""

    def __init__(self, reader: Reader, head: Head, limits: Limits, send_continue: Callable[[], Any]):
        """`send_continue` tells a client that waits for it to send the body; it is called at most once."""
        self._reader = reader
        self._send_continue = send_continue
        self._limits = limits
        self._chunked = head.chunked
        self._length = head.content_length
        self._left = self._length  # of the body, or of the current chunk
        self._finished = not self._chunked and not self._length
        self._maximum = 0
        self._too_large = HttpError(413, "no body is accepted here", code="body_too_large", close=True)
        self._begun = False
        self._start = 0.0
        expectation = head.headers.get("expect", "")
        self._continue_expected = bool(expectation) and not head.http_1_0
        if self._continue_expected and expectation.lower() != "100-continue":
            raise HttpError(
                417, "the only expectation supported is 100-continue", code="expectation_failed", close=True
            )
        self.received = 0  # bytes of content so far

    @property
    def finished(self) -> bool:
        """Whether everything was read: only then does the next request begin."""
        return self._finished

    def accept(self, maximum: int, too_large: HttpError) -> None:
        """Let the client send up to `maximum` bytes. Raises `too_large`, before the first, when it announced more."""
        self._maximum, self._too_large = maximum, too_large
        if self._length > maximum:
            raise too_large

    def read(self, size: int = _RECEIVE_BYTES) -> bytes:
        """Return up to `size` bytes, none at the end. Raises `HttpError` 400, 408 or 413, or `ClientGone`."""
        if self._finished:
            return b""
        if not self._begun:
            self._begun, self._start = True, time.monotonic()
            if self._continue_expected and not self._reader.buffered:
                self._send_continue()
        if self._chunked and not self._left and not self._next_chunk():
            return b""
        data = self._reader.read_some(min(size, self._left), self._deadline())
        self._left -= len(data)
        self.received += len(data)
        if self.received > self._maximum:
            raise self._too_large
        if not self._left:
            if self._chunked:
                self._end_chunk()
            else:
                self._finished = True
        return data

    def _deadline(self) -> float:
        at_rate = self._start + self._limits.grace + self.received / self._limits.rate
        return min(at_rate, time.monotonic() + self._limits.stall)

    def _next_chunk(self) -> bool:
        line = self._reader.read_line(
            _CHUNK_LINE_BYTES, self._deadline(), bad_request("a chunk's size line is too long")
        )
        match = _CHUNK_LINE.fullmatch(line)
        if not match:
            raise bad_request("a chunk's size is malformed")
        self._left = int(match.group(1), 16)
        if not self._left:
            self._read_trailers()
            self._finished = True
        return not self._finished

    def _end_chunk(self) -> None:
        if self._reader.read_line(0, self._deadline(), bad_request("a chunk is longer than its size")):
            raise bad_request("a chunk is longer than its size")

    def _read_trailers(self) -> None:
        too_large = HttpError(431, "the trailers are too large", code="headers_too_large", close=True)
        size = 0
        while True:
            line = self._reader.read_line(self._limits.line, self._deadline(), too_large)
            if not line:
                return
            size += len(line) + 2
            if size > self._limits.head:
                raise too_large
            name, _ = _parse_header(line)
            if name in _ONLY_ONCE:  # RFC 9110, 6.5.1: it comes too late, and some readers believe it all the same
                raise bad_request(f"{name.title()} must not be a trailer")
