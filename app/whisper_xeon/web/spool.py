"""Uploads in memory: anonymous files (memfd) under one limit for all requests together. Nothing goes to a disk."""

from __future__ import annotations

import os

from whisper_xeon.shares import Guest, Hold, Shares
from whisper_xeon.web.errors import HttpError


class SpooledFile(Hold):
    """One upload: `fd` is a memfd, `size` its bytes so far. Closing frees the memory."""

    def __init__(self, spool: Shares, guest: Guest, maximum: int, too_large: HttpError):
        super().__init__(spool, guest)
        self._maximum = maximum
        self.too_large = too_large
        self.size = 0
        self.fd = os.memfd_create("upload", os.MFD_CLOEXEC)

    def write(self, data: bytes) -> None:
        """Append. Raises `too_large` over the maximum of the file, `ShareError` over the spool's."""
        if self.size + len(data) > self._maximum:
            raise self.too_large
        self.grow(self.size + len(data))
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def empty(self) -> None:
        """Forget what was written."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.size = 0
        super().close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()
