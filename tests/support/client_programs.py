"""Runs the programs of tests/clients, which `scripts/setup.sh --clients` installed, and reads what they print."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from paths import ROOT

CLIENTS = ROOT / "tests" / "clients"
MADE = ROOT / ".build" / "clients"
TOOLS = MADE / "tools" / "bin"


def words(text: str) -> list[str]:
    """Return the words of a text, without case and punctuation."""
    return "".join(letter.lower() if letter.isalnum() else " " for letter in text).split()


# What the clip of the package's self-test says, however it is punctuated.
WORDS = words(
    "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
)


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 120, **environment: str) -> str:
    """Run a client to its end and return what it printed; what it complained about is in the failure."""
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    said = finished.stdout + finished.stderr
    assert finished.returncode == 0, f"{command[0]} ended with {finished.returncode}\n{said}"
    return finished.stdout


def run_json(*command: str | Path, **options: Any) -> Any:
    """Run a client that prints one JSON document last."""
    return json.loads(run(*command, **options).splitlines()[-1])
