#!/usr/bin/env python3
"""Build the command `whisper-xeon` in dist/: a wheel for pip, and whisper-xeon.pyz, a file that any Python 3.9 runs."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipapp
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
MAIN = "whisper_command.__main__:run"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    names = {name.partition(".")[0] for name in setuptools["packages"]}
    with tempfile.TemporaryDirectory() as directory:
        # A copy, since setuptools writes beside what it builds.
        copy = Path(directory)
        ignored = shutil.ignore_patterns("__pycache__")
        for name in names:
            shutil.copytree(ROOT / "app" / name, copy / "app" / name, ignore=ignored)
        archive = output / "whisper-xeon.pyz"
        zipapp.create_archive(copy / "app", archive, "/usr/bin/env python3", MAIN, compressed=True)
        for name in ("pyproject.toml", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--wheel-dir", output, copy], check=True)
    print(archive)
    print(*output.glob("whisper_xeon-*.whl"))


if __name__ == "__main__":
    main()
