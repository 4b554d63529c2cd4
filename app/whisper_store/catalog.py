"""What the owner of the artifacts does with published releases: list, verify, sign, promote, prune.

Listing and verifying need an account that reads, signing and promoting one that publishes, pruning one that may delete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from whisper_package.manifest import MANIFEST_NAME
from whisper_package.models import model_of
from whisper_package.signature import Signature, Signer, new_serial
from whisper_store.bucket import Entry
from whisper_store.errors import BrokenChannel, ConditionFailed, NoSuchRelease, ObjectMissing, StoreError, Untrusted
from whisper_store.store import Channel, Release, Store, is_channel, is_release_id

# What an interrupted publish left is kept this long: its publisher may still be running.
UNFINISHED_AGE = timedelta(hours=24)


@dataclass(frozen=True)
class StoredRelease:
    """A release as the store lists it; `date` is its completion, and `channels` are those that name it."""

    release_id: str
    package: str
    size: int
    date: datetime
    complete: bool
    channels: list[str]
    keys: list[str]

    @property
    def model(self) -> str:
        """The model of its package, empty for a directory that is none of a package."""
        return model_of(self.package)


def channels(store: Store, report: Callable[[str], None] | None = None) -> list[Channel]:
    """Return every channel, by name; an object that cannot be the name of one is passed over.

    What is wrong with a broken one goes to `report`, and the others are returned. Without `report` it is raised:
    whoever deletes what no channel names must know them all.
    """
    names = [entry.key.removeprefix("channels/").removesuffix(".json") for entry in store.bucket.list("channels/")]
    found = []
    for name in filter(is_channel, names):
        try:
            found.append(store.read_channel(name))
        except BrokenChannel as error:
            if report is None:
                raise
            report(str(error))
    return found


def releases(store: Store, known: list[Channel] | None = None) -> list[StoredRelease]:
    """Return every release, newest first; one without a manifest is not complete.

    `known` are the channels, which are read otherwise. Objects that cannot be of a release are passed over.
    """
    objects: dict[tuple[str, str], list[Entry]] = {}
    for entry in store.bucket.list("releases/"):
        parts = entry.key.split("/", 3)
        if len(parts) == 4 and is_release_id(parts[1]) and model_of(parts[2]):
            objects.setdefault((parts[1], parts[2]), []).append(entry)
    named: dict[str, list[str]] = {}
    for channel in channels(store) if known is None else known:
        for of_model in channel.models.values():
            named.setdefault(of_model["release_id"], []).append(channel.name)
    found = []
    for (release_id, package), entries in objects.items():
        manifests = [entry for entry in entries if entry.key.endswith(f"/{package}/{MANIFEST_NAME}")]
        found.append(
            StoredRelease(
                release_id=release_id,
                package=package,
                size=sum(entry.size for entry in entries),
                date=max(entry.modified for entry in manifests or entries),
                complete=bool(manifests),
                channels=named.get(release_id, []),
                keys=[entry.key for entry in entries],
            )
        )
    return sorted(found, key=lambda release: release.date, reverse=True)


def chosen(store: Store, digits: list[str], channel: str | None = None) -> list[StoredRelease]:
    """Return the complete releases whose ids begin with one of `digits`, or that `channel` names, or all of them."""
    # A broken channel is no reason to leave releases unread, unless it is the one that is asked for.
    known = [store.read_channel(channel)] if channel else channels(store, lambda line: None)
    found = [release for release in releases(store, known) if release.complete]
    if channel:
        found = [release for release in found if channel in release.channels]
        if not found:
            raise NoSuchRelease(f"channel {channel!r} names no complete release")
    for start in digits:
        if not any(release.release_id.startswith(start) for release in found):
            raise NoSuchRelease(
                f"no complete release begins with {start}: list them with `PYTHONPATH=app python -m whisper_store list`"
            )
    return [release for release in found if not digits or release.release_id.startswith(tuple(digits))]


def problems(store: Store, release: Release) -> list[str]:
    """Read every byte of a release and return one line for each file that differs from its manifest."""
    lines = []
    for file in release.files:
        try:
            intact = store.bucket.holds(release.key(file["path"]), file["size"], file["sha256"])
        except ObjectMissing:
            lines.append(f"{store.bucket.where(release.key(file['path']))} is missing: publish the release again")
            continue
        if not intact:
            lines.append(
                f"{store.bucket.where(release.key(file['path']))} differs from its manifest (SHA-256): "
                "remove it and publish the release again"
            )
    return lines


def unsigned(store: Store) -> list[StoredRelease]:
    """Return the complete releases that no trusted key has signed."""
    return [release for release in chosen(store, []) if not store.statement(release.release_id, release.package)]


def renewable(store: Store, channel: str, named: list[str]) -> list[tuple[StoredRelease, Signature]]:
    """Return what `channel` names, with what a trusted key states of it now; not the releases `named` by their ids.

    A channel is not signed. So each release must be signed by a trusted key, and no other of its model signed later:
    else the routine renewal of a date would make whatever somebody wrote into the channel the newest of all. Raises
    `Untrusted`.
    """
    names = store.read_channel(channel).models
    if not names:
        raise NoSuchRelease(f"channel {channel!r} names no release")
    there = [release for release in releases(store, []) if release.complete]
    found = []
    for model, entry in names.items():
        if entry["release_id"] in named:
            continue
        release = store.resolve(model, release=entry["release_id"])
        for other in there:
            stated = store.statement(other.release_id, other.package) if other.package == release.package else None
            if stated and stated.serial > release.signature.serial:
                raise Untrusted(
                    f"channel {channel!r} names release {release.release_id} of {model}, signed "
                    f"{release.signature.serial}, but release {other.release_id} was signed {stated.serial}; nothing "
                    "was signed: if the channel is to name the older one, sign that by its id; if you did not point "
                    "the channel there, somebody else did"
                )
            if (other.release_id, other.package) == (release.release_id, release.package):
                found.append((other, release.signature))
    return found


def sign(store: Store, wanted: list[StoredRelease], signer: Signer, as_of_publication: bool) -> None:
    """Sign releases, the newest last.

    A serial orders the releases of a model. It is the present time, or, `as_of_publication`, the time when a release
    that no channel names was completed: so that none of them gets newer than what the channels name.
    """
    now = new_serial()
    for release in sorted(wanted, key=lambda release: release.date):
        current = not as_of_publication or release.channels
        store.sign(release.model, release.release_id, signer, now if current else new_serial(release.date))


def promote(
    store: Store, source: str, target: str, models: list[str] | None = None, dry_run: bool = False
) -> tuple[Channel, Channel]:
    """Make channel `target` name what `source` names, for `models` or all of them; return `target` before and after.

    `source` is a channel, or all 64 digits of a release. Every release is checked first: a channel never names one that
    is not complete.
    """
    if is_release_id(source):
        found = [store.resolve(release.model, release=source) for release in chosen(store, [source])]
        entries = {release.manifest["model"]["name"]: release.channel_entry for release in found}
        if unknown := sorted(set(models or ()) - set(entries)):
            raise NoSuchRelease(f"release {source} is of {', '.join(entries)}, not of {', '.join(unknown)}")
    else:
        read = store.read_channel(source)
        wanted = models or sorted(read.models)
        if not wanted:
            raise NoSuchRelease(f"channel {source!r} names no release: there is nothing to promote")
        for model in wanted:
            store.resolve(model, channel=source)
        entries = {model: read.models[model] for model in wanted}
    before = store.read_channel(target)
    if dry_run:
        return before, Channel(target, {**before.models, **entries}, before.etag)
    return before, store.point(before, entries)


def prune(
    store: Store, keep: int, dry_run: bool = True, log: Callable[[str], None] = lambda line: None
) -> list[StoredRelease]:
    """Delete all but the newest `keep` releases of each model, and return them; never one that a channel names.

    What interrupted publishes left is deleted too once it is a day old. `dry_run` deletes nothing.
    """
    if keep < 1:
        raise StoreError(f"at least one release of each model must be kept, not {keep}: correct --keep")
    oldest = datetime.now(timezone.utc) - UNFINISHED_AGE
    kept: dict[str, int] = {}
    doomed = []
    for release in releases(store):
        if release.complete:
            kept[release.package] = kept.get(release.package, 0) + 1
            if kept[release.package] > keep and not release.channels:
                doomed.append(release)
        elif release.date < oldest:
            doomed.append(release)
    if dry_run:
        return doomed
    deleted = []
    for release in doomed:
        if _delete(store, release):
            deleted.append(release)
        else:
            log(f"{release.release_id} is kept: a channel names it now")
    store.bucket.abort_uploads("releases/", oldest)
    return deleted


def _delete(store: Store, release: StoredRelease) -> bool:
    """Delete a release unless a channel names it by now; its manifest is deleted first and may be restored."""
    key = f"releases/{release.release_id}/{release.package}/{MANIFEST_NAME}"
    manifest = None
    if release.complete:
        manifest, _ = store.bucket.read_document(key)
        # Without the manifest no publisher takes the release for complete: one that comes now uploads it again.
        store.bucket.delete(key)
    if any(
        entry["release_id"] == release.release_id for channel in channels(store) for entry in channel.models.values()
    ):
        if manifest is not None:
            with contextlib.suppress(ConditionFailed):  # its publisher was faster
                store.bucket.replace(key, manifest, None)
        return False
    for other in release.keys:
        if other != key:
            store.bucket.delete(other)
    return True
