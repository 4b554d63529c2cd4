"""A TCP proxy before a real server that counts, slows down, cuts off or spoils what the server answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class TcpProxy:
    """Forwards `address`:`port` to a port of this machine. The attributes may be changed at any time; a context
    manager.
    """

    def __init__(self, target_port: int, address: str = "127.0.0.1"):
        """Listen on a free port of `address`."""
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server((address, 0))
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._due: tuple[int, Callable[[], None]] | None = None
        self.port = self._listener.getsockname()[1]
        self.endpoint = f"http://{address}:{self.port}"
        self.answered_bytes = 0
        self.bytes_per_second: float | None = None
        self.cut_each: int | None = None
        self.spoil: tuple[bytes, bytes] | None = None

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.refuse()

    def after(self, count: int, action: Callable[[], None]) -> None:
        """Call `action` once, as soon as `count` bytes have been answered in all; that answer waits for its end."""
        self._due = (count, action)

    def slow_after(self, count: int, bytes_per_second: float) -> None:
        """Answer `count` bytes as fast as they come and what follows slowly, until the rate is set to None."""

        def slow_down() -> None:
            self.bytes_per_second = bytes_per_second

        self.after(count, slow_down)

    def cut(self) -> None:
        """End the connections that there are; new ones are taken."""
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """End the connections that there are and refuse new ones, like a server that has gone."""
        with contextlib.suppress(OSError):
            # Without it the thread that accepts would go on listening.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                with self._lock:
                    self._ends |= {client, server}
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if self.cut_each and sent > self.cut_each:
                    break
                if self.spoil and self.spoil[0] in data:
                    data = data.replace(*self.spoil)
                    self.spoil = None
                client.sendall(data)
                sent += len(data)
                self._count(len(data))
                if rate := self.bytes_per_second:  # read once: the test may lift it at any time
                    time.sleep(len(data) / rate)
        for end in (client, server):
            # Wakes the other thread, whose waiting would keep the connection open.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._ends.discard(end)
            end.close()

    def _count(self, length: int) -> None:
        action = None
        with self._lock:
            self.answered_bytes += length
            if self._due and self.answered_bytes >= self._due[0]:
                (_, action), self._due = self._due, None
        if action:
            action()
