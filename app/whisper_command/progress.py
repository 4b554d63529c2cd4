"""Says how far a run is: a line for each file, or on a terminal one line that is written again."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

_CLEAR = "\r\x1b[K"


class Progress:
    """Counts files and their bytes. All methods may be called from any thread."""

    def __init__(self, files: int, size: int, *, quiet: bool, output: TextIO = sys.stderr):
        """`files` are to be done, of `size` bytes together; `quiet` writes problems only."""
        self._files, self._size = files, size
        self._done = self._done_size = 0
        self._begun = time.monotonic()
        self._quiet, self._output = quiet, output
        self._live = output.isatty() and not quiet
        self._lock = threading.Lock()
        self._show()

    def finished(self, what: str, size: int, problem: str = "") -> None:
        """Count a file; say what went wrong with it."""
        with self._lock:
            self._done += 1
            self._done_size += size
            if problem:
                self._write(f"{what}: {problem}")
            elif not self._quiet and not self._live:
                self._write(f"{what} ({self._position()})")
            self._show()

    def say(self, line: str) -> None:
        """Write a line."""
        with self._lock:
            if not self._quiet:
                self._write(line)
            self._show()

    def end(self) -> None:
        """Take the line of a terminal away."""
        with self._lock:
            if self._live:
                self._output.write(_CLEAR)
                self._output.flush()

    def _write(self, line: str) -> None:
        self._output.write(f"{_CLEAR if self._live else ''}whisper-xeon: {line}\n")
        self._output.flush()

    def _show(self) -> None:
        if self._live:
            self._output.write(f"{_CLEAR}{self._position()}")
            self._output.flush()

    def _position(self) -> str:
        position = f"{self._done} of {self._files} files"
        # Bytes stand for audio: how long each file is, nobody knows before it is decoded.
        if 0 < self._done_size < self._size:
            left = (time.monotonic() - self._begun) * (self._size - self._done_size) / self._done_size
            position += f", {_duration(left)} left"
        return position


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
