"""Cross-origin requests: which web pages may call the service from a browser (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.server import Application, Request, Response

_EXPOSED = ", ".join(
    (
        *("X-Request-Id", "X-Whisper-Model", "X-Whisper-Release", "X-Whisper-Language", "X-Whisper-Ignored"),
        *("X-Whisper-Error", "Server-Timing", "Retry-After"),
    )
)
_MAX_AGE = "86400"


def allow_origins(application: Application, origins: Collection[str]) -> Application:
    """Return an application that lets pages of `origins` read its answers; `*` stands for all."""

    def answer(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is None:
            return application(request)
        # Answers differ by origin, and a cache must not give one page what was meant for another.
        headers = {"Vary": "Origin"}
        if "*" in origins or origin in origins:
            headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
            if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
                return Response(204, b"", headers={**headers, **_preflight(request.headers)})
            headers["Access-Control-Expose-Headers"] = _EXPOSED
        begin = request.begin
        request.begin = lambda own: begin({**headers, **own})
        try:
            response = application(request)
        except HttpError as error:
            error.headers = {**headers, **error.headers}
            raise
        response.headers = {**headers, **response.headers}
        return response

    return answer


def _preflight(headers: Mapping[str, str]) -> dict[str, str]:
    # Keys are sent in headers of the page's choosing and never by the browser itself, so any may be sent.
    asked = headers.get("access-control-request-headers")
    private = headers.get("access-control-request-private-network") == "true"
    return {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Max-Age": _MAX_AGE,
        **({"Access-Control-Allow-Headers": asked} if asked else {}),
        **({"Access-Control-Allow-Private-Network": "true"} if private else {}),
    }
