"""The connections of a server: who has a slot, who is waiting in one, and who must give it up."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Callable

from whisper_xeon.shares import Caller, Guest, Hold, ShareError, Shares

STOPPING = "stop"  # what those are sent away for that would delay a stop
_NOTICE_SECONDS = 0.25


class Connection(Guest):
    """One connection, and whoever's request is on it."""

    def __init__(self, sock: socket.socket, caller: Caller):
        super().__init__(caller)
        self.hold: Hold | None = None  # of the slots; none while it has no slot
        self.silent_since: Callable[[], float | None] = lambda: None  # since when its thread waits for a byte
        self._sock = sock

    def identify(self, caller: Caller) -> None:
        """Let it count as the connection of whoever a request is from. Raises `OverLimit`."""
        if self.hold:
            self.hold.move(caller)
        self.caller = caller

    def is_stirring(self) -> bool:
        """Whether a request has arrived that the connection's thread does not know of yet: it gets its answer."""
        poll = select.poll()
        with contextlib.suppress(OSError, ValueError):  # closed in the meantime
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0))
        return False

    def wake(self) -> None:
        """To the thread that waits for the client, this looks like the end of what the client sends."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)


class ConnectionSlots:
    """Shares out the connections of a server. All methods may be called from any thread.

    A connection that waits for a request holds its slot for nothing. When all slots are taken, a newcomer gets the slot
    of a kept connection, one whose client has been answered before, the one that has waited longest first; or else that
    of a caller with more of them. A stop ends the connections that wait.
    """

    def __init__(self, number: int, *, each: int | None = None):
        """There are `number` of them, of which a caller without a key may have `each`."""
        self._shares = Shares("connections", number, cap=each)
        self._connections: dict[socket.socket, Connection] = {}
        self._waiting: dict[Connection, bool] = {}  # whether it is a kept one
        self._no_kept = self._no_fresh = False
        self._lock = threading.Lock()

    def find(self, sock: socket.socket) -> Connection | None:
        """Return the connection that has a slot, also when that was taken away in the meantime."""
        return self._connections.get(sock)

    def take(self, sock: socket.socket, caller: Caller) -> bool:
        """Give a new connection a slot; false when there is none."""
        connection = Connection(sock, caller)
        try:
            connection.hold = self._shares.take(connection)
        except ShareError:
            return False
        self._connections[sock] = connection
        return True

    def leave(self, sock: socket.socket) -> None:
        """Give the slot back; does nothing when it has already been given to another connection."""
        connection = self._connections.pop(sock, None)
        if connection and connection.hold:
            connection.hold.close()

    def wait(self, connection: Connection, *, kept: bool) -> bool:
        """Begin to wait for a request; false when the connection must end instead."""
        with self._lock:
            if (self._no_kept if kept else self._no_fresh) or connection.sent_away:
                return False
            connection.rest(idle=kept)
            self._waiting[connection] = kept
            return True

    def resume(self, connection: Connection) -> bool:
        """End the wait; false when the slot was taken away in the meantime."""
        with self._lock:
            connection.rest()
            return self._waiting.pop(connection, None) is not None and not connection.sent_away

    def end_waiting(self, *, fresh: bool) -> None:
        """End the kept connections that wait, now and later; with `fresh`, also those that have not sent a request."""
        with self._lock:
            self._no_kept = True
            self._no_fresh = fresh
            for connection in [one for one, kept in self._waiting.items() if kept or fresh]:
                connection.rest(idle=True)
                connection.send_away(STOPPING)

    def await_empty(self, until: float, *, silence: float, upload_until: float) -> bool:
        """Wait until no connection has a slot, until a time of `time.monotonic`; false when that takes longer.

        Meanwhile what has sent nothing for `silence` seconds is ended, and from `upload_until` on all that still sends.
        """
        while not self._shares.await_unused(max(0.0, min(_NOTICE_SECONDS, until - time.monotonic()))):
            now = time.monotonic()
            if now >= until:
                return False
            for connection in list(self._connections.values()):
                since = connection.silent_since()
                if since is not None and (now - since >= silence or now >= upload_until):
                    connection.send_away(STOPPING)
        return True
