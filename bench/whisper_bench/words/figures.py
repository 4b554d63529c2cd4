"""words.json: what was measured of each set of recordings, part by part, with where it comes from."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from whisper_bench.provenance import commit, machine

PARTS = ("words", "silence", "detection", "languages", "times", "cost")
# What the repository carries, and all that was at hand where WORDS.md was written.
SETS = ("carried", "all")


class Figures:
    """A part that is not measured again stays as it was."""

    def __init__(self, path: Path):
        """Read the file if it exists."""
        self._path = path
        self._found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def add(self, which: str, part: str, figures: dict[str, Any], versions: dict[str, str]) -> None:
        """Keep the figures of a part of one of `SETS`, and write the file."""
        now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        origin = {"commit": commit(), "machine": machine(), "time": now, "versions": versions}
        self._found.setdefault(which, {})[part] = {**figures, "origin": origin}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._found, indent=1, ensure_ascii=False, default=dataclasses.astuple)
        self._path.write_text(text + "\n", encoding="utf-8")
        self._found = json.loads(text)

    def of(self, which: str, part: str) -> dict[str, Any] | None:
        """Return what is known of a part, None if it was never measured."""
        return self._found.get(which, {}).get(part)
