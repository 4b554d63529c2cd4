"""Errors that a client sees, in the shape that it reads. They never carry a traceback or a path of the host."""

from __future__ import annotations

from typing import Any, Callable


class HttpError(Exception):
    """An answer other than success: its status, and what the bodies of `ERROR_FORMATS` are made of.

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


def _openai(error: HttpError) -> dict[str, Any]:
    """Return `{"error": {message, type, param, code}}`."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _fastapi(error: HttpError) -> dict[str, Any]:
    """Return `{"detail": message}`, as FastAPI answers an `HTTPException`.

    With 422 it is a list, as FastAPI answers a failed validation: clients generated from its OpenAPI document read
    nothing else with that status. What is wrong then is always the file, which is in the body.
    """
    if error.status != 422:
        return {"detail": error.message}
    place = ["body"] if error.param is None else ["body", error.param]
    return {"detail": [{"loc": place, "msg": error.message, "type": error.code}]}


# The body of an error in each of the shapes that WHISPER_ERROR_FORMAT may name.
ERROR_FORMATS: dict[str, Callable[[HttpError], dict[str, Any]]] = {"openai": _openai, "fastapi": _fastapi}


class ClientGone(Exception):
    """The client closed its connection; there is nobody left to answer."""


def invalid_value(param: str, message: str) -> HttpError:
    """Return the answer to a field whose value is not allowed."""
    return HttpError(400, message, param=param, code="invalid_value")


def shown(text: str) -> str:
    """Return text from the request as it may appear in a message: quoted, and not too long."""
    return repr(text if len(text) <= 64 else text[:64] + "…")
