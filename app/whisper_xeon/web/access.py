"""Who may transcribe: API keys, in each of the headers that clients send them in."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from whisper_xeon.web.errors import HttpError

# Those of clients that do not send `Authorization: Bearer`; the second is Azure's.
_KEY_HEADERS = ("x-api-key", "api-key")


class Keys:
    """The API keys of a server; none: everybody may."""

    def __init__(self, keys: tuple[bytes, ...]):
        self._keys = keys

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `HttpError` 401 unless the request carries a key, or there are none."""
        # Every key is compared with everything that was sent, so that the time taken tells nothing about which one was
        # close.
        given = [text.strip().encode("latin-1") for text in _given(headers)]
        matches = [hmac.compare_digest(text, key) for text in given for key in self._keys]
        if self._keys and not any(matches):
            raise HttpError(
                401,
                "this server needs an API key: send the header Authorization: Bearer <key>, or X-API-Key: <key>",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _given(headers: Mapping[str, str]) -> list[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token] if scheme.lower() == "bearer" else []
    return [*bearer, *(headers[name] for name in _KEY_HEADERS if name in headers)]
