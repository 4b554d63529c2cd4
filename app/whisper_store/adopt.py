"""Make releases of packages in the old layout: `whisper_small_xeon/` at the top of a bucket, or in a directory.

Nobody signed what is there. So adopting it is for its owner, with the signing key, and no code from there runs on the
machine that has the key:

* A package with a manifest is compared with it and adopted whole if its libraries are those of a package that was built
  here, and then the self-test must pass here. `own_libraries` adopts it with others too: hosts will run them.
* Of any other only the weights are adopted, once they are known to be safe to load. They get the libraries of a package
  that was built here, and then the self-test must pass here.

What is adopted is only read, whatever becomes of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import whisper_package
from whisper_package.alignment import alignment_heads
from whisper_package.digests import file_digest
from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, MAX_MANIFEST_SIZE, encode_manifest, parse_manifest
from whisper_package.model_file import check_model_file
from whisper_package.models import is_weights_file, model_of, package_directory, weights_file
from whisper_package.package import Package, packaged_models
from whisper_package.small_files import read_small
from whisper_package.vad_file import check_vad_file
from whisper_store.bucket import PART_SIZE, Bucket, Entry
from whisper_store.errors import DigestMismatch, NoSuchRelease, StoreError

_SELF_TEST_SECONDS = 1800
# They describe the weights that a package was built with.
_OF_THE_BUILD = ("README.md", "provenance.json", "sbom.cdx.json")


@dataclass(frozen=True)
class OldPackage:
    """A package in the old layout: `sizes` has each file's bytes by its path, `save(path, target)` copies one here."""

    model: str
    where: str
    sizes: dict[str, int]
    save: Callable[[str, Path], None]

    @property
    def has_manifest(self) -> bool:
        """Whether it says itself what it is."""
        return MANIFEST_NAME in self.sizes

    @property
    def weights(self) -> str:
        """The name of its only file of weights. Raises `StoreError`."""
        found = [path for path in self.sizes if is_weights_file(path, self.model)]
        if len(found) != 1:
            what = f"has {', '.join(sorted(found))}" if found else f"has no ggml-{self.model}-….bin"
            raise StoreError(f"{self.where} {what}: one file of weights can be adopted")
        return found[0]


@dataclass(frozen=True)
class Adopted:
    """A package in the present layout, not signed yet, and lines that say what was made of the old one."""

    package: Package
    notes: list[str]


def in_bucket(bucket: Bucket, models: Sequence[str] = ()) -> list[OldPackage]:
    """Return the packages at the top of a bucket, of `models` or all. Raises `NoSuchRelease` if one is not there."""
    objects: dict[str, dict[str, Entry]] = {}
    for entry in bucket.list("whisper_"):
        directory, _, path = entry.key.partition("/")
        if model_of(directory) and path and not path.endswith("/"):
            objects.setdefault(model_of(directory), {})[path] = entry
    missing = [package_directory(model) for model in models if model not in objects]
    if missing or not objects:
        what = ", ".join(missing) or "whisper_<model>_xeon"
        raise NoSuchRelease(
            f"bucket {bucket.settings.bucket!r} at {bucket.settings.endpoint} has no {what}/ at its top: there is "
            "nothing to adopt"
        )
    return [_of_bucket(bucket, model, entries) for model, entries in objects.items() if not models or model in models]


def _of_bucket(bucket: Bucket, model: str, entries: dict[str, Entry]) -> OldPackage:
    def save(path: str, target: Path) -> None:
        entry = entries[path]
        with open(target, "wb") as stream:
            for start in range(0, entry.size, PART_SIZE):
                stream.write(bucket.read_range(entry.key, start, min(PART_SIZE, entry.size - start)))

    sizes = {path: entry.size for path, entry in entries.items()}
    return OldPackage(model, bucket.where(f"{package_directory(model)}/"), sizes, save)


def in_directory(directory: Path) -> OldPackage:
    """Return the package in a directory that is named as one. Raises `StoreError`."""
    model = model_of(directory.resolve().name)
    if not directory.is_dir() or not model:
        raise StoreError(f"{directory} is not the directory of a package: its name must be whisper_<model>_xeon")
    sizes = {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }

    def save(path: str, target: Path) -> None:
        shutil.copyfile(directory / path, target)

    return OldPackage(model, str(directory), sizes, save)


def built_here(model: str, directory: Path) -> Package | None:
    """Return the package whose libraries the weights of `model` get: `directory` itself, or one below it.

    Below it, one of the same model comes first. Raises `StoreError` for one that is not whole.
    """
    names = packaged_models(directory)
    if not (directory / MANIFEST_NAME).exists():
        if not names:
            return None
        directory = directory / package_directory(model if model in names else names[0])
    try:
        package = Package(directory)
        package.verify()
    except PackageError as error:
        raise StoreError(str(error)) from None
    return package


def adopt(
    old: OldPackage, built: Package | None, scratch: Path, *, weights_only: bool = False, own_libraries: bool = False
) -> Adopted:
    """Make a package in the present layout of `old`, in `scratch`. `built` is a package from this machine.

    `weights_only` leaves the libraries of a package with a manifest, `own_libraries` takes them whatever they are.
    Raises `StoreError` for what cannot be adopted.
    """
    target = scratch / package_directory(old.model)
    target.mkdir(parents=True)
    try:
        if old.has_manifest and not weights_only:
            manifest = _manifest(old, target / MANIFEST_NAME)
            known = built is not None and _runs_as_built(manifest, built)
            if known or own_libraries:
                return _whole(old, manifest, target, known=known)
        return _weights(old, built, target)
    except PackageError as error:
        raise DigestMismatch(f"{old.where} was not adopted: {str(error).replace(str(target), old.where)}") from None
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}; TMPDIR names another place") from None


def _manifest(old: OldPackage, target: Path) -> dict[str, Any]:
    if old.sizes[MANIFEST_NAME] > MAX_MANIFEST_SIZE:
        raise DigestMismatch(f"{old.where} has a manifest.json that is larger than any manifest")
    old.save(MANIFEST_NAME, target)
    try:
        manifest = parse_manifest(read_small(target, MAX_MANIFEST_SIZE), f"manifest.json of {old.where}")
    except PackageError as error:
        raise DigestMismatch(
            f"{old.where} was not adopted: {error}; --weights-only takes its weights all the same"
        ) from None
    if manifest["model"]["name"] != old.model:
        raise DigestMismatch(f"manifest.json of {old.where} is that of model {manifest['model']['name']!r}")
    return manifest


def _whole(old: OldPackage, manifest: dict[str, Any], target: Path, *, known: bool) -> Adopted:
    for entry in manifest["files"]:
        path = target / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if old.sizes.get(entry["path"]) == entry["size"]:  # `verify` says what is wrong with any other
            old.save(entry["path"], path)
            path.chmod(0o755 if entry["executable"] else 0o644)
    package = Package(target)
    package.verify()
    check_model_file(package.model_file)
    if package.vad_file:
        check_vad_file(package.vad_file)
    notes = [
        _self_tested(package, old)
        if known
        else "with its own libraries, which were not run here: each host runs the self-test before it switches"
    ]
    listed = {entry["path"] for entry in manifest["files"]}
    lacking = {
        "voice detection": not package.vad_file,
        "aligned word times": not package.alignment_heads,
        "provenance": "provenance.json" not in listed,
    }
    if missing := [name for name, lacks in lacking.items() if lacks]:
        notes.append(f"from before {', '.join(missing)}: a build has them, or --weights-only takes libraries from one")
    return Adopted(package, notes)


def _runs_as_built(manifest: dict[str, Any], built: Package) -> bool:
    """Return whether all that a package of this manifest loads and runs is that of `built`, called in the same way.

    Its other files are data, which is looked at before it is used.
    """
    ours = {entry["sha256"] for entry in built.manifest["files"]}
    variants = {variant["path"] for variant in manifest["variants"]}
    return all(manifest[part] == built.manifest[part] for part in ("abi", "variants", "whisper_cpp")) and all(
        entry["sha256"] in ours
        for entry in manifest["files"]
        if entry["executable"] or ".so" in entry["path"] or entry["path"] in variants
    )


def _weights(old: OldPackage, built: Package | None, target: Path) -> Adopted:
    if not built:
        raise StoreError(
            f"nobody signed the libraries of {old.where}: its weights can be adopted and libraries must be built: run "
            "`ansible-playbook build.yml --skip-tags publish` once, then this command again (or name a package that "
            "was built with --libraries)"
        )
    fetched = target / old.weights
    old.save(old.weights, fetched)
    parameters = check_model_file(fetched)
    name = weights_file(old.model, parameters.quantization)
    fetched.rename(target / name)
    left = {MANIFEST_NAME, built.manifest["model"]["file"], *_OF_THE_BUILD}
    entries = [entry for entry in built.manifest["files"] if entry["path"] not in left]
    for entry in entries:
        path = target / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built.path(entry["path"]), path)
        path.chmod(0o755 if entry["executable"] else 0o644)
    digest = file_digest(target / name)
    weights = {"path": name, "size": (target / name).stat().st_size, "sha256": digest, "executable": False}
    heads = built.manifest["model"].get("alignment_heads", []) if built.model == old.model else []
    manifest = {
        **built.manifest,
        "package": target.name,
        "model": {
            "name": old.model,
            "file": name,
            "quantization": parameters.quantization,
            "dimensions": parameters.dimensions,
            "source_sha256": digest,
            "alignment_heads": alignment_heads(old.model, parameters, heads),
        },
        "files": sorted([*entries, weights], key=lambda entry: entry["path"]),
    }
    (target / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    package = Package(target)
    package.verify()
    return Adopted(
        package, [f"its weights {name}, with the libraries of {built.directory}", _self_tested(package, old)]
    )


def _self_tested(package: Package, old: OldPackage) -> str:
    """Have the service transcribe a package's clip, and return what it heard. Raises `StoreError` for other words."""
    app = Path(whisper_package.__file__).resolve().parents[1]
    # Nothing of what leads to a key or to the store.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(app),
        "WHISPER_ARTIFACTS_DIR": str(package.directory.parent),
        "WHISPER_MODEL_SIZE": package.model,
    }
    command = [sys.executable, "-m", "whisper_xeon", "--self-test"]
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SELF_TEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"{old.where} was not adopted: its self-test took more than {_SELF_TEST_SECONDS} s") from None
    heard = json.loads(result.stdout)["text"] if result.stdout else ""
    if result.returncode:
        said = result.stderr.strip().splitlines()[-1:]
        words = f" (it heard {heard!r} instead of {package.selftest_text!r})" if heard else ""
        raise StoreError(
            f"{old.where} was not adopted, because the self-test failed: {' '.join(said)}{words}; if these are weights "
            "of your own, --libraries names a package that was built of the same model"
        )
    return f"self-test heard {heard!r}"
