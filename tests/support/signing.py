"""The keys with which the tests sign, one pair for each clone, and what signs with them.

Everything has one serial of today unless a test says otherwise, so that any release may follow any other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import datetime, timezone
from pathlib import Path

from paths import ROOT
from whisper_package.package import Package
from whisper_package.signature import key_signer, new_private_key, public_key

SERIAL = f"{datetime.now(timezone.utc):%Y%m%d}000000"


def _private_key() -> Path:
    """Return the file of the private key, which several workers may want to make at once."""
    path = ROOT / ".build" / "test" / "signing-key.pem"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        scratch.touch(mode=0o600)
        scratch.write_text(new_private_key(), "ascii")
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
        scratch.unlink()
    return path


KEY_FILE = _private_key()
PRIVATE = KEY_FILE.read_text("ascii")
PUBLIC = public_key(PRIVATE)
TRUSTED = (PUBLIC,)
# For what reads an inventory: molecule.
KEY_FILE.with_name("trusted-keys").write_text(f"{PUBLIC}\n", "ascii")
SIGNER = key_signer(PRIVATE)


def sign(folder: Path, serial: str = SERIAL, private: str = PRIVATE) -> Package:
    """Sign the package in `folder` and return it."""
    Package(folder).sign(key_signer(private), serial)
    return Package(folder, (public_key(private),))
