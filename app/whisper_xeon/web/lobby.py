"""Where connections wait that got no slot: each is told so, and one that only asks whether the service works is let in.

One thread serves them all, so that a flood of them takes neither threads nor the place of a load balancer's probe.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import re
import select
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable

from whisper_xeon.logs import log
from whisper_xeon.web.tls import HANDSHAKE

_PLACES = 1024  # beyond, the oldest is closed
_HEAD_SECONDS = 1.0  # for the head of a request that may be a probe
_REST_SECONDS = 1.0  # to take the answer: closing at once would reset the connection, and the client never read it
_PEEK_BYTES = 8192
_LOG_SECONDS = 1.0  # between two lines about connections that were refused


class Lobby:
    """Takes connections by `add`, from the thread that accepts them."""

    def __init__(
        self,
        probes: Iterable[str],
        refusal: bytes,
        let_in: Callable[[socket.socket, Any], bool],
        *,
        secured: bool = False,
    ):
        """`probes` are the paths to let in, `refusal` is what the others get.

        `let_in` takes over a connection and its address, or returns false when it has no room for more. `secured`: who
        begins with TLS is let in, too, since nothing can be said to it here.
        """
        self._secured = secured
        paths = b"|".join(re.escape(path.encode("ascii")) for path in probes)
        self._probe = re.compile(rb"(?:GET|HEAD) (?:" + paths + rb")(?:\?[^ \r\n]*)? HTTP/1\.[01]\r\n")
        self._refusal = refusal
        self._let_in = let_in
        self._lock = threading.Lock()
        self._poll: select.epoll | None = None  # there is none, and no thread, before the first connection
        # Their addresses and when they must be done, by descriptor: the oldest first, since all have the same time.
        self._asked: dict[int, tuple[socket.socket, Any, float]] = {}
        self._answered: dict[int, tuple[socket.socket, float]] = {}
        self._refused: collections.Counter[str] = collections.Counter()
        self._logged_at = 0.0
        self._closed = False

    def add(self, sock: socket.socket, address: Any) -> None:
        """Take over a connection and its address. Raises `OSError` or, where no thread can be started, `RuntimeError`.

        Both leave it to the caller.
        """
        sock.setblocking(False)
        with self._lock:
            if self._poll is None:
                self._poll = self._start()
            self._asked[sock.fileno()] = (sock, address, time.monotonic() + _HEAD_SECONDS)
            # What is peeked at stays: by its level the event would come again at once.
            self._poll.register(sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            if len(self._asked) + len(self._answered) > _PLACES:
                self._make_room()

    def close(self) -> None:
        """Take no more; those inside still get their answer."""
        self._closed = True

    def _start(self) -> select.epoll:
        poll = select.epoll()
        try:
            threading.Thread(target=self._serve, args=(poll,), daemon=True).start()
        except RuntimeError:  # the next connection tries again
            poll.close()
            raise
        return poll

    def _serve(self, poll: select.epoll) -> None:
        while self._asked or self._answered or self._refused or not self._closed:
            ready = [fd for fd, _ in poll.poll(0.1)]
            with self._lock:
                for fd in ready:
                    self._look(fd)
                now = time.monotonic()
                for fd in [fd for fd, (_, _, end) in self._asked.items() if end <= now]:
                    self._refuse(fd)
                for fd in [fd for fd, (_, end) in self._answered.items() if end <= now]:
                    self._close(fd)
                self._tell(now)
        poll.close()

    def _look(self, fd: int) -> None:
        if fd in self._answered:
            with contextlib.suppress(BlockingIOError):
                try:
                    more = self._answered[fd][0].recv(1 << 16)
                except ConnectionError:
                    more = b""
                if not more:
                    self._close(fd)
        elif fd in self._asked:
            sock, address, _ = self._asked[fd]
            try:
                head = sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                head = b""
            if not head:  # gone, and nothing was asked
                del self._asked[fd]
                self._answered[fd] = (sock, 0.0)
            elif self._secured and head[0] == HANDSHAKE:
                self._hand_over(fd, sock, address)
            elif self._secured or not self._may_be_probe(head):
                self._refuse(fd)
            elif b"\r\n\r\n" in head:
                self._hand_over(fd, sock, address)

    def _may_be_probe(self, head: bytes) -> bool:
        return b"\r\n" not in head or bool(self._probe.match(head))

    def _hand_over(self, fd: int, sock: socket.socket, address: Any) -> None:
        if self._poll:
            self._poll.unregister(fd)
        sock.setblocking(True)
        if self._let_in(sock, address):
            del self._asked[fd]
            return
        sock.setblocking(False)
        if self._poll:
            self._poll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._refuse(fd)

    def _refuse(self, fd: int) -> None:
        sock, address, _ = self._asked.pop(fd)
        self._refused[str(address[0]) if address else "unix"] += 1
        self._answered[fd] = (sock, time.monotonic() + _REST_SECONDS)
        with contextlib.suppress(OSError):
            if not self._secured:
                sock.send(self._refusal)
            sock.shutdown(socket.SHUT_WR)
            if self._poll:
                self._poll.modify(fd, select.EPOLLIN | select.EPOLLRDHUP)

    def _make_room(self) -> None:
        if not self._answered:
            self._refuse(next(iter(self._asked)))
        self._close(next(iter(self._answered)))

    def _close(self, fd: int) -> None:
        self._answered.pop(fd)[0].close()

    def _tell(self, now: float) -> None:
        if self._refused and now - self._logged_at >= _LOG_SECONDS:
            address, most = self._refused.most_common(1)[0]
            number = sum(self._refused.values())
            log(logging.WARNING, "connections refused", number=number, client=address, of_client=most)
            self._refused.clear()
            self._logged_at = now
