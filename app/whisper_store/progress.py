"""Progress of a download for people: a bar on a terminal, else one line for each file and each tenth of a large one."""

from __future__ import annotations

import threading
import time
from typing import TextIO

# A smaller file is done before anyone asks for its progress.
_LARGE = 32 << 20
_REDRAW_S = 0.2
_WIDTH = 30


class Progress:
    """Counts the bytes of one package and writes to `stream`. It may be shared between threads."""

    def __init__(self, total: int, stream: TextIO):
        """`total` is the number of bytes still to come."""
        self._total = total
        self._stream = stream
        self._terminal = stream.isatty()
        self._lock = threading.Lock()
        self._done = 0
        self._file = ""
        self._file_size = 0
        self._file_done = 0
        self._drawn = 0.0

    def start_file(self, path: str, size: int, present: int = 0) -> None:
        """Begin a file of which `present` bytes are already here."""
        with self._lock:
            self._file, self._file_size, self._file_done = path, size, present
            if self._terminal:
                self._draw()
            else:
                resumed = f", {_size(present)} already here" if present else ""
                self._line(f"{path} ({_size(size)}{resumed})")

    def add(self, count: int) -> None:
        """Count bytes of the current file."""
        with self._lock:
            before = self._file_done
            self._done += count
            self._file_done += count
            if self._terminal:
                if time.monotonic() - self._drawn > _REDRAW_S:
                    self._draw()
            elif self._file_size >= _LARGE:
                tenth = self._file_done * 10 // self._file_size
                if tenth > before * 10 // self._file_size:
                    self._line(f"{self._file} {tenth * 10} %")

    def finish(self) -> None:
        """End the terminal's line."""
        if self._terminal:
            with self._lock:
                self._draw()
                self._stream.write("\n")
                self._stream.flush()

    def note(self, text: str) -> None:
        """Write a separate line."""
        with self._lock:
            self._line(f"\r\033[K{text}" if self._terminal else text)

    def _draw(self) -> None:
        share = min(1.0, self._done / self._total) if self._total else 1.0
        bar = ("#" * int(share * _WIDTH)).ljust(_WIDTH)
        self._stream.write(f"\r\033[K[{bar}] {share:4.0%} {_size(self._done)} of {_size(self._total)}  {self._file}")
        self._stream.flush()
        self._drawn = time.monotonic()

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
