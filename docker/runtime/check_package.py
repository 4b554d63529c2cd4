"""Is the package of a model whole? `check_package.py FOLDER MODEL` reads every byte and compares it with the manifest.

Exit status: 0 whole, 4 not (as the download command has it), with one line that says why.
"""

from __future__ import annotations

import sys

from whisper_package.errors import PackageError
from whisper_package.package import Package


def main(artifacts_dir: str, model: str) -> int:
    """Return the exit status for the package of `model` in `artifacts_dir`."""
    try:
        Package.find(artifacts_dir, model).verify()
    except PackageError as error:
        print(f"whisper-xeon: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
