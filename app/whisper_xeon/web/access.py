"""Who may transcribe: API keys, in each of the headers that clients send them in."""

from __future__ import annotations

import collections
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable

from whisper_xeon.shares import Caller
from whisper_xeon.web.errors import HttpError

# Those of clients that do not send `Authorization: Bearer`; the second is Azure's.
_KEY_HEADERS = ("x-api-key", "api-key")

_FREE = 5  # wrong keys of an address, or the same one so often, that are answered at once
_FIRST_DELAY_S = 0.1  # of the next one; each further one takes twice as long, up to:
_LONGEST_DELAY_S = 5.0
_DELAYED_AT_ONCE = 4  # of an address
_FORGET_S = 600.0  # after an address's last wrong key
_REMEMBERED = 4096  # addresses, and keys at an address
_KEYS_REMEMBERED = 64  # of an address


class Keys:
    """The API keys of a server."""

    def __init__(self, current: Callable[[], Mapping[bytes, Caller]] | None):
        """`current` returns the callers by the SHA-256 of their keys; None: everybody may."""
        self._current = current
        self._guessing = Guessing()

    def caller(self, headers: Mapping[str, str], address: str) -> Caller | None:
        """Return whose key a request from an address carries, None where everybody may.

        Raises `HttpError` 401 without a right key, and 429 where too many wrong ones are being tried. Takes longer with
        every wrong key, for keys that were never right at this address.
        """
        if self._current is None:
            return None
        callers = self._current()
        given = [hashlib.sha256(text.strip().encode("latin-1")).digest() for text in _given(headers)]
        # How long a digest takes to look up tells nothing about the key.
        found = next((digest for digest in given if digest in callers), None)
        if found is None and not given:
            raise _unauthorized()
        tried = given[0] if found is None else found
        self._guessing.wait(address, tried)
        if found is None:
            self._guessing.wrong(address, tried)
            raise _unauthorized()
        self._guessing.right(address, tried)
        return callers[found]


@dataclass
class _Attempts:
    """The wrong keys of one address."""

    times: collections.Counter[bytes] = field(default_factory=collections.Counter)  # of each, by digest
    last_at: float = 0.0
    delayed: int = 0


class Guessing:
    """Slows down who tries keys, by key and address together: a key that was right at an address never waits there."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep):
        self._sleep = sleep
        self._lock = threading.Lock()
        self._right: collections.OrderedDict[tuple[str, bytes], None] = collections.OrderedDict()
        self._wrong: collections.OrderedDict[str, _Attempts] = collections.OrderedDict()

    def wait(self, address: str, digest: bytes) -> None:
        """Take as long as this key must at this address, whether it is right or not. Raises `HttpError` 429."""
        with self._lock:
            attempts = self._attempts(address)
            seconds = _delay(attempts, digest) if attempts and (address, digest) not in self._right else 0.0
            if not attempts or not seconds:
                return
            if attempts.delayed >= _DELAYED_AT_ONCE:
                raise _too_many_attempts()
            attempts.delayed += 1
        try:
            self._sleep(seconds)
        finally:
            with self._lock:
                attempts.delayed -= 1

    def wrong(self, address: str, digest: bytes) -> None:
        """Note that a key is wrong."""
        with self._lock:
            attempts = self._wrong.setdefault(address, _Attempts())
            self._wrong.move_to_end(address)
            if digest in attempts.times or len(attempts.times) < _KEYS_REMEMBERED:
                attempts.times[digest] += 1
            attempts.last_at = time.monotonic()
            if len(self._wrong) > _REMEMBERED:
                self._wrong.popitem(last=False)

    def right(self, address: str, digest: bytes) -> None:
        """Note that a key is right."""
        with self._lock:
            self._right[address, digest] = None
            self._right.move_to_end((address, digest))
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)

    def _attempts(self, address: str) -> _Attempts | None:
        attempts = self._wrong.get(address)
        if attempts and not attempts.delayed and time.monotonic() - attempts.last_at > _FORGET_S:
            del self._wrong[address]
            return None
        return attempts


def _delay(attempts: _Attempts, digest: bytes) -> float:
    # Many keys are somebody who guesses; one key many times is a client that was not told of a new one.
    more = max(len(attempts.times), attempts.times[digest]) - _FREE
    # Not of any power: a client with an old key tries thousands of times, and no float is as large.
    return 0.0 if more < 0 else min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(more, 10))


def _unauthorized() -> HttpError:
    return HttpError(
        401,
        "this server needs an API key: send the header Authorization: Bearer <key>, or X-API-Key: <key>",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _too_many_attempts() -> HttpError:
    seconds = round(_LONGEST_DELAY_S)
    return HttpError(
        429,
        f"too many wrong API keys from this address: try again in {seconds} s",
        code="too_many_wrong_keys",
        headers={"Retry-After": str(seconds)},
        close=True,
    )


def _given(headers: Mapping[str, str]) -> list[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token] if scheme.lower() == "bearer" else []
    return [*bearer, *(headers[name] for name in _KEY_HEADERS if name in headers)]
