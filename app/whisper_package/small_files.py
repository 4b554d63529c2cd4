"""Files that people name in settings: keys and credentials. They are short, and no other kind of file is read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST = 256 << 10


def read_small(path: os.PathLike[str] | str, most: int = MOST) -> bytes:
    """Return the bytes of a regular file that has no more than `most` of them: a FIFO would block, a device never end.

    Raises OSError, with the reason in `strerror`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL in the name
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path)) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = os.read(descriptor, most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 10} kB", str(path))
    return data


def text_of(path: Path | str) -> str:
    """Return the text of such a file, without blanks around it. Raises OSError."""
    try:
        return read_small(path).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8 text", str(path)) from None
