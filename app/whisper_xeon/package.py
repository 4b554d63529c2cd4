"""The only reader of an artifact package (`whisper_<model>_xeon/`): manifest, digests, files.

The builder, the publisher, the deploy role and the service all learn what a package is from here. It never loads a
library and never follows a link: a package holds regular files only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"

# What the weights can be built as; the first is the default.
QUANTIZATIONS = ("q5_1", "q4_0", "q5_0", "q8_0", "f16")


def weights_file(model: str, quantization: str = QUANTIZATIONS[0]) -> str:
    """Return the name of a model's weights in its package."""
    return f"ggml-{model}-{quantization}.bin"


# dir: folder of the package; model: file of the weights in the default quantization; size_mb: that file; ram_mb: a host
# with one engine and that file. Both are measured at true dimensions (`make bench-models`): to the peak PSS of front,
# zygote and worker comes room for ten minutes of audio, as PCM twice and as a spectrogram once (about 100 MB).
MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    model: {"dir": f"whisper_{model}_xeon", "model": weights_file(model), "size_mb": size_mb, "ram_mb": ram_mb}
    for model, size_mb, ram_mb in (
        ("tiny", 32, 250),
        ("tiny.en", 32, 250),
        ("base", 60, 300),
        ("base.en", 60, 300),
        ("small", 190, 500),
        ("small.en", 190, 500),
        ("medium", 587, 1050),
        ("medium.en", 587, 1050),
        ("large-v2", 1177, 1800),
        ("large-v3", 1177, 1800),
        ("large-v3-turbo", 624, 1000),
    )
}

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


class PackageError(Exception):
    """A package is missing, incomplete, altered or newer than this reader; the message says where and what to do."""


def model_config(name: str) -> dict[str, Any]:
    """Return the entry of `MODEL_CONFIGS` for a model's name; an unknown name raises `PackageError` listing all."""
    try:
        return MODEL_CONFIGS[name]
    except KeyError:
        raise PackageError(f"unknown model {name!r}: choose one of {', '.join(MODEL_CONFIGS)}") from None


def weights_bytes(manifest: dict[str, Any]) -> int:
    """Return the size of the model file that a manifest names."""
    (size,) = (entry["size"] for entry in manifest["files"] if entry["path"] == manifest["model"]["file"])
    return size


def memory_mb(manifest: dict[str, Any]) -> int:
    """Return what a host with one engine needs for the package of a manifest: more where its weights are bigger."""
    config = model_config(manifest["model"]["name"])
    return config["ram_mb"] + max(0, weights_bytes(manifest) // 1_000_000 - config["size_mb"])


def file_digest(path: os.PathLike | str) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


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
        manifest = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{source} is not valid JSON ({error}): fetch or build the package again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        raise PackageError(f"{source} has no schema_version: it is not the manifest of a whisper-xeon package")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise PackageError(
            f"{source} has schema_version {manifest['schema_version']}, this reader knows up to {SCHEMA_VERSION}: "
            "update whisper-xeon before using this package"
        )
    _check_fields(manifest, source)
    actual = release_id(manifest)
    if manifest["release_id"] != actual:
        raise PackageError(
            f"{source} was altered: it names release {manifest['release_id']}, its content is {actual}; "
            "fetch or build the package again"
        )
    return manifest


def _unique_keys(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
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
    seen = set()
    for entry in manifest["files"]:
        path = entry.get("path") if isinstance(entry, dict) else None
        if (
            not isinstance(path, str)
            or not _PATH.fullmatch(path)
            or path in seen
            or path in (MANIFEST_NAME, SIGNATURE_NAME)
            or type(entry.get("size")) is not int
            or entry["size"] < 0
            or not isinstance(entry.get("sha256"), str)
            or not _DIGEST.fullmatch(entry["sha256"])
            or not isinstance(entry.get("executable"), bool)
        ):
            raise PackageError(f"{source} lists an invalid file entry {entry!r}: fetch or build the package again")
        seen.add(path)
    # A folder's name becomes part of paths on hosts: only the one that the model's package has is taken.
    folder = model_config(manifest["model"]["name"])["dir"]
    if manifest["package"] != folder:
        raise PackageError(f"{source} names its package {manifest['package']!r} instead of {folder}: it is not ours")
    for variant in manifest["variants"]:
        if (
            not isinstance(variant, dict)
            or not isinstance(variant.get("name"), str)
            or not isinstance(variant.get("path"), str)
            or not isinstance(variant.get("cpu_flags"), list)
            or not all(isinstance(flag, str) for flag in variant["cpu_flags"])
        ):
            raise PackageError(f"{source} lists an invalid variant {variant!r}: fetch or build the package again")
    patches = manifest["whisper_cpp"].get("patches", [])  # the first packages had none and do not say so
    if not isinstance(patches, list) or not all(
        isinstance(patch, dict) and isinstance(patch.get("name"), str) for patch in patches
    ):
        raise PackageError(f"{source} has no valid 'whisper_cpp.patches': fetch or build the package again")
    libraries = [variant["path"] for variant in manifest["variants"]]
    for path in (manifest["model"]["file"], manifest["selftest"]["audio"], *libraries):
        if path not in seen:
            raise PackageError(f"{source} names {path} but does not list it: fetch or build the package again")


class Package:
    """One package folder, opened through its manifest.

    Opening reads the manifest only; `verify` reads every byte.
    """

    def __init__(self, directory: os.PathLike | str):
        """Open the package in `directory`. Raises `PackageError` when there is none or its manifest is invalid."""
        self.directory = Path(directory)
        manifest_path = self.directory / MANIFEST_NAME
        try:
            data = manifest_path.read_bytes()
        except FileNotFoundError:
            what = "has no manifest.json" if self.directory.is_dir() else "does not exist"
            raise PackageError(
                f"{self.directory} {what}: name the folder that holds the package (WHISPER_ARTIFACTS_DIR of the "
                "service, artifact_dir of deploy.yml), or fetch the package"
            ) from None
        except OSError as error:
            raise PackageError(f"{manifest_path} cannot be read: {error.strerror}") from None
        self.manifest = parse_manifest(data, str(manifest_path))
        self.manifest_digest = hashlib.sha256(data).hexdigest()

    @classmethod
    def find(cls, artifacts_dir: os.PathLike | str, model: str) -> Package:
        """Open the package of `model` below `artifacts_dir` and check that it holds that model."""
        config = model_config(model)
        package = cls(Path(artifacts_dir) / config["dir"])
        if package.model != model:
            raise PackageError(f"{package.directory} holds model {package.model!r}, not {model!r}")
        return package

    @property
    def name(self) -> str:
        """Folder name of the package, for example `whisper_small_xeon`."""
        return self.manifest["package"]

    @property
    def release_id(self) -> str:
        """The release id: 64 hex digits."""
        return self.manifest["release_id"]

    @property
    def model(self) -> str:
        """The model's name, for example `small`."""
        return self.manifest["model"]["name"]

    @property
    def quantization(self) -> str:
        """The weights' type, for example `q5_1`."""
        return self.manifest["model"]["quantization"]

    @property
    def patches(self) -> tuple[str, ...]:
        """Names of the changes with which its whisper.cpp was built, for example `0007-encode-once`."""
        return tuple(patch["name"] for patch in self.manifest["whisper_cpp"].get("patches", ()))

    @property
    def model_file(self) -> Path:
        """Path of the weights."""
        return self.path(self.manifest["model"]["file"])

    @property
    def selftest_audio(self) -> Path:
        """Path of the clip whose words `selftest_text` gives."""
        return self.path(self.manifest["selftest"]["audio"])

    @property
    def selftest_text(self) -> str:
        """What this model transcribes from the self-test clip."""
        return self.manifest["selftest"]["text"]

    def path(self, relative: str) -> Path:
        """The one place that builds the path of a file in a package."""
        return self.directory / relative

    def verify(self) -> None:
        """Compare every file with the manifest: size, SHA-256, regular file, nothing extra. Raises `PackageError`."""
        problems: list[str] = []
        listed = {entry["path"]: entry for entry in self.manifest["files"]}
        for relative, entry in sorted(listed.items()):
            path = self.path(relative)
            try:
                status = path.lstat()
            except OSError:
                problems.append(f"{relative} is missing")
                continue
            if not stat.S_ISREG(status.st_mode):
                problems.append(f"{relative} is not a regular file")
            elif status.st_size != entry["size"]:
                problems.append(f"{relative} has {status.st_size} bytes instead of {entry['size']}")
            elif file_digest(path) != entry["sha256"]:
                problems.append(f"{relative} has another SHA-256 than its manifest says")
        problems += [
            f"{relative} is not in the manifest"
            for relative in self._present()
            if relative not in listed and relative not in (MANIFEST_NAME, SIGNATURE_NAME)
        ]
        if problems:
            raise PackageError(
                f"{self.directory} does not match its manifest: {'; '.join(problems)}; fetch the package again"
            )

    def _present(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.directory):
            for name in sorted(names):
                yield (Path(folder) / name).relative_to(self.directory).as_posix()
