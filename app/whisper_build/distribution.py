"""Fill `dist/`: put each exported package in place by a rename, and tell whether it is still current.

A package in `dist/` is the old one or the new one, never a mix, and has always been verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_package.errors import PackageError
from whisper_package.models import package_directory
from whisper_package.package import Package

_STAMP = ".build.json"


@dataclass(frozen=True)
class Built:
    """One package in `dist/`."""

    model: str
    path: Path
    release_id: str


class Distribution:
    """The directory of the packages, and a note of the inputs that they were built from."""

    def __init__(self, directory: Path, models: list[str]):
        """Manage the packages of `models` in `directory`. Raises `PackageError` for what cannot be a model's name."""
        self.directory = directory
        self.package_directories = {model: package_directory(model) for model in models}

    def outdated(self, inputs_sha256: str | None) -> list[str]:
        """Return, as messages, why the packages must be built or exported again; empty if they need not be."""
        note = self._note()
        reasons = []
        for model, name in self.package_directories.items():
            if not (self.directory / name).exists():
                reasons.append(f"{self.directory / name} is not built yet")
                continue
            try:
                package = Package.find(self.directory, model)
                package.verify()
            except PackageError as error:
                reasons.append(str(error))
                continue
            if note.get(name) != {"inputs_sha256": inputs_sha256, "manifest_sha256": package.manifest_digest}:
                reasons.append(f"{package.directory} was built from other inputs")
        return reasons

    def install(self, exported: Path, inputs_sha256: str) -> list[str]:
        """Put the packages found in `exported` in place and return the models whose package changed.

        Raises `PackageError` if one does not match its manifest; then `dist/` is unchanged.
        """
        candidates = {model: Package.find(exported, model) for model in self.package_directories}
        for candidate in candidates.values():
            candidate.verify()
        changed = []
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            note = self._note()
            for model, candidate in candidates.items():
                if not self._holds(candidate, model):
                    self._swap(candidate)
                    changed.append(model)
                note[candidate.name] = {"inputs_sha256": inputs_sha256, "manifest_sha256": candidate.manifest_digest}
            scratch = self.directory / f"{_STAMP}.new"
            scratch.write_text(json.dumps(note, sort_keys=True, indent=1) + "\n")
            scratch.replace(self.directory / _STAMP)
        return changed

    def built(self) -> list[Built]:
        """Return the packages in `dist/`, in the order of the models."""
        packages = {model: Package.find(self.directory, model) for model in self.package_directories}
        return [Built(model, package.directory, package.release_id) for model, package in packages.items()]

    def _note(self) -> dict[str, Any]:
        try:
            note = json.loads((self.directory / _STAMP).read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let builds with separate contexts fill one `dist/` one after another."""
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _holds(self, candidate: Package, model: str) -> bool:
        try:
            present = Package.find(self.directory, model)
            present.verify()
        except PackageError:
            return False
        return present.manifest_digest == candidate.manifest_digest

    def _swap(self, candidate: Package) -> None:
        target = self.directory / candidate.name
        incoming = self.directory / f".{candidate.name}.new"
        outgoing = self.directory / f".{candidate.name}.old"
        for leftover in (incoming, outgoing):
            shutil.rmtree(leftover, ignore_errors=True)
        # dist/ and the export may be on different file systems: only a rename within one is atomic.
        shutil.copytree(candidate.directory, incoming)
        Package(incoming).verify()
        if target.exists():
            target.rename(outgoing)
        incoming.rename(target)
        shutil.rmtree(outgoing, ignore_errors=True)
