"""`make bench-reliability`: what the service and its releases withstand, as figures; writes bench/RELIABILITY.md.

A row is a module of this package, in the order of `ROWS`. It has

    TITLE     what is done, and to what, in words
    GOAL      what must come out of it, in words
    TODAY     what came out of it before (issue "Trust"), in words
    measure   (seconds: float) -> Row: do it for about so many seconds, and say what came out

and may have `SECONDS`, how long it takes by default (60). A row starts what it needs and ends it; it talks to addresses
of this machine only. `python -m whisper_bench.reliability --row NAME` measures one and leaves the others as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

# The module names, in the order of the report.
ROWS: tuple[str, ...] = ("connections", "decoders", "stalled_uploads", "memory_bombs")


@dataclass(frozen=True)
class Row:
    """What came out of a row: `measured` in words, whether that meets the goal, and `notes` that explain it."""

    measured: str
    met: bool
    notes: str = ""
