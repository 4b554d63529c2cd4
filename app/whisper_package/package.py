"""The only reader of a package directory.

A package contains regular files only: no link is ever followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from whisper_package.digests import file_digest
from whisper_package.errors import OldLayoutError, PackageError
from whisper_package.manifest import MANIFEST_NAME, MAX_MANIFEST_SIZE, SIGNATURE_NAME, listed_files, parse_manifest
from whisper_package.models import did_you_mean, is_weights_file, model_name, model_of, package_directory
from whisper_package.signature import (
    ADOPT_COMMAND,
    Signature,
    Signer,
    UntrustedError,
    signed,
    unsigned,
    verified,
)
from whisper_package.small_files import read_small


def packaged_models(artifacts_dir: os.PathLike[str] | str) -> list[str]:
    """Return the models whose packages are in a directory, by their directories' names; none for no directory."""
    names = (model_of(path.parent.name) for path in Path(artifacts_dir).glob(f"*/{MANIFEST_NAME}"))
    return sorted(name for name in names if name)


def is_old_layout(directory: os.PathLike[str] | str) -> bool:
    """Return whether a directory has a model's weights, and nothing of what says about a package what it is."""
    here = Path(directory)
    return not any((here / name).exists() for name in (MANIFEST_NAME, SIGNATURE_NAME)) and any(
        is_weights_file(path.name, model_of(here.name)) for path in here.glob("ggml-*.bin")
    )


class Package:
    """One package directory, opened through its manifest.

    Opening reads the manifest only; `verify` reads every byte.
    """

    def __init__(self, directory: os.PathLike[str] | str, trusted: Sequence[str] | None = None):
        """Open the package in `directory`. Raises `PackageError` when there is none or its manifest is invalid, and
        `OldLayoutError` for one without a manifest.

        With `trusted`, public keys, it must be signed by one of them, which is verified before the manifest is parsed;
        without, nobody is asked who made it. Raises `UntrustedError`.
        """
        self.directory = Path(directory)
        manifest_path = self.directory / MANIFEST_NAME
        try:
            data = read_small(manifest_path, MAX_MANIFEST_SIZE)
        except FileNotFoundError:
            if is_old_layout(self.directory):
                raise OldLayoutError(
                    f"{self.directory} is a package in the old layout, which has no manifest.json and no signature: "
                    f"where the signing key is, `{ADOPT_COMMAND} {self.directory}` makes a release of it; or move it "
                    "away"
                ) from None
            what = "has no manifest.json" if self.directory.is_dir() else "does not exist"
            raise PackageError(
                f"{self.directory} {what}: name the directory that contains the package, or fetch the package"
            ) from None
        except OSError as error:
            raise PackageError(f"{manifest_path} cannot be read: {error.strerror}") from None
        self.signature = None if trusted is None else self._verified(data, trusted)
        self.manifest = parse_manifest(data, str(manifest_path))
        self.manifest_digest = hashlib.sha256(data).hexdigest()
        self._manifest_bytes = data
        if self.signature and (self.signature.model, self.signature.release_id) != (self.model, self.release_id):
            raise UntrustedError(f"the signature of {self.directory} is for another release than its manifest says")

    def _verified(self, data: bytes, trusted: Sequence[str]) -> Signature:
        path, where = self.directory / SIGNATURE_NAME, str(self.directory)
        try:
            signature = read_small(path)
        except FileNotFoundError:
            raise unsigned(where, where) from None
        except OSError as error:
            raise UntrustedError(f"{path} is no signature: {error.strerror}") from None
        return verified(signature, trusted, manifest=data, where=where, target=where)

    @classmethod
    def find(cls, artifacts_dir: os.PathLike[str] | str, model: str, trusted: Sequence[str] | None = None) -> Package:
        """Open the package of `model`, named as people name it, below `artifacts_dir`, and check that it holds that."""
        name = model_name(model)
        directory = Path(artifacts_dir) / package_directory(name)
        if not directory.is_dir():
            there = packaged_models(artifacts_dir)
            others = f"; the packages there are of {', '.join(there)}" if there else ""
            raise PackageError(
                f"{directory} does not exist{others}{did_you_mean(name, there)}: "
                "name the directory that contains the package, or fetch the package"
            )
        package = cls(directory, trusted)
        if package.model != name:
            raise PackageError(f"{package.directory} contains model {package.model!r}, not {name!r}")
        return package

    @property
    def name(self) -> str:
        """Directory name of the package, for example `whisper_small_xeon`."""
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
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels with which its whisper.cpp was built, for example `encode-once`.

        Packages from before kernels.txt number them: `0007-encode-once`.
        """
        patches = self.manifest["whisper_cpp"].get("patches", ())
        return tuple(re.sub(r"^\d{4}-", "", patch["name"]) for patch in patches)

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """Layer and head of each of the decoder's heads that show when a word is spoken.

        None in packages whose manifest does not name them, or whose whisper.cpp cannot look at them.
        """
        heads = self.manifest["model"].get("alignment_heads", ()) if "align" in self.kernels else ()
        return tuple((layer, head) for layer, head in heads)

    @property
    def files(self) -> list[dict[str, Any]]:
        """Every file of the package, `manifest.json` included: path, size in bytes, sha256, executable."""
        return listed_files(self.manifest, self._manifest_bytes)

    @property
    def model_file(self) -> Path:
        """Path of the weights."""
        return self.path(self.manifest["model"]["file"])

    @property
    def vad_file(self) -> Path | None:
        """Path of the weights of the voice detection; None in packages from before it."""
        vad = self.manifest.get("vad")
        return self.path(vad["file"]) if vad else None

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

    def sign(self, signer: Signer, serial: str) -> None:
        """Write the signature beside the manifest, in place of one that is there. Raises `SigningError` and OSError."""
        content = signed(signer, self.model, self.release_id, self.manifest_digest, serial)
        scratch = self.path(f".{SIGNATURE_NAME}.new")
        scratch.write_bytes(content)
        scratch.chmod(0o644)
        scratch.replace(self.path(SIGNATURE_NAME))

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
                problems.append(f"{relative} differs from its manifest (SHA-256)")
        problems += [
            f"{relative} is not in the manifest" for relative in self._extra({*listed, MANIFEST_NAME, SIGNATURE_NAME})
        ]
        if problems:
            raise PackageError(
                f"{self.directory} does not match its manifest: {'; '.join(problems)}; fetch the package again"
            )

    def _extra(self, allowed: set[str]) -> Iterator[str]:
        """Yield what is there beside the allowed files and the directories that these are in; links are no directories.

        A library is looked for in directories that nobody lists, such as `glibc-hwcaps`.
        """
        needed = {parent.as_posix() for path in allowed for parent in PurePosixPath(path).parents}
        for directory, directories, names in os.walk(self.directory):
            here = Path(directory).relative_to(self.directory)
            right = [
                name
                for name in directories
                if (here / name).as_posix() in needed and not Path(directory, name).is_symlink()
            ]
            for name in sorted({*directories} - {*right}) + sorted(names):
                if (relative := (here / name).as_posix()) not in allowed:
                    yield relative
            directories[:] = right
