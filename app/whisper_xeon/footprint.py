"""The memory of a process that hides it from others: it opens what the kernel says of it, and passes that on.

The kernel asks who may read at the opening only, so whoever is handed the descriptor reads the figure of each moment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

_ENOUGH = 1 << 16  # bytes of /proc/PID/smaps_rollup and of a list of children


def open_own(*, children: bool = False) -> list[int]:
    """Open what `Footprint` needs of this process, and with `children` of what its first thread starts.

    Where the kernel does not tell, the list is empty.
    """
    paths = ["/proc/self/smaps_rollup", *([f"/proc/self/task/{os.getpid()}/children"] if children else ())]
    descriptors: list[int] = []
    with contextlib.suppress(OSError):
        for path in paths:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return descriptors


class Footprint:
    """What `open_own` opened in a process, which may have ended. It closes the descriptors when nobody refers to it."""

    def __init__(self, descriptors: Sequence[int]):
        self._descriptors = list(descriptors)

    def __del__(self) -> None:
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def read(self) -> int | None:
        """Return the bytes of the process and of the programs it has started (PSS: shared pages in proportion).

        None where the kernel does not tell, or no longer.
        """
        if not self._descriptors:
            return None
        rollup, *children = self._descriptors
        size = _proportional_size(rollup)
        if size is None:
            return None
        return size + sum(_size_of_program(pid) for each in children for pid in _read(each).split())


def _size_of_program(pid: bytes) -> int:
    with contextlib.suppress(OSError):
        descriptor = os.open(b"/proc/%s/smaps_rollup" % pid, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _proportional_size(descriptor) or 0
        finally:
            os.close(descriptor)
    return 0


def _proportional_size(rollup: int) -> int | None:
    for line in _read(rollup).splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):  # the process has ended
        return os.pread(descriptor, _ENOUGH, 0)
    return b""
