"""Is the package of a model signed and whole? `check_package.py FOLDER MODEL` verifies the signature of its manifest by
WHISPER_TRUSTED_KEYS, then every byte by the manifest.

Exit status, as the download command has it: 0 it is, 2 no key is trusted, 3 it is in the old layout, without a
manifest, 4 it differs from its manifest, 6 none of the keys has signed it. One line says why. Another warns of a
signature that is older than WHISPER_SIGNED_DAYS.
"""

from __future__ import annotations

import os
import sys

from whisper_package.errors import OldLayoutError, PackageError
from whisper_package.package import Package
from whisper_package.signature import SigningError, UntrustedError, age_warning, trusted_keys_of


def main(artifacts_dir: str, model: str) -> int:
    """Return the exit status for the package of `model` in `artifacts_dir`."""
    try:
        package = Package.find(artifacts_dir, model, trusted_keys_of(os.environ))
        package.verify()
        if package.signature and (warning := age_warning(package.signature, os.environ)):
            print(f"whisper-xeon: {warning}", file=sys.stderr)
    except PackageError as error:
        print(f"whisper-xeon: {error}", file=sys.stderr)
        return {SigningError: 2, OldLayoutError: 3, UntrustedError: 6}.get(type(error), 4)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
