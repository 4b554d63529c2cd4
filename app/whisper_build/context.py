"""Keep a Docker build context exactly equal to a description of it, touching only what differs.

It removes whatever the description does not name, so it rejects a directory that it did not create itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from whisper_build.downloads import SourceError
from whisper_package.digests import file_digest

_MARK = "build.json"
# Larger files are hard links where the file system allows it, to save a second copy of a model.
_LINK_BYTES = 16 << 20


class BuildContext:
    """A directory described by files (`relative path -> source path`), trees of files, texts and empty directories."""

    def __init__(
        self,
        directory: Path,
        *,
        files: dict[str, Path],
        trees: dict[str, Path],
        texts: dict[str, str],
        directories: list[str],
    ):
        """Describe the context in `directory`; `texts` must contain build.json, by which it is recognised."""
        self.directory = directory
        self.texts = {relative: text.encode("utf-8") for relative, text in texts.items()}
        self.directories = directories
        self.files = dict(files)
        for relative, tree in trees.items():
            self.files.update({f"{relative}/{path}": tree / path for path in _regular_files(tree)})
        if _MARK not in self.texts:
            raise SourceError(f"a build context must contain {_MARK}")

    def differences(self) -> list[str]:
        """Return the relative paths that are missing, different or not part of the context."""
        present = set(_regular_files(self.directory))
        different = (present - self.files.keys() - self.texts.keys()) | {
            relative for relative in self.directories if not (self.directory / relative).is_dir()
        }
        for relative, source in self.files.items():
            if relative not in present or not _same_file(source, self.directory / relative):
                different.add(relative)
        for relative, content in self.texts.items():
            if relative not in present or (self.directory / relative).read_bytes() != content:
                different.add(relative)
        return sorted(different)

    def apply(self, differences: list[str]) -> None:
        """Bring the named paths in line with the description. Raises `SourceError`."""
        if self.directory.is_dir() and any(self.directory.iterdir()) and not (self.directory / _MARK).is_file():
            raise SourceError(
                f"{self.directory} contains other files and no {_MARK}: "
                "choose an empty directory for artifact_build_context_dir"
            )
        for relative in [_MARK, *differences]:
            target = self.directory / relative
            if relative in self.directories:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.unlink(missing_ok=True)
            if relative in self.texts:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.texts[relative])
                target.chmod(0o644)
            elif relative in self.files:
                target.parent.mkdir(parents=True, exist_ok=True)
                _place(self.files[relative], target)

    def digest(self, known: dict[str, str]) -> str:
        """Return the SHA-256 (hex) over path, executable bit and content of everything described.

        `known` has the SHA-256 of files (by their path in the context) that are too large to be read again.
        """
        lines = [f"{hashlib.sha256(content).hexdigest()} - {relative}\n" for relative, content in self.texts.items()]
        lines += [
            f"{known.get(relative) or file_digest(source)} {'x' if os.access(source, os.X_OK) else '-'} {relative}\n"
            for relative, source in self.files.items()
        ]
        return hashlib.sha256("".join(sorted(lines)).encode("utf-8")).hexdigest()


def _same_file(source: Path, target: Path) -> bool:
    wanted, found = source.stat(), target.lstat()
    if (wanted.st_dev, wanted.st_ino) == (found.st_dev, found.st_ino):
        return True
    return (
        wanted.st_size == found.st_size
        and bool(wanted.st_mode & 0o100) == bool(found.st_mode & 0o100)
        and file_digest(source) == file_digest(target)
    )


def _place(source: Path, target: Path) -> None:
    if source.stat().st_size >= _LINK_BYTES:
        try:
            os.link(source, target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)
    # Modes are part of what Docker caches by, so they must not depend on a umask.
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _regular_files(root: Path) -> Iterator[str]:
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(name for name in subdirectories if name != "__pycache__")
        for name in sorted(names):
            yield (Path(directory) / name).relative_to(root).as_posix()
