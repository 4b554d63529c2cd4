#!/usr/bin/env python3
"""Build the command `whisper-xeon` in dist/: a wheel for pip, and whisper-xeon.pyz, a file that any Python 3.9 runs.

Also the drop-in for openai-whisper, as a source distribution: only building it where it is installed can refuse to.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipapp
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "app"))

import whisper_xeon  # noqa: E402 - it is not installed

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
        build_dropin(copy / "dropin", output)
    print(archive)
    print(*output.glob("whisper_xeon-*.whl"), *output.glob("whisper_xeon_openai-*.tar.gz"))


def build_dropin(copy: Path, output: Path) -> None:
    """Pack `dropin/` as a source distribution."""
    shutil.copytree(ROOT / "dropin", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", copy)
    name = f"whisper_xeon_openai-{whisper_xeon.__version__}"
    (copy / "VERSION").write_text(f"{whisper_xeon.__version__}\n", encoding="ascii")
    (copy / "requirements.txt").write_text(f"whisper-xeon=={whisper_xeon.__version__}\n", encoding="ascii")
    (copy / "PKG-INFO").write_text(
        f"Metadata-Version: 2.1\nName: whisper-xeon-openai\nVersion: {whisper_xeon.__version__}\n", encoding="ascii"
    )
    with tarfile.open(output / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(copy, name, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who packed it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
