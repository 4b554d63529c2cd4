"""The figures of `make bench` as they are kept: the value of every round, by section, with where they come from."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from whisper_bench.provenance import commit, origin

SECTIONS = ("library", "medium", "requests", "behind", "memory", "overhead")


class Results:
    """results.json: sections, each measured as a whole; one that is not measured again stays as it was."""

    def __init__(self, path: Path):
        """Read the file if it exists; sections that are not in `SECTIONS` any more are dropped."""
        self._path = path
        self._commit = commit()
        self._run = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self.sections: dict[str, dict[str, Any]] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.sections = {name: kept[name] for name in SECTIONS if name in kept}

    def begin(self, section: str) -> None:
        """Start a section again from nothing."""
        self._begun = time.monotonic()
        self._section = self.sections[section] = {
            "origin": origin(),
            "run": self._run,
            "commit": self._commit,
            "notes": {},
            "texts": {},
            "figures": {},
        }

    def add(self, figure: str, system: str, value: float) -> None:
        """Add the value of one round."""
        self._section["figures"].setdefault(figure, {}).setdefault(system, []).append(round(value, 4))

    def note(self, name: str, value: str) -> None:
        """Keep something that is not a figure."""
        self._section["notes"][name] = value

    def add_text(self, model: str, system: str, text: str) -> None:
        """Keep what a system transcribed; the measurement ends if another system's text differs."""
        texts = self._section["texts"].setdefault(model, {})
        texts[system] = " ".join(text.split())
        if len(set(texts.values())) > 1:
            raise SystemExit(f"bench: the systems transcribed different texts: {texts}")

    def save(self) -> None:
        """Write the file; the section that was begun last is complete."""
        self._section["seconds"] = round(time.monotonic() - self._begun)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.sections, indent=1, ensure_ascii=False, sort_keys=True)
        self._path.write_text(text + "\n", encoding="utf-8")

    def figures(self, figure: str) -> dict[str, list[float]]:
        """Return the values of every system."""
        return {
            system: values
            for section in self.sections.values()
            for system, values in section["figures"].get(figure, {}).items()
        }

    def notes(self) -> dict[str, str]:
        """Return all notes."""
        return {name: value for section in self.sections.values() for name, value in section["notes"].items()}

    def ratio(self, figure: str, one: str, other: str) -> float | None:
        """Return the median of one system's value over the other's in the same round; None without both.

        If they are not `paired`, it is one's median over the other's.
        """
        found = self.figures(figure)
        if one not in found or other not in found:
            return None
        if self.paired(figure, one, other):
            return statistics.median(a / b for a, b in zip(found[one], found[other]))
        return statistics.median(found[one]) / statistics.median(found[other])

    def paired(self, figure: str, one: str, other: str) -> bool:
        """Return whether both were measured in the same rounds."""
        found = self.figures(figure)
        return len(found[one]) == len(found[other])
