"""The one way in which tests run `ansible-playbook`, and how a run ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paths import ROOT

INVENTORY = ROOT / "tests" / "inventory"
BUILD = ROOT / ".build" / "test"


@dataclass(frozen=True)
class Play:
    """How a run of a playbook ended."""

    returncode: int
    output: str  # standard error in it

    @property
    def said(self) -> str:
        """The output on one line, for messages that Ansible wraps."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        """Number of changes on all hosts, from the recap."""
        counts = re.findall(r"\bok=\d+ +changed=(\d+)", self.output)
        assert counts, f"the run was for no host:\n{self.output}"
        return sum(map(int, counts))


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep other workers of pytest-xdist from what two must not do at once: make images, packages, networks."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def playbook_process(
    playbook: Path | str, *arguments: str, inventory: Path | str, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the arguments of `subprocess` that run a playbook from the repository's root, with one output."""
    return {
        "args": ["ansible-playbook", "-i", str(inventory), str(playbook), *arguments],
        "cwd": ROOT,
        # PWD as a shell would set it: folders that are relative are meant from there.
        "env": {**os.environ, "PWD": str(ROOT), "ANSIBLE_NOCOLOR": "1", **(env or {})},
        "stdin": subprocess.DEVNULL,
        "stderr": subprocess.STDOUT,
    }


def run_playbook(
    playbook: Path | str,
    *arguments: str,
    inventory: Path | str = INVENTORY,
    check: bool = True,
    env: dict[str, str] | None = None,
    timeout: float = 2400,
) -> Play:
    """Run a playbook from the repository's root.

    With `check` a failed run fails the test with the last 20,000 characters of the output. `timeout` is in seconds.
    """
    how = playbook_process(playbook, *arguments, inventory=inventory, env=env)
    result = subprocess.run(**how, stdout=subprocess.PIPE, text=True, timeout=timeout)
    if check and result.returncode:
        pytest.fail(f"{' '.join(result.args)} ended with {result.returncode}:\n{result.stdout[-20000:]}", pytrace=False)
    return Play(result.returncode, result.stdout)


def run_build(
    folder: Path, *arguments: str, check: bool = True, env: dict[str, str] | None = None, **variables
) -> Play:
    """Build `small`, or what `variables` ask for, without publishing: in `folder/work/context`, into `folder/dist`."""
    own = {
        "artifact_build_models": ["small"],
        "artifact_build_dist_dir": str(folder / "dist"),
        "artifact_build_context_dir": str(folder / "work" / "context"),
    }
    with one_at_a_time():
        return run_playbook(
            "build.yml",
            "--skip-tags",
            "publish",
            "-e",
            json.dumps({**own, **variables}),
            *arguments,
            check=check,
            env=env,
        )
