"""What somebody with the bucket's own keys can do to it, one function for each attack of The Update Framework's list.

An attack gets the bucket as the publisher's account writes to it, and what was published there: `old` and `new` of
`small`, `medium`, all signed, and a channel that names `new` and `medium`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sealed_packages import hollow_package, variant
from signing import sign
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import new_private_key
from whisper_store.client import s3_client
from whisper_store.settings import StoreSettings
from whisper_store.store import Store, channel_key, release_key

OLD_SERIAL, NEW_SERIAL = "20260102000000", "20260202000000"
EVIL = "libggml-blas.so.0"  # a library that whisper.cpp loads if it is there


@dataclass
class Target:
    """A channel in a bucket, written to with the publisher's keys."""

    settings: StoreSettings
    channel: str
    old: Package
    new: Package
    medium: Package
    scratch: Path
    before: bytes = b""  # the channel when it named `old`
    after: bytes = b""  # and as it is

    def __post_init__(self) -> None:
        """Connect."""
        self._client = s3_client(self.settings)

    def put(self, key: str, body: bytes) -> None:
        """Write an object over whatever there is."""
        self._client.put_object(Bucket=self.settings.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        """Return an object."""
        return self._client.get_object(Bucket=self.settings.bucket, Key=key)["Body"].read()

    def upload(self, package: Package, name: str = "") -> None:
        """Write every file of a package, and its signature if it has one, whatever that is worth."""
        for path in package.directory.rglob("*"):
            if path.is_file():
                relative = path.relative_to(package.directory).as_posix()
                self.put(release_key(package.release_id, name or package.name, relative), path.read_bytes())

    def point(self, package: Package, changes: dict[str, str] | None = None) -> None:
        """Have the channel name a package for `small`, with changes to its entry."""
        key = channel_key(self.channel)
        content = json.loads(self.get(key))
        entry = {"release_id": package.release_id, "package": package.name, "manifest_sha256": package.manifest_digest}
        content["models"]["small"] = {**entry, **(changes or {})}
        self.put(key, json.dumps(content).encode())

    def restore(self) -> None:
        """Have the bucket say what it said before an attack on the channel, manifests or signatures."""
        for package in (self.old, self.new, self.medium):
            for path in (MANIFEST_NAME, SIGNATURE_NAME):
                self.put(release_key(package.release_id, package.name, path), package.path(path).read_bytes())
        self.put(channel_key(self.channel), self.after)

    def key(self, path: str) -> str:
        """Return the key of a file of the release that the channel names."""
        return release_key(self.new.release_id, self.new.name, path)


def published(settings: StoreSettings, trusted: tuple[str, ...], channel: str, folder: Path, base: Package) -> Target:
    """Publish what an attack finds, made of `base`, a package of `small`."""
    store = Store(settings, trusted=trusted)
    old, new = (variant(base, folder / name, {"WHICH": f"{channel} {name}".encode()}) for name in ("old", "new"))
    target = Target(settings, channel, old, new, hollow_package(folder / "medium", "medium"), folder / "scratch")
    sign(old.directory, OLD_SERIAL)
    store.publish(old.directory, channel)
    target.before = target.get(channel_key(channel))
    sign(new.directory, NEW_SERIAL)
    store.publish(new.directory, channel)
    store.publish(target.medium.directory, channel)
    target.after = target.get(channel_key(channel))
    return target


def evil(target: Target) -> Package:
    """Return a package with a library of the attacker's, which is not signed."""
    shutil.rmtree(target.scratch, ignore_errors=True)
    made = variant(target.new, target.scratch, {EVIL: b"\x7fELF evil"})
    made.path(SIGNATURE_NAME).unlink()
    return made


def unsigned_library(target: Target) -> None:
    """Arbitrary software: a release with another library, no signature."""
    made = evil(target)
    target.upload(made)
    target.point(made)


def borrowed_signature(target: Target) -> None:
    """Arbitrary software: the signature of a good release beside an evil one."""
    made = evil(target)
    shutil.copy(target.new.path(SIGNATURE_NAME), made.directory)
    target.upload(made)
    target.point(made)


def edited_signature(target: Target) -> None:
    """Arbitrary software: the good statement, with the ids of the evil release written into it."""
    made = evil(target)
    good = target.new.path(SIGNATURE_NAME).read_bytes()
    edited = good.replace(target.new.release_id.encode(), made.release_id.encode())
    edited = edited.replace(target.new.manifest_digest.encode(), made.manifest_digest.encode())
    made.path(SIGNATURE_NAME).write_bytes(edited)
    target.upload(made)
    target.point(made)


def key_of_ones_own(target: Target) -> None:
    """Arbitrary software: well signed, by the attacker."""
    made = evil(target)
    sign(made.directory, "20990101000000", new_private_key())
    target.upload(made)
    target.point(made)


def manifest_exchanged(target: Target) -> None:
    """Arbitrary software: the evil manifest in place of the good one, under its id and signature."""
    made = evil(target)
    target.put(target.key(EVIL), made.path(EVIL).read_bytes())
    target.put(target.key(MANIFEST_NAME), made.path(MANIFEST_NAME).read_bytes())
    target.point(target.new, {"manifest_sha256": made.manifest_digest})


def old_channel(target: Target) -> None:
    """Rollback: the channel as it was, byte for byte."""
    target.put(channel_key(target.channel), target.before)


def raised_serial(target: Target) -> None:
    """Rollback: the old release, with a newer serial written into its statement."""
    old = target.old.path(SIGNATURE_NAME).read_bytes()
    target.put(
        release_key(target.old.release_id, target.old.name, SIGNATURE_NAME),
        old.replace(OLD_SERIAL.encode(), b"20990101000000"),
    )
    target.point(target.old)


def newer_signature_on_the_old(target: Target) -> None:
    """Mix and match: the old release with the new one's signature."""
    target.put(
        release_key(target.old.release_id, target.old.name, SIGNATURE_NAME),
        target.new.path(SIGNATURE_NAME).read_bytes(),
    )
    target.point(target.old)


def another_model(target: Target) -> None:
    """Wrong software: a signed release of another model, under this one's name."""
    for path in target.medium.directory.rglob("*"):
        if path.is_file():
            relative = path.relative_to(target.medium.directory).as_posix()
            target.put(release_key(target.medium.release_id, target.new.name, relative), path.read_bytes())
    target.point(target.medium, {"package": target.new.name})


def endless_signature(target: Target) -> None:
    """Endless data: a signature of 3 MB."""
    target.put(target.key(SIGNATURE_NAME), b"x" * 3_000_000)


def endless_manifest(target: Target) -> None:
    """Endless data: a manifest of 8 MB."""
    body = target.new.path(MANIFEST_NAME).read_bytes() + b" " * (8 << 20)
    target.put(target.key(MANIFEST_NAME), body)
    target.point(target.new, {"manifest_sha256": hashlib.sha256(body).hexdigest()})


def endless_channel(target: Target) -> None:
    """Endless data: a channel of 8 MB."""
    key = channel_key(target.channel)
    target.put(key, target.get(key) + b" " * (8 << 20))


# What somebody writes into a channel whose owner renews its date: what the refusal of the owner's command says.
RENEWED: dict[Callable[[Target], None], str] = {
    unsigned_library: "is not signed: ",
    key_of_ones_own: "signed by none of the trusted keys",
    old_channel: "if you did not point the channel there, somebody else did",
}
# Attack: what the refusal says.
ATTACKS: dict[Callable[[Target], None], str] = {
    unsigned_library: "is not signed: ",
    borrowed_signature: "differs from what was signed",
    edited_signature: "signed by none of the trusted keys",
    key_of_ones_own: "signed by none of the trusted keys",
    manifest_exchanged: "differs from what was signed",
    old_channel: "somebody put an old channel back",
    raised_serial: "signed by none of the trusted keys",
    newer_signature_on_the_old: "differs from what was signed",
    another_model: "is the manifest of release",
    endless_signature: "is not one: sign it again",
    endless_manifest: "larger than any",
    endless_channel: "larger than any",
}
