"""What the processes of the service tell the kernel and libc about themselves."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 256 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have this process killed when its parent, given by process id, ends; end it now if that has already happened."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: bytes) -> None:
    """Appear as `name` in lists of processes."""
    _prctl(_PR_SET_NAME, name)


def adopt_orphans() -> None:
    """Become the parent of every process below this one that loses its own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def return_memory() -> None:
    """Have glibc return large blocks to the system when they are freed.

    By default it raises the threshold for that to the size of the largest block freed so far, up to 32 MiB, and a
    process keeps the memory that its longest audio took.
    """
    # int mallopt(int param, int value)
    if not _libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES):
        raise OSError("mallopt failed")


def _prctl(option: int, value: Any) -> None:
    # int prctl(int option, unsigned long arg2, …)
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
