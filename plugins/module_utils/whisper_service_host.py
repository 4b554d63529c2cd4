"""What the modules of the service share: the lock of a run, serials, questions to systemd, fetching without a proxy."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import json
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Names the run that changes the host (module whisper_service_lock); its modification time is its last sign of life.
LOCK = Path("/run/whisper-xeon-deploy.json")


def wait_for_others(deployments: Path) -> None:
    """Wait until no module of a run that died is working on the deployments, and keep others out from now on.

    Ansible's workers outlive their run until their module is done. The lock ends with this process.
    """
    fcntl.flock(os.open(deployments, os.O_RDONLY), fcntl.LOCK_EX)


def serials_file(root: Path) -> Path:
    """Return the file in which a host notes the newest signature that it confirmed of each model and channel."""
    return root / "serials.json"


def read_serials(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return channel -> model -> serial, key and release_id. The channel of a release that was named is empty.

    Raises ValueError if the file was altered.
    """
    path = serials_file(root)
    try:
        noted = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        noted = None
    try:
        entries = [entry for models in noted.values() for entry in models.values()]
        valid = all(isinstance(entry[name], str) for entry in entries for name in ("serial", "key", "release_id"))
    except (AttributeError, TypeError, KeyError):
        valid = False
    if not valid:
        raise ValueError(f"{path} was altered: compare what this host serves with what you published, then remove it")
    return noted


def show_unit(unit: str, *properties: str) -> str:
    """Return properties of a unit, as lines NAME=VALUE."""
    return subprocess.run(
        ["systemctl", "show", f"--property={','.join(properties)}", unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout


class _Connection(http.client.HTTPConnection):
    """Tells its opener of its socket before anything, TLS included, comes over it."""

    def __init__(self, *arguments: Any, opener: DirectOpener, **options: Any):
        super().__init__(*arguments, **options)
        self._opener = opener

    def connect(self) -> None:
        super().connect()
        self._opener.connected(self.sock)


class _TlsConnection(http.client.HTTPSConnection, _Connection):  # whose connect calls that of _Connection
    pass


class DirectOpener:
    """Opens http and https URLs for one thread, without a proxy, whatever the environment says.

    A redirect is an error: where root fetches from is decided on the control node.
    """

    def __init__(self) -> None:
        self._connected: socket.socket | None = None
        self._lock = threading.Lock()
        handlers = [
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _handler(urllib.request.HTTPHandler, "http", functools.partial(_Connection, opener=self)),
            _handler(urllib.request.HTTPSHandler, "https", functools.partial(_TlsConnection, opener=self)),
        ]
        self._director = urllib.request.OpenerDirector()
        for handler in handlers:
            self._director.add_handler(handler)

    def open(self, url: str | urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
        """Open a URL; no single step may take longer than `timeout` seconds. Raises as `urllib.request.urlopen`."""
        return self._director.open(url, timeout=timeout)

    def connected(self, connection: socket.socket) -> None:
        """Note the connection that `hang_up` ends."""
        with self._lock:
            self._forget()
            self._connected = connection.dup()

    def hang_up(self) -> None:
        """End the connection, from any thread: whoever reads from it sees its end."""
        with self._lock:
            if self._connected:
                with contextlib.suppress(OSError):
                    self._connected.shutdown(socket.SHUT_RDWR)
            self._forget()

    def _forget(self) -> None:
        if self._connected:
            self._connected.close()
            self._connected = None


def _handler(base: type, scheme: str, connection: Callable[..., Any]) -> urllib.request.BaseHandler:
    def open_url(self: Any, request: urllib.request.Request) -> Any:
        return self.do_open(connection, request)

    return type(base.__name__, (base,), {f"{scheme}_open": open_url})()


def store_of(url: str) -> str:
    """Return the store that a signed URL leads to, without path and signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
