"""The connection slots of a server: how many there are, who is waiting in one, and who must give one up."""

from __future__ import annotations

import contextlib
import select
import socket
import threading


class ConnectionSlots:
    """Counts the connections of a server. All methods may be called from any thread.

    A connection that waits for a request holds its slot for nothing. When all slots are taken, a newcomer gets the slot
    of a kept connection, one whose client has been answered before, the one that has waited longest first. A stop ends
    the connections that wait.
    """

    def __init__(self, number: int):
        self._number = number
        self._taken: set[socket.socket] = set()
        # Whether it is a kept one; the connection that has waited longest comes first.
        self._waiting: dict[socket.socket, bool] = {}
        self._no_kept = self._no_fresh = False
        self._changed = threading.Condition()

    def __contains__(self, sock: socket.socket) -> bool:
        return sock in self._taken

    def take(self, sock: socket.socket) -> bool:
        """Give a new connection a slot; false when there is none."""
        with self._changed:
            if len(self._taken) >= self._number and not self._evict():
                return False
            self._taken.add(sock)
            return True

    def leave(self, sock: socket.socket) -> None:
        """Give the slot back; does nothing when it has already been given to another connection."""
        with self._changed:
            self._taken.discard(sock)
            self._changed.notify_all()

    def wait(self, sock: socket.socket, *, kept: bool) -> bool:
        """Begin to wait for a request; false when the connection must end instead."""
        with self._changed:
            if self._no_kept if kept else self._no_fresh:
                return False
            self._waiting[sock] = kept
            return True

    def resume(self, sock: socket.socket) -> bool:
        """End the wait; false when the slot was taken away in the meantime."""
        with self._changed:
            return self._waiting.pop(sock, None) is not None

    def end_waiting(self, *, fresh: bool) -> None:
        """End the kept connections that wait, now and later; with `fresh`, also those that have not sent a request."""
        with self._changed:
            self._no_kept = True
            self._no_fresh = fresh
            for sock in [sock for sock, kept in self._waiting.items() if (kept or fresh) and not _has_input(sock)]:
                self._end(sock)

    def await_empty(self, seconds: float) -> bool:
        """Wait until no connection has a slot; false when that takes longer than `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._taken, seconds)

    def _evict(self) -> bool:
        for sock, kept in self._waiting.items():
            if kept and not _has_input(sock):
                self._taken.remove(sock)
                self._end(sock)
                return True
        return False

    def _end(self, sock: socket.socket) -> None:
        """Wake the thread that waits for the client: to it, this looks like the end of what the client sends."""
        del self._waiting[sock]
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)


def _has_input(sock: socket.socket) -> bool:
    """Whether a request has arrived that the connection's thread does not know of yet: it still gets its answer."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
