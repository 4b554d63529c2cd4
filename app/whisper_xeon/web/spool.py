"""Uploads in memory: anonymous files (memfd) under one limit for all requests together. Nothing goes to a disk."""

from __future__ import annotations

import os
import threading
from typing import TypeVar

from whisper_xeon.web.errors import HttpError

_Held = TypeVar("_Held", bound="Reservation")


class Spool:
    """Counts the bytes of uploads and decoded audio in memory."""

    def __init__(self, limit: int):
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._used

    def reserve(self, size: int) -> None:
        """Take `size` bytes. Raises `HttpError` 503 when fewer are left."""
        with self._lock:
            if self._used + size > self._limit:
                raise HttpError(
                    503,
                    "too many uploads at the same time: try again in a few seconds",
                    code="spool_full",
                    headers={"Retry-After": "5"},
                    close=True,
                )
            self._used += size

    def release(self, size: int) -> None:
        with self._lock:
            self._used -= size


class Reservation:
    """The part of a spool that one file takes, `size` bytes so far. A context manager, which gives them back."""

    def __init__(self, spool: Spool):
        self._spool = spool
        self.size = 0

    def grow(self, size: int) -> None:
        """Grow to `size` bytes if it is smaller. Raises `HttpError` 503 when fewer are left."""
        if size > self.size:
            self._spool.reserve(size - self.size)
            self.size = size

    def close(self) -> None:
        size, self.size = self.size, 0
        self._spool.release(size)

    def __enter__(self: _Held) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SpooledFile(Reservation):
    """One upload: `fd` is a memfd, `size` its bytes so far. Closing frees the memory."""

    def __init__(self, spool: Spool, maximum: int, too_large: HttpError):
        super().__init__(spool)
        self._maximum = maximum
        self.too_large = too_large
        self.fd = os.memfd_create("upload", os.MFD_CLOEXEC)

    def write(self, data: bytes) -> None:
        """Append. Raises `too_large` over the maximum of the file, `HttpError` 503 over the spool's."""
        if self.size + len(data) > self._maximum:
            raise self.too_large
        self.grow(self.size + len(data))
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def empty(self) -> None:
        """Forget what was written."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        super().close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()
