"""Measuring in interleaved rounds: whatever the machine does meanwhile affects every system alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any


def interleaved(names: list[str], rounds: int, once: Collection[str] = ()) -> Iterator[str]:
    """Yield each name once per round, those in `once` in the first round only; every other round runs backwards."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            if number and name in once:
                continue
            print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            yield name


class OnDemand:
    """A program that measures one round for each line that it reads, until the block ends."""

    def __init__(self, *command: str | Path | int):
        # Not in this process: library.py loads libraries as the service does, which makes OpenMP wait passively.
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> OnDemand:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def measure(self) -> dict[str, Any]:
        """Return the figures of one round."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: {' '.join(self._process.args)} ended with status {self._process.wait()}")
        return json.loads(line)
