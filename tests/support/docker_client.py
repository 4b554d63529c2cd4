"""The docker client, run as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paths import ROOT


def docker(
    *arguments: str, check: bool = True, env: dict[str, str] | None = None, cwd: Path = ROOT, timeout: float = 1200
) -> subprocess.CompletedProcess[str]:
    """Run the docker client; with `check` a failed run fails the test with its output. `timeout` is in seconds."""
    result = subprocess.run(
        ["docker", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and result.returncode:
        pytest.fail(
            f"docker {' '.join(arguments)} ended with {result.returncode}:\n{result.stdout}{result.stderr}",
            pytrace=False,
        )
    return result


def inspect(name: str) -> dict[str, Any]:
    """Return what Docker knows of a container, an image or a volume."""
    return json.loads(docker("inspect", name).stdout)[0]
