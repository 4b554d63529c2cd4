"""The service's HTTP server without the service: any handler, on a free port of the loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from whisper_xeon.web.server import Request, Response, Server


@contextlib.contextmanager
def serving(handler: Callable[[Request], Response], **options: Any) -> Iterator[tuple[str, int]]:
    """Run a server with these options of `Server`; the block has its address."""
    server = Server(handler, ("127.0.0.1", 0), **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.server_address
    finally:
        server.stop()
        thread.join()
        assert server.drain(10)
