"""Messages between the pool and its processes: JSON objects preceded by their length, and file descriptors with them.

A Unix stream socket carries one message after another in each direction. End of file means that the other side is gone,
which is how every process here learns that it has lost its partner.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("<I")
_MAX_MESSAGE = 256 << 20  # a transcript of many hours with word times; more is a bug
_MAX_FDS = 4


def send_message(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; the receiver gets duplicates of `fds`. Raises `OSError` when the other side is gone."""
    body = json.dumps(message).encode("ascii")
    data = _LENGTH.pack(len(body)) + body
    sent = socket.send_fds(channel, [data], list(fds)) if fds else 0
    channel.sendall(data[sent:])


def receive_message(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for one message and its descriptors, which the caller closes.

    Raises `EOFError` when the other side is gone, `OSError` after the socket's timeout, `ValueError` for anything else.
    """
    fds: list[int] = []
    try:
        head, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        head += _receive(channel, _LENGTH.size - len(head), started=bool(head))
        (length,) = _LENGTH.unpack(head)
        if length > _MAX_MESSAGE:
            raise ValueError(f"a message of {length} bytes is too long")
        return json.loads(_receive(channel, length)), fds
    except BaseException:
        close_all(fds)
        raise


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors, whatever their state."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _receive(channel: socket.socket, length: int, *, started: bool = True) -> bytes:
    if length and not started:
        raise EOFError("the other side is gone")
    data = bytearray()
    while len(data) < length:
        block = channel.recv(min(length - len(data), 1 << 20))
        if not block:
            raise EOFError("the other side is gone")
        data += block
    return bytes(data)
