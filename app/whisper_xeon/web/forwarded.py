"""Whose request it is behind a proxy: Forwarded (RFC 7239), X-Forwarded-For, and HAProxy's PROXY protocol.

Only a proxy that the operator trusts is believed, since anybody can send these. The address goes to the log, and tells
the callers apart among whom the service is shared.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Union

from whisper_xeon.shares import Caller
from whisper_xeon.web.framing import Reader, bad_request

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_FOR = re.compile(r'(?:^|[;,])\s*for\s*=\s*(?:"([^"]*)"|([^;,\s]*))', re.IGNORECASE)
# An address as a list has it: 192.0.2.1, 192.0.2.1:80, 2001:db8::1 or [2001:db8::1]:80
_NODE = re.compile(r"\[([^\]]*)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+)(?::\d+)?|([0-9A-Fa-f:.]+)")
_LINE_START = b"PROXY "  # of version 1
_LINE = re.compile(rb"PROXY (?:UNKNOWN.*|TCP[46] ([0-9A-Fa-f:.]+) [0-9A-Fa-f:.]+ \d+ \d+)")
_LINE_BYTES = 107
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
_MAX_BLOCK_BYTES = 4096  # of version 2: the addresses, and what else the proxy tells
_INET, _INET6 = 1, 2
_SITE_BITS = 64  # of an IPv6 address, that one customer has at least


class TrustedProxies:
    """The proxies that an operator trusts, by their addresses."""

    def __init__(self, networks: Iterable[Network]):
        self._networks = tuple(networks)

    def trust(self, address: str) -> bool:
        """Whether a connection from this address is a trusted proxy's."""
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def caller(self, address: str) -> Caller:
        """Return the caller that requests from an address are, or connections of which no request is known yet.

        A proxy is not held to what one caller may have: its connections are many callers'.
        """
        parsed = _parse(address)
        if isinstance(parsed, ipaddress.IPv6Address):
            site = ipaddress.ip_network((parsed, _SITE_BITS), strict=False)
            return Caller(f"address {site}", capped=not self.trust(address))
        return Caller(f"address {parsed or address}", capped=parsed is not None and not self.trust(address))

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of the client of a request that came from `peer`.

        Each proxy appends where it got the request from: the last address that is not a trusted proxy's is the
        client's, and what stands before it is only what that client says.
        """
        chain = headers.get("x-forwarded-for")
        if chain is not None:
            nodes = chain.split(",")
        else:
            nodes = [quoted or plain for quoted, plain in _FOR.findall(headers.get("forwarded", ""))]
        client = peer
        for node in reversed(nodes):
            if not self.trust(client):
                break
            match = _NODE.fullmatch(node.strip())
            parsed = _parse(next(filter(None, match.groups()), "")) if match else None
            if parsed is None:  # hidden, or nonsense
                break
            client = str(parsed)
        return client


def read_proxy_header(reader: Reader, peer: str, deadline: float) -> str:
    """Read what a proxy that speaks the PROXY protocol sends before all else; returns the client's address.

    That is `peer` when the proxy does not say, or does not speak it. Raises `HttpError` 400 for a malformed header.
    """
    start = reader.peek_until(_tells_version, deadline)
    if start.startswith(_LINE_START):
        malformed = bad_request("the header of the PROXY protocol is malformed")
        match = _LINE.fullmatch(reader.read_line(_LINE_BYTES, deadline, malformed))
        client = _parse(match[1].decode("ascii")) if match and match[1] else None
        if not match or (match[1] and client is None):
            raise malformed
        return str(client or peer)
    if start.startswith(_SIGNATURE):
        return _read_block(reader, peer, deadline)
    return peer


def _tells_version(start: bytes) -> bool:
    """Whether the first bytes of a connection are enough to tell which version it speaks, if any."""
    return not any(len(start) < len(begin) and begin.startswith(start) for begin in (_LINE_START, _SIGNATURE))


def _read_block(reader: Reader, peer: str, deadline: float) -> str:
    head = _read_exactly(reader, len(_SIGNATURE) + 4, deadline)
    command, family, size = struct.unpack_from("!BBH", head, len(_SIGNATURE))
    if not head.startswith(_SIGNATURE) or command >> 4 != 2 or size > _MAX_BLOCK_BYTES:
        raise bad_request("the header of the PROXY protocol is malformed")
    block = _read_exactly(reader, size, deadline)
    if command & 0xF == 1 and family >> 4 == _INET and size >= 12:
        return str(ipaddress.IPv4Address(block[:4]))
    if command & 0xF == 1 and family >> 4 == _INET6 and size >= 36:
        return str(ipaddress.IPv6Address(block[:16]))
    return peer


def _read_exactly(reader: Reader, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        data += reader.read_some(size - len(data), deadline)
    return data


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
