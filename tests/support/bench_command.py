"""The commands of bench/ as `make bench` and its siblings run them."""

from __future__ import annotations

import os
import subprocess
import sys

from paths import APP, ROOT


def run_bench(module: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE` with arguments and return how it ended; with `check`, it must succeed."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{APP}:{ROOT / 'bench'}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert not check or ended.returncode == 0, ended.stderr
    return ended
