"""Releases and channels in the bucket: publish, resolve, sign, sign URLs.

    releases/<release id>/<package>/<file>               written once, never changed; manifest.json last
    releases/<release id>/<package>/manifest.json.sig    who stands for it; a newer statement may take its place
    channels/<channel>.json                              the current release of each model; written last

A reader starts at a channel and never lists, so it sees the old release or the new one, never a mix. Nothing here
overwrites a release, and a channel is written only over the content that was read.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME, listed_files, parse_manifest
from whisper_package.models import did_you_mean, model_name, model_of, package_directory
from whisper_package.package import Package
from whisper_package.signature import (
    ADOPT_COMMAND,
    MAX_SIGNATURE_SIZE,
    Signature,
    Signer,
    SigningError,
    UntrustedError,
    signed,
    unsigned,
    verified,
)
from whisper_store.bucket import PART_SIZE, Bucket
from whisper_store.errors import (
    BadSetting,
    BrokenChannel,
    ConditionFailed,
    ConditionsIgnored,
    DigestMismatch,
    NoSuchRelease,
    ObjectMissing,
    StoreError,
    Untrusted,
)
from whisper_store.settings import StoreSettings

CHANNEL_SCHEMA_VERSION = 1
DEFAULT_CHANNEL = "stable"
PROMOTE_COMMAND = "PYTHONPATH=app python -m whisper_store promote"

# Eight publishers that write one channel at the same time need about as many attempts.
CHANNEL_ATTEMPTS = 20

# Also how a name from the store is told that may be printed: no other has bytes that mean something to a terminal.
_CHANNEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_RELEASE_ID = re.compile(r"[0-9a-f]{64}")
_MANIFEST_KEY = re.compile(rf"releases/(?P<release_id>[0-9a-f]{{64}})/(?P<package>[^/]+)/{re.escape(MANIFEST_NAME)}")
_RELEASE_ID_START = re.compile(r"[0-9a-f]{8,63}")


@dataclass(frozen=True)
class Release:
    """One release of one model in the store, with its checked manifest and that file's SHA-256 in hex.

    `files` is every file of the package, `manifest.json` included: path, size in bytes, sha256, executable.
    `signed` is the content of `manifest.json.sig`, `signature` what it states. `channel` is the one that named the
    release, empty if its id did.
    """

    release_id: str
    package: str
    manifest: dict[str, Any]
    manifest_sha256: str
    files: list[dict[str, Any]]
    signed: str
    signature: Signature
    channel: str

    @property
    def channel_entry(self) -> dict[str, str]:
        """What a channel that names this release has for its model."""
        return {"release_id": self.release_id, "package": self.package, "manifest_sha256": self.manifest_sha256}

    def key(self, path: str) -> str:
        """Return the key of a file of this release."""
        return release_key(self.release_id, self.package, path)


@dataclass(frozen=True)
class Channel:
    """A channel: for each model its release id, package and manifest digest. `etag` is None if it is new."""

    name: str
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    etag: str | None = None

    def encode(self) -> bytes:
        """Return the bytes of the channel's object; the same content gives the same bytes."""
        content = {"schema_version": CHANNEL_SCHEMA_VERSION, "models": self.models}
        return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode("ascii")


@dataclass(frozen=True)
class Publication:
    """What publishing a package did, or would do: files uploaded, their bytes, and the channel before and after."""

    release_id: str
    package: str
    uploaded: list[str]
    uploaded_bytes: int
    channel_before: Channel
    channel_after: Channel

    @property
    def changed(self) -> bool:
        """Whether anything in the store has changed."""
        return bool(self.uploaded) or self.channel_before.models != self.channel_after.models


def model_and_package(model: str) -> tuple[str, str]:
    """Return the model that a name means, and the directory of its package. Raises `BadSetting`."""
    try:
        return model_name(model), package_directory(model)
    except PackageError as error:
        raise BadSetting(str(error)) from None


def release_key(release_id: str, package: str, path: str) -> str:
    """Return the key of a file of a release."""
    return f"releases/{release_id}/{package}/{path}"


def is_channel(name: str) -> bool:
    """Return whether a channel may have that name."""
    return bool(_CHANNEL.fullmatch(name))


def is_release_id(text: str) -> bool:
    """Return whether that is a whole release id."""
    return bool(_RELEASE_ID.fullmatch(text))


def channel_key(channel: str) -> str:
    """Return the key of a channel. Raises `StoreError` for an invalid name."""
    if not is_channel(channel):
        raise StoreError(f"{channel!r} is not a valid channel name: use a-z, 0-9, '.', '_' and '-', at most 63")
    return f"channels/{channel}.json"


class Store:
    """The releases and channels of a bucket. Every method raises `StoreError` and nothing else."""

    def __init__(
        self,
        settings: StoreSettings,
        log: Callable[[str], None] = lambda line: None,
        trusted: Sequence[str] = (),
    ):
        """Connect to nothing yet; `log` gets one line for each file and step.

        `trusted` are the public keys of which one must have signed what is resolved or published. Without any, nothing
        can be.
        """
        self.bucket = Bucket(settings)
        self.trusted = tuple(trusted)
        self._log = log

    def read_channel(self, name: str) -> Channel:
        """Return a channel; one that was never written is empty. Raises `StoreError` for other content."""
        key = channel_key(name)
        where = self.bucket.where(key)
        try:
            data, etag = self.bucket.read_document(key)
        except ObjectMissing:
            return Channel(name)
        except DigestMismatch as error:
            raise BrokenChannel(str(error)) from None
        try:
            content = json.loads(data)
            version = content["schema_version"]
            if isinstance(version, int) and version > CHANNEL_SCHEMA_VERSION:
                raise BrokenChannel(
                    f"{where} has schema_version {version}, but this version reads up to {CHANNEL_SCHEMA_VERSION}: "
                    "update whisper-xeon before using it"
                )
            models = content["models"]
            valid = isinstance(version, int) and all(
                _RELEASE_ID.fullmatch(entry["release_id"])
                and _RELEASE_ID.fullmatch(entry["manifest_sha256"])
                and entry["package"] == package_directory(model)
                and model_name(model) == model
                for model, entry in models.items()
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PackageError):
            valid = False
        if not valid:
            raise BrokenChannel(f"{where} is not a channel of whisper-xeon: remove it and publish again")
        return Channel(name, models, etag)

    def resolve(self, model: str, channel: str = DEFAULT_CHANNEL, release: str | None = None) -> Release:
        """Return the release of `model` that a channel names, or the one with the id `release`, manifest checked.

        `model` is a name as people give it. The first 8 or more digits of an id are enough when no other release of
        that model begins with them.
        """
        model, package = model_and_package(model)
        if release:
            release_id, manifest_sha256 = self._complete_id(release, package), None
        else:
            release_id, manifest_sha256 = self._current(model, channel)
        named = "" if release else f", which channel {channel!r} names,"
        data = self._manifest(release_id, package, named)
        signature = self._signature(release_id, package)
        if signature is None:
            key = release_key(release_id, package, SIGNATURE_NAME)
            raise Untrusted(str(unsigned(f"release {release_id}{named} ({self.bucket.where(key)})", release_id)))
        stated = self._stated(signature, data, release_id, package)
        found = self._checked_release(data, model, package, release_id, manifest_sha256)
        if (stated.model, stated.release_id) != (model, release_id):
            raise Untrusted(
                f"the signature of release {release_id} of {model} is for release {stated.release_id} of "
                f"{stated.model}: the store was altered; publish the release again"
            )
        return Release(**found, signed=signature.decode("ascii"), signature=stated, channel="" if release else channel)

    def statement(self, release_id: str, package: str) -> Signature | None:
        """Return what a trusted key states of a release that exists, or None if none does."""
        try:
            signature = self._signature(release_id, package)
            if signature is None:
                return None
            stated = self._stated(signature, self._manifest(release_id, package), release_id, package)
        except (Untrusted, DigestMismatch):
            return None
        return stated if (stated.model, stated.release_id) == (model_of(package), release_id) else None

    def sign(self, model: str, release_id: str, signer: Signer, serial: str) -> None:
        """State that a release in the store is to be trusted, whatever has been stated of it before.

        Its manifest is read and checked, its files are not: they are compared with the manifest by whoever takes them.
        """
        model, package = model_and_package(model)
        data = self._manifest(release_id, package)
        found = self._checked_release(data, model, package, release_id, None)
        try:
            content = signed(signer, model, release_id, found["manifest_sha256"], serial)
        except SigningError as error:
            raise StoreError(str(error)) from None
        key = release_key(release_id, package, SIGNATURE_NAME)
        try:
            _, etag = self.bucket.read_start(key, 1)
        except ObjectMissing:
            etag = None
        if not self._replace_signature(key, content, etag):
            raise StoreError(f"{self.bucket.where(key)} is being signed by somebody else too: try again")

    def signed_urls(self, release: Release, seconds: int, endpoint: str | None = None) -> dict[str, str]:
        """Return a URL for each file of a release, valid for `seconds` and only at `endpoint`.

        `endpoint` is the address at which the reader of the URLs reaches the store; the signature covers it.
        """
        keys = {entry["path"]: release.key(entry["path"]) for entry in release.files}
        urls = self.bucket.signed_urls(keys.values(), seconds, endpoint)
        return {path: urls[key] for path, key in keys.items()}

    def publish(self, directory: Path | str, channel: str = DEFAULT_CHANNEL, dry_run: bool = False) -> Publication:
        """Put the package in `directory` into the store and make it `channel`'s release of its model.

        It must be signed by a trusted key; of two such signatures the newer one stays in the store. Every byte is
        compared with the manifest first. Existing files are checked and not uploaded again, so the next publish
        completes one that was interrupted, and uploads nothing after a complete one. `dry_run` only reads.
        """
        package, signature = self._verified_package(directory)
        key_of_channel = channel_key(channel)
        before = self.read_channel(channel)
        entry = {
            "release_id": package.release_id,
            "package": package.name,
            "manifest_sha256": package.manifest_digest,
        }
        *_, manifest = files = package.files
        uploaded: list[dict[str, Any]] = []
        for file in files:
            # Before the manifest, so that whoever finds that finds a release that is signed.
            if file is manifest and self._sign_as(package, signature, dry_run):
                uploaded.append({"path": SIGNATURE_NAME, "size": package.path(SIGNATURE_NAME).stat().st_size})
            if self._exists(package, file):
                continue
            uploaded.append(file)
            if not dry_run:
                self._log(f"upload {package.name}/{file['path']} ({file['size']} bytes)")
                self._upload(package, file)
        after = Channel(channel, {**before.models, package.model: entry})
        if not dry_run and (uploaded or before.models != after.models):
            self._prove_conditions(package)
            after = self.point(before, {package.model: entry})
            if not self._exists(package, manifest):
                raise StoreError(f"release {package.release_id} was pruned while it was published: publish it again")
            self._log(f"{key_of_channel}: {package.model} is {package.release_id}")
        return Publication(
            release_id=package.release_id,
            package=package.name,
            uploaded=[file["path"] for file in uploaded],
            uploaded_bytes=sum(file["size"] for file in uploaded),
            channel_before=before,
            channel_after=after,
        )

    def point(self, read: Channel, entries: dict[str, dict[str, str]]) -> Channel:
        """Write a channel that was `read`, with `entries` for their models and all else as it is; return it."""
        key = channel_key(read.name)
        for attempt in range(CHANNEL_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311 - spreads writers, no secret
                read = self.read_channel(read.name)
            if read.models == {**read.models, **entries}:
                return read
            written = Channel(read.name, {**read.models, **entries})
            try:
                self.bucket.replace(key, written.encode(), read.etag)
            except ConditionFailed:
                continue
            return written
        raise StoreError(
            f"{self.bucket.where(key)} was changed by others {CHANNEL_ATTEMPTS} times while it was being written: "
            "try again; only the channel is missing"
        )

    def _verified_package(self, directory: Path | str) -> tuple[Package, Signature]:
        try:
            package = Package(directory, self.trusted)
        except UntrustedError as error:
            raise Untrusted(f"nothing was published: {error}") from None
        except PackageError as error:
            raise StoreError(f"nothing was published: {error}") from None
        try:
            package.verify()
        except PackageError as error:
            raise DigestMismatch(f"nothing was published: {error}") from None
        assert package.signature
        return package, package.signature

    def _manifest(self, release_id: str, package: str, named: str = "") -> bytes:
        key = release_key(release_id, package, MANIFEST_NAME)
        try:
            return self.bucket.read_document(key)[0]
        except ObjectMissing:
            raise NoSuchRelease(
                f"{self.bucket.where(key)} does not exist: release {release_id}{named} was never completed or has been "
                "deleted: publish it again"
            ) from None

    def _signature(self, release_id: str, package: str) -> bytes | None:
        key = release_key(release_id, package, SIGNATURE_NAME)
        try:
            return self._read_signature(key)[0]
        except ObjectMissing:
            return None

    def _read_signature(self, key: str) -> tuple[bytes, str]:
        """Return a signature and its ETag: of what is too large to be one, no more than shows that."""
        return self.bucket.read_start(key, MAX_SIGNATURE_SIZE + 1)

    def _stated(self, signature: bytes, manifest: bytes, release_id: str, package: str) -> Signature:
        """Return what a trusted key states of a release in the store. Raises `Untrusted`."""
        where = self.bucket.where(release_key(release_id, package, MANIFEST_NAME))
        try:
            return verified(signature, self.trusted, manifest=manifest, where=where, target=release_id)
        except UntrustedError as error:
            raise Untrusted(str(error)) from None
        except SigningError as error:
            raise StoreError(str(error)) from None

    def _sign_as(self, package: Package, signature: Signature, dry_run: bool) -> bool:
        """Give a release in the store its package's signature, unless it has a valid one as new; return whether."""
        key = release_key(package.release_id, package.name, SIGNATURE_NAME)
        manifest, own = (package.path(name).read_bytes() for name in (MANIFEST_NAME, SIGNATURE_NAME))
        for _ in range(CHANNEL_ATTEMPTS):
            try:
                content, etag = self._read_signature(key)
                there = self._stated(content, manifest, package.release_id, package.name)
                if there.serial >= signature.serial:
                    return False
            except ObjectMissing:
                etag = None
            except Untrusted:
                pass
            if dry_run:
                return True
            if self._replace_signature(key, own, etag):
                self._log(f"sign {package.name} as of {signature.serial}")
                return True
        raise StoreError(f"{self.bucket.where(key)} is being signed by others all the time: publish again")

    def _replace_signature(self, key: str, content: bytes, etag: str | None) -> bool:
        try:
            self.bucket.replace(key, content, etag)
        except ConditionFailed:
            return False
        return True

    def _current(self, model: str, channel: str) -> tuple[str, str]:
        found = self.read_channel(channel)
        if model not in found.models:
            where = self.bucket.where(channel_key(channel))
            what = f"has no release of {model!r}" if found.etag else "does not exist"
            there = f"; it has {', '.join(sorted(found.models))}" if found.models else ""
            raise NoSuchRelease(
                f"{where} {what}{there}{did_you_mean(model, found.models)}: {self._what_to_do(model, channel)}"
            )
        return found.models[model]["release_id"], found.models[model]["manifest_sha256"]

    def _what_to_do(self, model: str, channel: str) -> str:
        """Return how a channel gets a model that it has not, by the one command that is missing if there is one."""
        publish = f"publish {model} to channel {channel!r}, or choose another channel"
        package = package_directory(model)
        try:
            pushed = [
                (stated.serial, stated.release_id)
                for entry in self.bucket.list("releases/")
                if (found := _MANIFEST_KEY.fullmatch(entry.key)) and found["package"] == package
                if (stated := self.statement(found["release_id"], package))
            ]
            old_layout = next(self.bucket.list(f"{package}/"), None)
        except StoreError:  # an account that may not list
            return publish
        if pushed:
            release_id = max(pushed)[1]
            command = f"{PROMOTE_COMMAND} {release_id} {channel}"
            return f"{publish}; release {release_id} is in the store: `{command}` takes it"
        if old_layout:
            more = "" if channel == DEFAULT_CHANNEL else f" --channel {channel}"
            return (
                f"{package}/ at the top of the bucket, in the old layout, is not used because nobody signed it; where "
                f"the signing key is, `{ADOPT_COMMAND} {model}{more}` makes a release of it"
            )
        return publish

    def _complete_id(self, digits: str, package: str) -> str:
        if _RELEASE_ID.fullmatch(digits):
            return digits
        if not _RELEASE_ID_START.fullmatch(digits):
            raise NoSuchRelease(
                f"{digits!r} is not a release id: use its 64 digits of 0-9 and a-f, or at least the first 8"
            )
        found = set()
        for entry in self.bucket.list(f"releases/{digits}"):
            _, release_id, *name = entry.key.split("/", 2)
            if name == [f"{package}/{MANIFEST_NAME}"] and is_release_id(release_id):
                found.add(release_id)
        if len(found) != 1:
            what = "no release begins" if not found else f"{len(found)} releases begin"
            raise NoSuchRelease(
                f"{what} with {digits} for {package} in bucket {self.bucket.settings.bucket!r} at "
                f"{self.bucket.settings.endpoint}: list them with `PYTHONPATH=app python -m whisper_store list`"
            )
        return found.pop()

    def _checked_release(
        self, data: bytes, model: str, package: str, release_id: str, manifest_sha256: str | None
    ) -> dict[str, Any]:
        """Return what a manifest says of its release, as fields of `Release`."""
        where = self.bucket.where(release_key(release_id, package, MANIFEST_NAME))
        try:
            manifest = parse_manifest(data, where)
        except PackageError as error:
            raise DigestMismatch(str(error)) from None
        digest = hashlib.sha256(data).hexdigest()
        if manifest["release_id"] != release_id or manifest["model"]["name"] != model:
            raise DigestMismatch(
                f"{where} is the manifest of release {manifest['release_id']} of {manifest['model']['name']!r}: "
                "the store was altered; remove this release and publish it again"
            )
        if manifest_sha256 and digest != manifest_sha256:
            raise DigestMismatch(
                f"{where} differs from its channel (SHA-256): the store was altered; publish the release again"
            )
        return {
            "release_id": release_id,
            "package": package,
            "manifest": manifest,
            "manifest_sha256": digest,
            "files": listed_files(manifest, data),
        }

    def _exists(self, package: Package, file: dict[str, Any]) -> bool:
        """Return whether the object of a package's file exists. Raises `DigestMismatch` if its content differs."""
        key = release_key(package.release_id, package.name, file["path"])
        try:
            if self.bucket.holds(key, file["size"], file["sha256"]):
                return True
        except ObjectMissing:
            return False
        raise DigestMismatch(
            f"{self.bucket.where(key)} exists, but its content differs from release {package.release_id}: "
            "releases never change, so it was altered; remove the object and publish again"
        )

    def _upload(self, package: Package, file: dict[str, Any]) -> None:
        key = release_key(package.release_id, package.name, file["path"])
        try:
            self.bucket.create(key, _parts(package.path(file["path"]), file), file["size"], file["sha256"])
        except ConditionFailed:
            # Another publisher of the same release was faster; its object is as good as ours if it is identical.
            if not self._exists(package, file):
                raise StoreError(
                    f"{self.bucket.where(key)} is being written by another publisher that has not finished: "
                    "publish again in a moment"
                ) from None

    def _prove_conditions(self, package: Package) -> None:
        key = release_key(package.release_id, package.name, MANIFEST_NAME)
        ignored = self.bucket.ignored_condition(key, package.path(MANIFEST_NAME).read_bytes(), package.manifest_digest)
        if ignored:
            raise ConditionsIgnored(
                f"the store at {self.bucket.settings.endpoint} ignores {ignored} on writes, so a publisher could "
                "overwrite another's work unseen: no channel was changed; use a store that honours conditional writes"
            )


def _parts(path: Path, file: dict[str, Any]) -> Iterator[bytes]:
    """Yield a file's bytes in parts; raises before the last part is used if the file differs from its entry."""
    digest = hashlib.sha256()
    size = 0
    try:
        with open(path, "rb") as stream:
            for body in iter(lambda: stream.read(PART_SIZE), b""):
                digest.update(body)
                size += len(body)
                if size >= file["size"] and digest.hexdigest() != file["sha256"]:
                    raise DigestMismatch(
                        f"{path} changed while it was being published: build or fetch the package again"
                    )
                yield body
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if size != file["size"]:
        raise DigestMismatch(f"{path} changed while it was being published: build or fetch the package again")
