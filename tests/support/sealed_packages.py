"""Packages for tests that need one with other content: real ones, changed and sealed again with a manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whisper_package.digests import file_digest
from whisper_package.manifest import MANIFEST_NAME, encode_manifest
from whisper_package.package import Package


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply `change` to the manifest in `folder` and seal it again, as someone who builds packages could."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_bytes(encode_manifest(manifest))


def variant(package: Package, folder: Path, extra: dict[str, bytes]) -> Package:
    """Copy `package` into `folder`, add the files of `extra`, and seal it with a manifest: another release."""
    target = folder / package.name
    shutil.copytree(package.directory, target)
    files = {entry["path"]: entry for entry in package.manifest["files"]}
    for path, content in extra.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(content)
        files[path] = {
            "path": path,
            "size": len(content),
            "sha256": file_digest(target / path),
            "executable": False,
        }
    manifest = {**package.manifest, "files": [files[path] for path in sorted(files)]}
    (target / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return Package(target)
