"""What there is to do: which files of the paths that were named, and where each transcript goes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from whisper_command.errors import UsageError
from whisper_xeon.audio.file_types import ACCEPTED

# The suffix of each format's file.
SUFFIXES = {"txt": ".txt", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv", "json": ".json"}

_LISTED = frozenset(
    f".{name}" for name in (*ACCEPTED.replace(" or ", " ").replace(",", "").split(), "oga", "m4b", "mpeg", "aif")
)


@dataclass(frozen=True)
class Task:
    """A recording, its size in bytes, and where each format of its transcript goes."""

    source: Path
    size: int
    targets: dict[str, Path]

    @property
    def done(self) -> bool:
        """Whether every transcript exists and is not older than the recording."""
        try:
            made = self.source.stat().st_mtime
            return all(target.stat().st_mtime >= made for target in self.targets.values())
        except OSError:
            return False

    def write(self, contents: dict[str, bytes]) -> None:
        """Put the transcripts where they go: each appears complete, or not at all. Raises `OSError`."""
        for name, target in self.targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            try:
                part.write_bytes(contents[name])
                part.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise


def tasks(paths: Iterable[Path], formats: Iterable[str], output: Path | None) -> list[Task]:
    """Return what there is to do for files and, with all below them, directories.

    A transcript goes beside its recording, or to the same place below `output`, under the recording's name with
    another suffix; where two recordings would share that name, each keeps its own suffix too. Raises `UsageError`.
    """
    found: dict[Path, Path] = {}  # recording -> directory of its transcripts
    for path in paths:
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                for file in _recordings(path):
                    found.setdefault(file, (output / file.parent.relative_to(path)) if output else file.parent)
            else:
                found.setdefault(path, output or path.parent)
        except FileNotFoundError:
            raise UsageError(f"{path} does not exist") from None
        except OSError as error:
            raise UsageError(f"{str(path)[:200]} cannot be read: {error.strerror}") from None
    if not found:
        raise UsageError("there is no recording in what was named: its suffix must be one of " + ACCEPTED)
    shared = Counter(directory / file.stem for file, directory in found.items())
    made = [
        Task(file, file.stat().st_size, {name: _target(file, directory, SUFFIXES[name], shared) for name in formats})
        for file, directory in found.items()
    ]
    owners: dict[Path, Path] = {}
    for task in made:
        for target in task.targets.values():
            other = owners.setdefault(target, task.source)
            if other != task.source:
                raise UsageError(
                    f"{other} and {task.source} would both become {target}: name another --output-dir for one of them, "
                    "or the directory above both"
                )
    return made


def _target(file: Path, directory: Path, suffix: str, shared: Counter[Path]) -> Path:
    return directory / ((file.stem if shared[directory / file.stem] == 1 else file.name) + suffix)


def _recordings(directory: Path) -> Iterator[Path]:
    """Yield the recordings in a directory and below, in the order of their names; hidden ones are left out."""
    for where, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            file = Path(where, name)
            # A link that leads nowhere is not a recording.
            if not name.startswith(".") and file.suffix.lower() in _LISTED and file.is_file():
                yield file
