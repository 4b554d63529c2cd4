"""`manifest.json`: what a package consists of, checked before any of it is used."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NoReturn

from whisper_package.errors import PackageError
from whisper_package.models import MODEL_CONFIGS, model_name, package_directory, size_of
from whisper_package.printable import printable

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
# It has a few kilobytes; nothing longer is read into memory.
MAX_MANIFEST_SIZE = 4 << 20
# `HyperParameters.dimensions` of the weights.
_DIMENSIONS = {"width", "encoder_layers", "decoder_layers"}

# Of a file in a package: short enough for every file system, with what a download adds to it.
_MAX_PATH = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


def release_id(manifest: dict[str, Any]) -> str:
    """Return the release id of a manifest: the SHA-256, in hex, of everything in it but the id itself."""
    content = {key: value for key, value in manifest.items() if key != "release_id"}
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    ).hexdigest()


def encode_manifest(manifest: dict[str, Any]) -> bytes:
    """Return the bytes of `manifest.json`, with the release id filled in; the same content gives the same bytes."""
    complete = dict(manifest, release_id=release_id(manifest))
    return (json.dumps(complete, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def parse_manifest(data: bytes, source: str) -> dict[str, Any]:
    """Return the checked content of a `manifest.json`; `source` names it in messages. Raises `PackageError`."""
    try:
        manifest = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_number)
        actual = release_id(manifest) if isinstance(manifest, dict) else ""
    except (ValueError, RecursionError) as error:  # half of a surrogate pair is a ValueError of `release_id`
        why = "its text is not Unicode" if isinstance(error, UnicodeError) else error
        raise PackageError(f"{source} is not valid JSON ({why}): fetch or build the package again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        raise PackageError(f"{source} has no schema_version: it is not the manifest of a whisper-xeon package")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise PackageError(
            f"{source} has schema_version {manifest['schema_version']}, but this version reads up to {SCHEMA_VERSION}: "
            "update whisper-xeon before using this package"
        )
    _check_fields(manifest, source)
    if manifest["release_id"] != actual:
        raise PackageError(
            f"{source} was altered: it names release {printable(manifest['release_id'], 64)}, but its content is "
            f"{actual}: fetch or build the package again"
        )
    return manifest


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _check_fields(manifest: dict[str, Any], source: str) -> None:
    expected = {
        "release_id": str,
        "package": str,
        "model": dict,
        "whisper_cpp": dict,
        "cmake_flags": list,
        "variants": list,
        "minimum": dict,
        "abi": dict,
        "selftest": dict,
        "files": list,
    }
    for name, kind in expected.items():
        if not isinstance(manifest.get(name), kind):
            raise PackageError(f"{source} has no valid {name!r}: fetch or build the package again")
    for owner, names in (
        ("model", ("name", "file", "quantization")),
        ("whisper_cpp", ("version", "source_sha256")),
        ("minimum", ("glibc", "glibcxx")),
        ("selftest", ("audio", "text")),
    ):
        for name in names:
            if not isinstance(manifest[owner].get(name), str):
                raise PackageError(f"{source} has no valid '{owner}.{name}': fetch or build the package again")
    vad = manifest.get("vad")  # packages from before voice detection do not have it
    if vad is not None and not (isinstance(vad, dict) and isinstance(vad.get("file"), str)):
        raise PackageError(f"{source} has no valid 'vad.file': fetch or build the package again")
    seen = set()
    for entry in manifest["files"]:
        path = entry.get("path") if isinstance(entry, dict) else None
        if (
            not isinstance(path, str)
            or len(path) > _MAX_PATH
            or not _PATH.fullmatch(path)
            or path in seen
            or path in (MANIFEST_NAME, SIGNATURE_NAME)
            or type(entry.get("size")) is not int
            or entry["size"] < 0
            or not isinstance(entry.get("sha256"), str)
            or not _DIGEST.fullmatch(entry["sha256"])
            or not isinstance(entry.get("executable"), bool)
        ):
            shown = printable(repr(entry), _MAX_PATH)
            raise PackageError(f"{source} lists an invalid file entry {shown}: fetch or build the package again")
        seen.add(path)
    _check_name(manifest, source)
    for variant in manifest["variants"]:
        if (
            not isinstance(variant, dict)
            or not isinstance(variant.get("name"), str)
            or not isinstance(variant.get("path"), str)
            or not isinstance(variant.get("cpu_flags"), list)
            or not all(isinstance(flag, str) for flag in variant["cpu_flags"])
        ):
            shown = printable(repr(variant), _MAX_PATH)
            raise PackageError(f"{source} lists an invalid variant {shown}: fetch or build the package again")
    patches = manifest["whisper_cpp"].get("patches", [])  # the first packages had none and do not say so
    if not isinstance(patches, list) or not all(
        isinstance(patch, dict) and isinstance(patch.get("name"), str) for patch in patches
    ):
        raise PackageError(f"{source} has no valid 'whisper_cpp.patches': fetch or build the package again")
    heads = manifest["model"].get("alignment_heads", [])  # packages have them since words are aligned
    if not isinstance(heads, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int and number >= 0 for number in pair)
        for pair in heads
    ):
        raise PackageError(f"{source} has no valid 'model.alignment_heads': fetch or build the package again")
    libraries = [variant["path"] for variant in manifest["variants"]]
    weights = [manifest["model"]["file"], *([vad["file"]] if vad else [])]
    for path in (*weights, manifest["selftest"]["audio"], *libraries):
        if path not in seen:
            shown = printable(path, _MAX_PATH)
            raise PackageError(f"{source} names {shown} but does not list it: fetch or build the package again")


def _check_name(manifest: dict[str, Any], source: str) -> None:
    """Accept a model by one name only, and its directory, which becomes part of paths on hosts, by that alone."""
    name, dimensions = manifest["model"]["name"], manifest["model"].get("dimensions")
    try:
        named, directory = model_name(name), package_directory(name)
    except PackageError as error:
        raise PackageError(f"{source}: {error}") from None
    if named != name:
        raise PackageError(f"{source} names its model {name!r} instead of {named}: build the package again")
    if manifest["package"] != directory:
        shown = printable(repr(manifest["package"]), _MAX_PATH)
        raise PackageError(f"{source} names its package {shown} instead of {directory}: it is not ours")
    # The first packages do not have them; the names that they can have say enough.
    if dimensions is None and name in MODEL_CONFIGS:
        return
    if (
        not isinstance(dimensions, dict)
        or set(dimensions) != _DIMENSIONS
        or not all(type(value) is int for value in dimensions.values())
    ):
        raise PackageError(f"{source} has no valid 'model.dimensions': fetch or build the package again")


def listed_files(manifest: dict[str, Any], data: bytes) -> list[dict[str, Any]]:
    """Return every file of a package: those in the manifest, and `manifest.json` itself, whose bytes are `data`.

    An entry has `path`, `size` (bytes), `sha256` (hex) and `executable`.
    """
    digest = hashlib.sha256(data).hexdigest()
    return [*manifest["files"], {"path": MANIFEST_NAME, "size": len(data), "sha256": digest, "executable": False}]


def weights_bytes(manifest: dict[str, Any]) -> int:
    """Return the size of the model file that a manifest names."""
    (size,) = (entry["size"] for entry in manifest["files"] if entry["path"] == manifest["model"]["file"])
    return size


def memory_mb(manifest: dict[str, Any]) -> int:
    """Return the memory that a host with one engine needs for a manifest's package: more if its weights are larger."""
    dimensions = manifest["model"].get("dimensions")
    config = MODEL_CONFIGS[size_of(**dimensions) if dimensions else manifest["model"]["name"]]
    return config["ram_mb"] + max(0, weights_bytes(manifest) // 1_000_000 - config["size_mb"])
