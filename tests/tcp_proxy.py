"""A TCP proxy before a real server that counts, slows down, cuts off or spoils what the server answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class TcpProxy:
    """Forwards 127.0.0.1:`port` to a target. The attributes may be changed at any time; a context manager."""

    def __init__(self, target_port: int):
        """Listen on a free port."""
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.answered_bytes = 0
        self.bytes_per_second: float | None = None
        self.cut_each: int | None = None
        self.spoil: tuple[bytes, bytes] | None = None

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
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
                self.answered_bytes += len(data)
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
        for end in (client, server):
            # Wakes the other thread, whose waiting would keep the connection open.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
