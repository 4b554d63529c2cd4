"""Let one run at a time use a directory, from its first task to its end.

A file lock cannot do that: each task of a playbook runs in its own process, and the lock ends with it. So the run's
process is noted beside the directory; the note of a process that has ended has no effect and need not be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

from whisper_build.downloads import SourceError


def claim(directory: Path, process: int) -> None:
    """Note that `process` uses `directory` until it ends. Raises `SourceError` while another one does."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_name(f".{directory.name}.run"), "a+", encoding="ascii") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        holder, _, started = note.read().partition(" ")
        if holder not in ("", str(process)) and _started(int(holder)) == started:
            raise SourceError(
                f"another build (process {holder}) is using {directory}: wait for it to end, or set another "
                "directory for this one (artifact_build_context_dir)"
            )
        note.truncate(0)
        note.write(f"{process} {_started(process)}")


def _started(process: int) -> str | None:
    """When a process started, which distinguishes it from a later one with the same id; None if there is none."""
    with contextlib.suppress(OSError):
        # The name, in parentheses, may contain blanks; the start is the 20th field after it (proc(5)).
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return None
