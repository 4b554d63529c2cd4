"""Where a figure comes from: the machine, the command, the commit, and how long it took."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

from whisper_bench.locations import ROOT

# Each run writes these, which does not make the commit another one.
WRITTEN = tuple(
    f"bench/{name}"
    for name in (
        "RESULTS.md",
        "results.json",
        "plots",
        "WORDS.md",
        "words.json",
        "RELIABILITY.md",
        "reliability.json",
    )
)


def origin() -> str:
    """Return the machine and the command behind the figures, in words."""
    return f"{machine()}; made with `{_command()}`."


def machine() -> str:
    """Return the processor's name and how many of its cores may be used."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found.group(1) if found else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def commit(root: Path = ROOT) -> str:
    """Return the commit that is measured, with `-dirty` if files other than the results differ from it."""
    described = _git(root, "describe", "--always", "--abbrev=8").stdout.strip()
    changed = _git(root, "diff", "--quiet", "HEAD", "--", ".", *(f":!{path}" for path in WRITTEN)).returncode == 1
    return f"{described}-dirty" if changed else described


def duration(seconds: float) -> str:
    """Return seconds as minutes and seconds, in words."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _command() -> str:
    # With `-m NAME`, sys.argv starts with the path of the module's file, which differs from machine to machine.
    module = f"whisper_bench.{Path(sys.argv[0]).stem}".removesuffix(".__main__")
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
