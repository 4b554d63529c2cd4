"""systemd's two protocols for services, without its library: socket activation and status notifications.

Outside systemd, everything here does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

_FIRST_SOCKET = 3  # SD_LISTEN_FDS_START


class SocketActivationError(Exception):
    """systemd passed something other than one listening stream socket; the message says what to change."""


def inherited_socket(environ: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """Return the listening socket that systemd passed to this process; None without socket activation.

    The variables are removed from `environ`, so that no child takes the socket for its own.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise SocketActivationError("only one ListenStream= can be served: [::]:8000 accepts IPv4 as well")
    try:
        os.set_inheritable(_FIRST_SOCKET, False)
        inherited = socket.socket(fileno=_FIRST_SOCKET)
        listens = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SocketActivationError(f"file descriptor {_FIRST_SOCKET} is not a socket: {error.strerror}") from None
    if inherited.type != socket.SOCK_STREAM or not listens:
        raise SocketActivationError(
            "it does not listen for stream connections: the socket unit needs ListenStream= and Accept=no"
        )
    return inherited


class Notifier:
    """Tells systemd the state of the service (`sd_notify`)."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ):
        """Remove the address and the watchdog's period from `environ`, so that no child speaks for the service."""
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        period = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        expected = self._address and period.isdigit() and pid == str(os.getpid())
        # Seconds between two keep-alive messages, None if systemd expects none: half of its limit, as its manual says.
        self.watchdog_interval = int(period) / 2e6 if expected else None

    def notify(self, *assignments: str) -> None:
        """Send assignments such as `READY=1` or `STATUS=loading`. Losing one is no reason to stop serving."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.connect(self._address)
                sender.sendall("\n".join(assignments).encode())
            except OSError:
                pass
