"""Recordings with what is said in them: bench/speech, or another directory of the same form.

A directory has `refs.json`, a list of entries, and their files in `clips/`. An entry without text is a recording in
which nobody speaks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from whisper_bench.locations import BENCH_DIR

CARRIED = BENCH_DIR / "speech"
# Twelve minutes joined out of recordings that are clips by themselves too.
COMPOSITE = "en_long.opus"
# Written without spaces between words, or with spaces that writers set as they like.
BY_CHARACTERS = frozenset({"zh", "ja", "ko"})


@dataclass(frozen=True)
class Clip:
    """One recording. `kind` is one of read, talk, phone, noisy, codeswitch, music, silence; `seconds` its length."""

    file: str
    path: Path
    language: str  # code; empty when nobody speaks
    text: str
    seconds: float
    kind: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the file's bytes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def load(directory: Path) -> list[Clip]:
    """Return every recording but the composite one. Ends the program where a file is missing."""
    entries = json.loads((directory / "refs.json").read_text(encoding="utf-8"))
    clips = [
        Clip(e["file"], directory / "clips" / e["file"], e["language"], e["text"], e["seconds"], e["kind"])
        for e in entries
        if e["file"] != COMPOSITE
    ]
    missing = [clip.file for clip in clips if not clip.path.is_file()]
    if missing:
        raise SystemExit(f"bench: {directory}/clips lacks {', '.join(missing)}, which refs.json names")
    return clips


def spoken(clips: list[Clip]) -> list[Clip]:
    """Return those in which somebody speaks."""
    return [clip for clip in clips if clip.text]


def without_speech(clips: list[Clip]) -> list[Clip]:
    """Return those in which nobody does."""
    return [clip for clip in clips if not clip.text]
