"""Packages for tests that need one with other content: sealed with a manifest as the builder seals them, and signed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from signing import sign
from whisper_package.digests import file_digest
from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, SCHEMA_VERSION, encode_manifest
from whisper_package.models import MODEL_CONFIGS, QUANTIZATIONS, package_directory, weights_file
from whisper_package.package import Package

# Of a model of one's own, which is as large as small.
SMALL = {"width": 768, "encoder_layers": 12, "decoder_layers": 12}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply `change` to the manifest in `folder`, seal and sign it again, as someone who builds packages could."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_bytes(encode_manifest(manifest))
    with suppress(PackageError):  # nothing signs what is not valid
        sign(folder)


def hollow_package(folder: Path, model: str = "small") -> Package:
    """Make a package of a few bytes in `folder`: every kind of file that a real one has, and nothing that runs."""
    target = folder / package_directory(model)
    weights = weights_file(model)
    contents = {
        weights: b"weights of " + model.encode(),
        "libwhisper.so.1": b"library",
        "libggml-cpu.so.0": b"baseline",
        "cpu/skylakex/libggml-cpu.so.0": b"AVX-512",
        "selftest.wav": b"RIFF" + bytes(64),
        "whisper-cli": b"program",
    }
    variants = [
        ("skylakex", "cpu/skylakex/libggml-cpu.so.0", ["avx2", "avx512f"]),
        ("baseline", "libggml-cpu.so.0", ["avx2"]),
    ]
    for path, content in contents.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(content)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "package": target.name,
        "model": {"name": model, "file": weights, "quantization": QUANTIZATIONS[0]},
        "whisper_cpp": {"version": "1.8.5", "source_sha256": "0" * 64, "patches": []},
        "cmake_flags": [],
        "variants": [{"name": name, "path": path, "cpu_flags": flags} for name, path, flags in variants],
        "minimum": {"glibc": "2.34", "glibcxx": "3.4.29"},
        "abi": {},
        "selftest": {"audio": "selftest.wav", "text": "five eight right"},
        "files": [_entry(target, path) for path in sorted(contents)],
    }
    if model not in MODEL_CONFIGS:
        manifest["model"]["dimensions"] = SMALL
    (target / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return sign(target)


def _entry(folder: Path, path: str) -> dict[str, Any]:
    """Describe a file of a package that is not to be run."""
    return {
        "path": path,
        "size": (folder / path).stat().st_size,
        "sha256": file_digest(folder / path),
        "executable": False,
    }


def variant(package: Package, folder: Path, extra: dict[str, bytes]) -> Package:
    """Copy `package` into `folder`, add the files of `extra`, and seal it with a manifest: another release."""
    target = folder / package.name
    shutil.copytree(package.directory, target)
    files = {entry["path"]: entry for entry in package.manifest["files"]}
    for path, content in extra.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(content)
        files[path] = _entry(target, path)
    manifest = {**package.manifest, "files": [files[path] for path in sorted(files)]}
    (target / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return sign(target)
