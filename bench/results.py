"""The figures of `make bench` as they are kept: every round's value, by section, with what they were measured on."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import packages
from service import origin

# Written by every run, which is not what makes a commit another one.
WRITTEN = ("bench/RESULTS.md", "bench/results.json", "bench/plots")


def commit() -> str:
    """Return the commit that is measured, with `-dirty` where files that matter differ from it."""
    described = _git("describe", "--always", "--abbrev=8").stdout.strip()
    changed = _git("diff", "--quiet", "HEAD", "--", ".", *(f":!{path}" for path in WRITTEN)).returncode == 1
    return f"{described}-dirty" if changed else described


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=packages.ROOT, capture_output=True, text=True, check=False)


class Results:
    """results.json: sections, each measured as a whole; one that is not measured again stays as it was."""

    def __init__(self, path: Path, sections: Collection[str]):
        """`sections` are all there are: what the file has of others is dropped."""
        self._path = path
        self._commit = commit()
        self._run = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self.sections: dict[str, dict[str, Any]] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.sections = {name: kept[name] for name in sections if name in kept}

    def begin(self, section: str) -> None:
        """Start a section anew."""
        self._begun = time.monotonic()
        self._section = self.sections[section] = {
            "origin": origin(),
            "run": self._run,
            "commit": self._commit,
            "notes": {},
            "texts": {},
            "figures": {},
        }

    def add(self, figure: str, contestant: str, value: float) -> None:
        """Add the value of one round."""
        self._section["figures"].setdefault(figure, {}).setdefault(contestant, []).append(round(value, 4))

    def note(self, name: str, value: str) -> None:
        """Keep something that is no figure."""
        self._section["notes"][name] = value

    def heard(self, model: str, contestant: str, text: str) -> None:
        """Keep what a contestant heard; all have to hear the same."""
        texts = self._section["texts"].setdefault(model, {})
        texts[contestant] = " ".join(text.split())
        if len(set(texts.values())) > 1:
            raise SystemExit(f"bench: the contestants heard different texts: {texts}")

    def save(self) -> None:
        """Write the file: the section that was begun last is measured."""
        self._section["seconds"] = round(time.monotonic() - self._begun)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.sections, indent=1, ensure_ascii=False, sort_keys=True)
        self._path.write_text(text + "\n", encoding="utf-8")

    def figures(self, figure: str) -> dict[str, list[float]]:
        """Return the values of every contestant."""
        return {
            contestant: values
            for section in self.sections.values()
            for contestant, values in section["figures"].get(figure, {}).items()
        }

    def notes(self) -> dict[str, str]:
        """Return all notes."""
        return {name: value for section in self.sections.values() for name, value in section["notes"].items()}

    def ratio(self, figure: str, one: str, other: str) -> float | None:
        """Return the median of one contestant's value over the other's in the same round; None without both.

        Where they are not `paired` it is one's median over the other's.
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
