"""What a client gets when there is nothing left for it: of what callers share, of files, or of memory."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator

from whisper_xeon.logs import log
from whisper_xeon.shares import OverLimit, SentAway, ShareError
from whisper_xeon.web.connection_slots import STOPPING
from whisper_xeon.web.errors import HttpError

_STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN)
# By the name of what is shared: code, what there is too much of, and when to come back, in seconds.
SHARED = {
    "connections": ("too_many_connections", "connections", 1),
    "uploads": ("too_many_uploads", "uploads at the same time", 5),
    "spool": ("spool_full", "uploads at the same time", 5),
    "decoders": ("overloaded", "files being decoded", 5),
    "queue": ("queue_full", "requests waiting", 5),
}


def overload(error: ShareError) -> HttpError:
    """Return the answer to a request that does not get its share."""
    if error.share == STOPPING:
        return HttpError(
            503,
            "no engine is available: the service is stopping, and this upload paused or took too long",
            code="engine_unavailable",
            headers={"Retry-After": "5"},
            close=True,
        )
    code, what, seconds = SHARED[error.share]
    status, message = 503, f"too many {what}: try again in {seconds} s"
    if isinstance(error, SentAway):
        message = f"too many {what}, and another caller has fewer: try again in {seconds} s"
    elif isinstance(error, OverLimit):
        status, code = 429, "limit_reached"
        message = f"this caller has as many {what} as it may: try again in {seconds} s"
    return HttpError(status, message, code=code, headers={"Retry-After": str(seconds)}, close=True)


def is_starved(error: OSError) -> bool:
    """Whether files or memory are all in use."""
    return error.errno in _STARVED


@contextlib.contextmanager
def overloads_answered() -> Iterator[None]:
    """Turn what is raised in the block for want of anything into `HttpError`."""
    try:
        yield
    except ShareError as error:
        raise overload(error) from error
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and not is_starved(error):
            raise
        log(logging.ERROR, "out of files or memory", reason=str(error) or "no memory")
        raise HttpError(
            503,
            "this server is out of files or memory: try again in a few seconds",
            code="overloaded",
            headers={"Retry-After": "5"},
            close=True,
        ) from error
