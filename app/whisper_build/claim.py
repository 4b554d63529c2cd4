"""Let one run at a time use a folder, from its first task to its end.

A file lock cannot do that: each task of a playbook runs in a process of its own, which takes its locks with it. So the
run's process is noted beside the folder; a note whose process has ended counts for nothing, and none has to be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

from whisper_build.downloads import SourceError


def claim(folder: Path, process: int) -> None:
    """Note that `process` uses `folder`, until it ends. Raises `SourceError` while another one does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.run"), "a+", encoding="ascii") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        holder, _, started = note.read().partition(" ")
        if holder not in ("", str(process)) and _started(int(holder)) == started:
            raise SourceError(
                f"another build (process {holder}) uses {folder}: wait for it to end, or give this one a folder of "
                "its own (artifact_build_context_dir)"
            )
        note.truncate(0)
        note.write(f"{process} {_started(process)}")


def _started(process: int) -> str | None:
    """When a process started, which tells it from a later one of the same number; None if there is none."""
    with contextlib.suppress(OSError):
        # The name, in parentheses, may hold blanks; the start is the 20th field after it (proc(5)).
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return None
