"""Which names the service may be called by: against web pages that reach it by a name of their own (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.server import Application, Request, Response

_PORT = re.compile(r":[0-9]*$")


def allow_hosts(application: Application, names: Iterable[str]) -> Application:
    """Return an application that answers requests to these hosts only, and to this machine by its own names.

    `*.` before a name means every host below it.
    """
    allowed = {_plain(name) for name in names}

    def answer(request: Request) -> Response:
        host = _plain(_PORT.sub("", request.headers.get("host", "")))
        if not (host in allowed or _is_own(host) or any(f"*.{parent}" in allowed for parent in _parents(host))):
            raise HttpError(
                421,
                "this service is not known by the name in the header Host (WHISPER_ALLOWED_HOSTS)",
                code="host_not_allowed",
                close=True,
            )
        return application(request)

    return answer


def _plain(host: str) -> str:
    return host.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _parents(host: str) -> Iterable[str]:
    labels = host.split(".")
    return (".".join(labels[start:]) for start in range(1, len(labels)))


def _is_own(host: str) -> bool:
    if host in ("", "localhost"):  # HTTP/1.0 sends none, and no browser speaks that
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
