"""Fetches a file by a URL that a client wrote, from where the operator allows it and from nowhere else.

A client that chooses addresses could make the service speak to what only the service can reach. So scheme, host and
port must be in the operator's list; the name is resolved once and the connection made to an address that was checked;
each redirect is checked anew; no proxy, cookie or credential takes part; size and time are bounded as a whole. Messages
are for the person who sent the URL: they name the host and never hold its query or anything that was received.
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
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Union
from urllib.parse import urljoin

import whisper_xeon

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_PORTS = {"http": 80, "https": 443}
_NAME = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_AUTHORITY = rf"(?P<host>{_NAME}|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
_URL = re.compile(rf"(?P<scheme>https?)://{_AUTHORITY}(?P<target>[/?][^#]*)?(?:#.*)?", re.ASCII | re.IGNORECASE)
_ENTRY = re.compile(
    rf"(?:(?P<scheme>https?)://)?(?P<any>\*\.)?{_AUTHORITY}(?:=(?P<network>[0-9a-f:./]+))?", re.ASCII | re.IGNORECASE
)
_MAX_URL_CHARACTERS = 8192
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECT_SECONDS = 10.0  # for each address of a host
_POLL_SECONDS = 0.25
_RECEIVE_BYTES = 1 << 16

# Never connected to, whatever the list says: addresses that hand out a cloud machine's credentials, those of the own
# link, and those that are none of a single machine.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "100.100.100.200/32", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32", "224.0.0.0/4"),
        *("255.255.255.255/32", "::/128", "fd00:ec2::/32", "fd20:ce::254/128", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
# Not on the public internet, or a way around it. `ipaddress.is_global` says otherwise for several of them.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24"),
        *("192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")


class FetchError(Exception):
    """The file was not fetched; the message is for the person who sent the URL."""


class UrlInvalid(FetchError):
    """The text is no URL that could be fetched."""


class UrlNotAllowed(FetchError):
    """The operator's list does not have it, or its host has no address that may be connected to."""


class HostRefused(FetchError):
    """The host does not give the file: it answered with an error of the 4xx kind."""


class HostFailed(FetchError):
    """The host cannot be reached, or does not speak the protocol properly."""


class HostTooSlow(FetchError):
    """The file was not there at the deadline."""


class FileTooLarge(FetchError):
    """The file is larger than the limit."""


class FetchCancelled(FetchError):
    """`cancelled` answered true; nobody waits for the file any more."""


@dataclass(frozen=True)
class Entry:
    """One place of the operator's list: a host, or every host below a domain."""

    scheme: str
    host: str  # lower case; an IPv6 address without its brackets
    port: int
    any_below: bool = False  # every host whose name ends with `.host`
    network: Network | None = None  # the only addresses that the host may have; None: public ones

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read `[http[s]://][*.]host[:port][=network]`. Raises `ValueError` with the reason."""
        match = _ENTRY.fullmatch(text)
        if not match:
            raise ValueError("it is no host or origin")
        scheme = (match["scheme"] or "https").lower()
        host, port = _host_and_port(match, scheme)
        network = None
        address = _address(host)
        if address is not None:
            if match["any"] or match["network"]:
                raise ValueError("an address stands for itself")
            network = ipaddress.ip_network(address)
        elif match["network"]:
            network = ipaddress.ip_network(match["network"])  # its error says what is wrong
        if network is not None and any(_within(network, never) for never in _NEVER):
            raise ValueError(f"{network} is never connected to")
        return cls(scheme, host, port, bool(match["any"]), network)

    @property
    def origin(self) -> str:
        """The place as a client may use it."""
        return _origin(self.scheme, ("*." if self.any_below else "") + self.host, self.port)

    def __str__(self) -> str:
        return self.origin if self.network is None or _address(self.host) else f"{self.origin}={self.network}"

    def matches(self, url: Url) -> bool:
        """Whether the URL points to this place, by its text alone."""
        if (url.scheme, url.port) != (self.scheme, self.port):
            return False
        return url.host.endswith("." + self.host) if self.any_below else url.host == self.host

    def permits(self, address: Address) -> bool:
        """Whether a host of this place may have that address."""
        if any(address in never for never in _NEVER):
            return False
        return _is_public(address) if self.network is None else address in self.network


class AllowList:
    """What may be fetched. Its text is what `parse` reads."""

    def __init__(self, entries: tuple[Entry, ...]):
        self.entries = entries

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """Read entries with commas between them. Raises `ValueError` naming the entry that is wrong."""
        entries = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            try:
                entries.append(Entry.parse(part))
            except ValueError as error:
                raise ValueError(f"{part!r}: {error}") from None
        if not entries:
            raise ValueError("it is empty")
        return cls(tuple(entries))

    def __str__(self) -> str:
        return ",".join(map(str, self.entries))

    def find(self, url: Url) -> list[Entry]:
        """Return the entries that the URL matches. Raises `UrlNotAllowed` when there are none."""
        found = [entry for entry in self.entries if entry.matches(url)]
        if not found:
            raise UrlNotAllowed(f"{url.origin} is not among what this server may fetch")
        return found


@dataclass(frozen=True)
class Url:
    """A URL in its parts; `target` is path and query as they are sent."""

    scheme: str
    host: str  # lower case; an IPv6 address without its brackets
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read an absolute URL. Raises `UrlInvalid`."""
        if len(text) > _MAX_URL_CHARACTERS:
            raise UrlInvalid(f"it has more than {_MAX_URL_CHARACTERS} characters")
        if not re.fullmatch(r"[\x21-\x7e]+", text):
            raise UrlInvalid("it must be percent-encoded: no spaces and no characters beyond ASCII")
        match = _URL.fullmatch(text)
        if not match:
            if "@" in text.partition("://")[2].partition("/")[0]:
                raise UrlInvalid("it must not hold a user name or a password")
            raise UrlInvalid("it must be like https://host/path")
        scheme = match["scheme"].lower()
        try:
            host, port = _host_and_port(match, scheme)
        except ValueError as error:
            raise UrlInvalid(str(error)) from None
        target = match["target"] or "/"
        return cls(scheme, host, port, target if target.startswith("/") else "/" + target)

    @property
    def origin(self) -> str:
        return _origin(self.scheme, self.host, self.port)

    def __str__(self) -> str:
        return self.origin + self.target


def fetch(
    text: str,
    allowed: AllowList,
    write: Callable[[bytes], None],
    *,
    context: ssl.SSLContext,
    maximum: int,
    deadline: float,
    cancelled: Callable[[], bool],
) -> None:
    """Give the bytes of the file at the URL `text` to `write`, piece by piece.

    `context` is how TLS peers are verified; `maximum` bytes are accepted; `deadline` (a `time.monotonic` value) bounds
    all of it together; `cancelled` is asked every quarter of a second. Raises a subclass of `FetchError`.
    """
    wait = _Wait(deadline, cancelled)
    url = Url.parse(text)
    entries = allowed.find(url)
    for _ in range(_MAX_REDIRECTS + 1):
        with _failures_of(url), contextlib.ExitStack() as stack:
            sock = stack.enter_context(contextlib.closing(_connect(url, entries, wait)))
            if url.scheme == "https":
                # What was connected stays the same; the name is what the certificate has to be for.
                sock = stack.enter_context(contextlib.closing(_start_tls(sock, url.host, context, wait)))
            response = stack.enter_context(contextlib.closing(_ask(sock, url, wait)))
            location = response.getheader("Location") if response.status in _REDIRECTS else None
            if location is None:
                _receive(response, url, write, maximum)
                return
        host = url.host
        try:
            url = Url.parse(urljoin(str(url), location))
            entries = allowed.find(url)
        except (UrlInvalid, ValueError):
            raise HostFailed(f"{host} redirects to something that is no URL") from None
        except UrlNotAllowed:  # where to is what the host said
            raise UrlNotAllowed(f"{host} redirects to where nothing may be fetched from") from None
    raise HostFailed(f"{host} redirects once more after {_MAX_REDIRECTS} redirects")


@dataclass(frozen=True)
class _Wait:
    """How long to wait, and for whom."""

    deadline: float
    cancelled: Callable[[], bool]

    def left(self) -> float:
        """Return the seconds until the next look. Raises `FetchCancelled` or `HostTooSlow`."""
        if self.cancelled():
            raise FetchCancelled("nobody waits for the file any more")
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise HostTooSlow("the file did not arrive in time")
        return min(left, _POLL_SECONDS)

    def ready(self, sock: socket.socket, event: int, until: float | None = None) -> bool:
        """Wait for an event of a socket; false when it is not there at the time `until`."""
        poll = select.poll()
        poll.register(sock, event)
        while not poll.poll(self.left() * 1000):
            if until is not None and time.monotonic() >= until:
                return False
        return True

    def repeat(self, sock: socket.socket, operation: Callable[[], Any]) -> Any:
        """Return what an operation on a socket that never blocks gives, once it can be done."""
        while True:
            try:
                return operation()
            except (ssl.SSLWantReadError, BlockingIOError):
                self.ready(sock, select.POLLIN)
            except ssl.SSLWantWriteError:
                self.ready(sock, select.POLLOUT)


@contextlib.contextmanager
def _failures_of(url: Url) -> Iterator[None]:
    """Say whose failure it is, in words that do not depend on what the host sent."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise HostFailed(f"the certificate of {url.host} is not valid: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise HostFailed(f"{url.host} does not speak TLS properly on port {url.port}") from error
    except OSError as error:
        raise HostFailed(f"the connection to {url.host} failed: {error.strerror or 'broken off'}") from error
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
    failure: OSError | None = None
    for address in addresses:
        try:
            sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        except OSError as error:  # a kernel without IPv6
            failure = error
            continue
        try:
            sock.setblocking(False)
            error = sock.connect_ex((str(address), url.port))
            if error == errno.EINPROGRESS:
                arrived = wait.ready(sock, select.POLLOUT, time.monotonic() + _CONNECT_SECONDS)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if arrived else errno.ETIMEDOUT
            if not error:
                return sock
            failure = OSError(error, os.strerror(error))
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise failure


def _resolve(url: Url, wait: _Wait) -> list[Address]:
    """Return the addresses of the URL's host, in the resolver's order.

    The resolver knows no deadline, so it is waited for in a thread that is left behind when it takes too long.
    """
    literal = _address(url.host)
    if literal is not None:
        return [literal]
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
    found = (_plain(ipaddress.ip_address(entry[4][0].partition("%")[0])) for entry in answer)
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
    """Send the request and read the answer's head."""
    host = _origin(url.scheme, url.host, url.port).partition("://")[2]
    request = (
        f"GET {url.target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: whisper-xeon/{whisper_xeon.__version__}\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
    while request:
        sent = wait.repeat(sock, functools.partial(sock.send, request))
        request = request[sent:]
    response = http.client.HTTPResponse(_Readable(sock, wait), method="GET")
    response.begin()
    return response


def _receive(response: http.client.HTTPResponse, url: Url, write: Callable[[bytes], None], maximum: int) -> None:
    if response.status != 200:
        kind = HostRefused if 400 <= response.status < 500 else HostFailed
        raise kind(f"{url.host} answered with status {response.status}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise HostFailed(f"{url.host} sent the file compressed, which was not asked for")
    too_large = FileTooLarge(f"the file at {url.host} is larger than {maximum} bytes")
    expected, received = response.length, 0
    if expected is not None and expected > maximum:
        raise too_large
    while expected is None or received < expected:
        data = response.read1(_RECEIVE_BYTES)
        if not data:
            break
        received += len(data)
        if received > maximum:
            raise too_large
        write(data)
    if expected is not None and received != expected:
        raise HostFailed(f"{url.host} broke the connection off in the middle of the file")


class _Readable(io.RawIOBase):
    """A socket that never blocks, as `http.client` wants to read it: within the time that there is."""

    def __init__(self, sock: socket.socket, wait: _Wait):
        self._sock = sock
        self._wait = wait

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _RECEIVE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        return self._wait.repeat(self._sock, lambda: self._sock.recv_into(buffer))


def _host_and_port(match: re.Match, scheme: str) -> tuple[str, int]:
    host = match["host"].lower()
    if host.startswith("["):
        try:
            host = str(_plain(ipaddress.IPv6Address(host[1:-1])))
        except ValueError:
            raise ValueError("its address is not valid") from None
    elif re.fullmatch(r"(?:0x[0-9a-f]*|[0-9]+)", host.rpartition(".")[2]) and _address(host) is None:
        # Resolvers take 127.1, 0x7f.1 and 2130706433 for addresses; nobody writes them by mistake.
        raise ValueError("its host is neither a name nor an address")
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError("its port is not one of 1 to 65535")
    return host, port


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one that only wraps it: mapped, 6to4, or behind the well-known NAT64."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if any(address in private for private in _PRIVATE):
        return False
    return address.version == 4 or address in _PUBLIC_IPV6


def _within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)


def _origin(scheme: str, host: str, port: int) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}" + ("" if port == _PORTS[scheme] else f":{port}")
