"""Which URLs the service may fetch from: the operator's allow list, and the addresses that no list can allow.

A client that chooses addresses could make the service talk to what only the service can reach. So scheme, host and port
must be in the operator's list, and the host's address must be public unless the list names its network. This module
decides and connects to nothing; `fetch` connects.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Union

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

# Never connected to, whatever the list says: addresses that hand out a cloud machine's credentials, link-local
# addresses, and those that do not belong to a single machine.
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


class AudioUrlError(Exception):
    """The file at a URL cannot be had; the message is for the person who sent the URL. Base of all such errors."""


class UrlInvalid(AudioUrlError):
    """The text is not a URL that could be fetched."""


class UrlNotAllowed(AudioUrlError):
    """The URL is not in the operator's list, or its host has no address that may be connected to."""


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
                raise UrlInvalid("it must not contain a user name or a password")
            raise UrlInvalid("it must be like https://host/path")
        scheme = match["scheme"].lower()
        try:
            host, port = _host_and_port(match, scheme)
        except ValueError as error:
            raise UrlInvalid(str(error)) from None
        target = match["target"] or "/"
        return cls(scheme, host, port, target if target.startswith("/") else "/" + target)

    @property
    def address(self) -> Address | None:
        """The host when it is an address, None when it is a name."""
        return _address(self.host)

    @property
    def authority(self) -> str:
        """Host and port as the header Host names them."""
        return _authority(self.scheme, self.host, self.port)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


@dataclass(frozen=True)
class Entry:
    """One entry of the operator's list: a host, or every host below a domain."""

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
            raise ValueError("it is not a host or an origin")
        scheme = (match["scheme"] or "https").lower()
        host, port = _host_and_port(match, scheme)
        network: Network | None = None
        address = _address(host)
        if address is not None:
            if match["any"] or match["network"]:
                raise ValueError("an address takes neither *. nor =network")
            network = ipaddress.ip_network(address)
        elif match["network"]:
            network = ipaddress.ip_network(match["network"])  # its error says what is wrong
        if network is not None and any(_is_within(network, never) for never in _NEVER):
            raise ValueError(f"{network} is never connected to")
        return cls(scheme, host, port, bool(match["any"]), network)

    @property
    def origin(self) -> str:
        """The entry as a client may use it."""
        return f"{self.scheme}://{_authority(self.scheme, ('*.' if self.any_below else '') + self.host, self.port)}"

    def __str__(self) -> str:
        return self.origin if self.network is None or _address(self.host) else f"{self.origin}={self.network}"

    def matches(self, url: Url) -> bool:
        """Whether the URL is of this entry, by its text alone."""
        if (url.scheme, url.port) != (self.scheme, self.port):
            return False
        return url.host.endswith("." + self.host) if self.any_below else url.host == self.host

    def permits(self, address: Address) -> bool:
        """Whether a host of this entry may have that address."""
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
            raise UrlNotAllowed(f"this server is not allowed to fetch from {url.origin}")
        return found


def unwrap(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one that only wraps it: mapped, 6to4, or behind the well-known NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _host_and_port(match: re.Match[str], scheme: str) -> tuple[str, int]:
    host = match["host"].lower()
    if host.startswith("["):
        try:
            host = str(unwrap(ipaddress.IPv6Address(host[1:-1])))
        except ValueError:
            raise ValueError("its address is not valid") from None
    elif re.fullmatch(r"(?:0x[0-9a-f]*|[0-9]+)", host.rpartition(".")[2]) and _address(host) is None:
        # Resolvers take 127.1, 0x7f.1 and 2130706433 for addresses; nobody writes them by mistake.
        raise ValueError("its host is neither a name nor an address")
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError("its port is not between 1 and 65535")
    return host, port


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_public(address: Address) -> bool:
    if any(address in private for private in _PRIVATE):
        return False
    return address.version == 4 or address in _PUBLIC_IPV6


def _is_within(network: Network, other: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


def _authority(scheme: str, host: str, port: int) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == _PORTS[scheme] else f"{bracketed}:{port}"
