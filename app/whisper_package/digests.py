"""Digests of files."""

from __future__ import annotations

import hashlib
import os


def file_digest(path: os.PathLike[str] | str) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
