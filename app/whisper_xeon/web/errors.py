"""Errors that a client sees, in the shape of OpenAI's API. They never carry a traceback or a path of the host."""

from __future__ import annotations

from typing import Any


class HttpError(Exception):
    """An answer other than success: its status and the four fields of OpenAI's error object.

    `close` ends the connection after the answer, for a request whose end cannot be found any more.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}
        self.close = close

    def body(self) -> dict[str, Any]:
        """Return `{"error": {message, type, param, code}}`."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class ClientGone(Exception):
    """The client closed its connection; there is nobody left to answer."""


def invalid_value(param: str, message: str) -> HttpError:
    """Return the answer to a field whose value is not allowed."""
    return HttpError(400, message, param=param, code="invalid_value")


def shown(text: str) -> str:
    """Return text from the request as it may appear in a message: quoted, and not too long."""
    return repr(text if len(text) <= 64 else text[:64] + "…")
