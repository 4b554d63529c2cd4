"""Structured log lines on standard error: one JSON object per line.

They never contain what a request said or what its file was called: callers pass figures and identifiers only.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

logger = logging.getLogger("whisper_xeon")

_SYSLOG_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


class Log(Protocol):
    """The type of `log`, for code that is given one."""

    def __call__(self, level: int, event: str, /, **fields: Any) -> None:
        """Write one line: `event` in a few words, `fields` as its data."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, event, then the record's `fields`."""

    def __init__(self, *, journal: bool):
        """`journal`: prefix each line with `<N>`, which tells journald the priority."""
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=str)
        return f"<{_SYSLOG_PRIORITY.get(record.levelno, 6)}>{text}" if self._journal else text


def configure(level: str, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Send log lines of at least `level` (debug, info, warning, error) to `stream`, standard error by default."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(journal=_is_journal(stream, environ)))
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def log(level: int, event: str, /, **fields: Any) -> None:
    """Write one line: `event` in a few words, `fields` as its data."""
    logger.log(level, "%s", event, extra={"fields": fields})
