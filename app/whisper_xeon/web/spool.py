"""Uploads in memory: anonymous files (memfd) under one limit for all requests together. Nothing reaches a disk."""

from __future__ import annotations

import os
import threading

from whisper_xeon.web.errors import HttpError


class Spool:
    """Counts the bytes that uploads and decoded audio hold in memory."""

    def __init__(self, limit: int):
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._used

    def reserve(self, size: int) -> None:
        """Take `size` bytes. Raises 503 when that is more than is left."""
        with self._lock:
            if self._used + size > self._limit:
                raise HttpError(
                    503,
                    "too many uploads at the same time: try again soon",
                    code="spool_full",
                    headers={"Retry-After": "5"},
                    close=True,
                )
            self._used += size

    def release(self, size: int) -> None:
        with self._lock:
            self._used -= size


class SpooledFile:
    """One upload: `fd` is a memfd, `size` its bytes so far. A context manager; closing frees the memory."""

    def __init__(self, spool: Spool, maximum: int, too_large: HttpError):
        self._spool = spool
        self._maximum = maximum
        self._too_large = too_large
        self.size = 0
        self.fd = os.memfd_create("upload", os.MFD_CLOEXEC)

    def write(self, data: bytes) -> None:
        """Append. Raises `too_large` over the file's own maximum, 503 over the spool's."""
        if self.size + len(data) > self._maximum:
            raise self._too_large
        self._spool.reserve(len(data))
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self._spool.release(self.size)
            self.fd, self.size = -1, 0

    def __enter__(self) -> SpooledFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
