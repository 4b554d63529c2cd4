"""The file with the API keys: whose they are, what each of them may have, and when the file has changed.

A line is a key, or `sha256:` and the key's digest, and what goes with it: `name=`, `priority=`, and limits by the name
of what they limit. A line that begins with `# ` is a comment.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import threading
import time
from pathlib import Path

from whisper_xeon.logs import log
from whisper_xeon.settings import SettingsError
from whisper_xeon.shares import Caller

_MAX_BYTES = 1 << 20
_LOOK_SECONDS = 1.0  # between two looks whether the file has changed
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,6}")
_PRIORITIES = {"low": -1, "normal": 0, "high": 1}
_UNITS = {"connections": 1, "uploads": 1, "decoders": 1, "queue": 1, "spool_mb": 1 << 20}
_ALLOWED = f"name=, priority={'|'.join(_PRIORITIES)}, {', '.join(f'{name}=' for name in _UNITS)}"

KEY = "key "  # before the name of a key, in the `id` of its caller
Keys = dict[bytes, Caller]  # by SHA-256 of the key


class KeyFile:
    """The keys of a file, as they are now. Its methods may be called from any thread."""

    def __init__(self, path: Path):
        """Read the file. Raises `SettingsError`, one line that says what is wrong with it."""
        self._path = path
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._keys, self._version = _read(path)

    def current(self) -> Keys:
        """Return the keys; after a change that cannot be used, those from before it."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._looked_at = now
                self._look()
            finally:
                self._lock.release()
        return self._keys

    def _look(self) -> None:
        try:
            version = _version(self._path.stat())
        except OSError:  # between a removal and what replaces it
            return
        if version == self._version:
            return
        self._version = version  # what is wrong with it is told once
        try:
            self._keys, self._version = _read(self._path)
        except SettingsError as error:
            log(logging.ERROR, "the API keys did not change", reason=str(error))
        else:
            log(logging.INFO, "API keys read again", keys=len(self._keys))


_Version = tuple[int, int, int]


def _version(status: os.stat_result) -> _Version:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> tuple[Keys, _Version]:
    try:
        # A pipe without a writer must not hold up the start.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as stream:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _wrong(path, "it is not a regular file")
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"WHISPER_API_KEY_FILE='{path}' cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise _wrong(path, f"it is larger than {_MAX_BYTES >> 20} MiB")
    try:
        return parse_keys(content), _version(status)
    except ValueError as error:
        raise _wrong(path, str(error)) from None


def _wrong(path: Path, what: str) -> SettingsError:
    return SettingsError(f"WHISPER_API_KEY_FILE='{path}' is not allowed: {what}; it must have one API key per line")


def parse_keys(content: bytes) -> Keys:
    """Return the callers of a file's content. Raises `ValueError`, which names the line and never what is in it."""
    keys: Keys = {}
    said: dict[str, tuple[object, int]] = {}  # of each caller, and on which line
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words or words[0] == b"#":
            continue
        try:
            key, *rest = (word.decode("ascii") for word in words)
            if not all(word.isprintable() for word in (key, *rest)):
                raise ValueError("it has unprintable characters")
            digest, caller = _digest(key), _caller(_digest(key), rest)
        except UnicodeDecodeError:
            raise ValueError(f"line {number}: it has characters that are not ASCII") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if digest in keys and keys[digest] != caller:
            raise ValueError(f"line {number}: duplicate key of another name")
        same = (sorted(caller.limits.items()), caller.priority)
        before, where = said.setdefault(caller.id, (same, number))
        if before != same:
            raise ValueError(f"line {number}: limits or priority differ from those of this name on line {where}")
        keys[digest] = caller
    if not keys:
        raise ValueError("it has no key")
    return keys


def _digest(key: str) -> bytes:
    if key.startswith("#"):
        raise ValueError("a comment begins with # and a space")
    if key.startswith("sha256:"):
        match = _DIGEST.fullmatch(key)
        if not match:
            raise ValueError("sha256: must be followed by 64 hexadecimal digits")
        return bytes.fromhex(match[1])
    return hashlib.sha256(key.encode("ascii")).digest()


def _caller(digest: bytes, words: list[str]) -> Caller:
    limits: dict[str, int] = {}
    name, priority, seen = f"key-{digest.hex()[:8]}", "normal", set()
    for word in words:
        option, _, value = word.partition("=")
        if option in seen:
            raise ValueError(f"duplicate {option}=")
        seen.add(option)
        if option == "name" and _NAME.fullmatch(value):
            name = value
        elif option == "priority" and value in _PRIORITIES:
            priority = value
        elif option in _UNITS and _NUMBER.fullmatch(value):
            limits[option.removesuffix("_mb")] = int(value) * _UNITS[option]
        elif option in ("name", "priority", *_UNITS):
            raise ValueError(f"the value of {option}= is not allowed")
        else:
            raise ValueError(f"after the key, a space and nothing but {_ALLOWED} are allowed")
    return Caller(KEY + name, limits, _PRIORITIES[priority], capped=False)
