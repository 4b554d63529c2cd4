"""Download a package from the store into a directory that appears complete or not at all.

    DIR/whisper_small_xeon/                              the package, put in place by one rename
    DIR/.whisper_small_xeon.<release id>.part/           what has arrived so far; the next run resumes it
        <file>                                           complete, its digest checked
        <file>.part  <file>.ranges                       some ranges of it, and their numbers
    DIR/.whisper_small_xeon.lock                         locked while one process downloads
    DIR/.whisper_small_xeon.serials                      the newest serial that came from each channel (serials.py)

A corrupt or partial file never has its final name, and no file is fetched before the release's signature is verified.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

from whisper_package.digests import file_digest
from whisper_package.errors import OldLayoutError, PackageError
from whisper_package.manifest import SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import Signature
from whisper_store.errors import DigestMismatch, NoSuchRelease, ObjectMissing, StoreError
from whisper_store.progress import Progress
from whisper_store.serials import Serials
from whisper_store.store import Release, Store, model_and_package

RANGE_SIZE = 4 << 20
PARALLEL = 4

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclass(frozen=True)
class Downloaded:
    """A package in `directory`; `fetched` is False if it was already there."""

    directory: Path
    release_id: str
    fetched: bool
    signature: Signature


@dataclass(frozen=True)
class _File:
    path: str
    key: str
    size: int
    executable: bool
    sha256: str

    def matches(self, path: Path) -> bool:
        """Whether a local file is this one."""
        try:
            return path.lstat().st_size == self.size and file_digest(path) == self.sha256
        except OSError:
            return False


def download(
    store: Store,
    model: str,
    directory: Path | str,
    *,
    channel: str,
    release: str | None = None,
    output: TextIO,
) -> Downloaded:
    """Put the package of `model` below `directory`: the release that `channel` names, or the one with that id.

    It must be signed by a key that `store` trusts and, if a channel names it, be no older than what that channel named
    before. A complete package of that release that already exists is left alone; one of another release is replaced.
    Progress goes to `output`. Raises `StoreError`.
    """
    model, package = model_and_package(model)
    target = Path(directory) / package
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, output):
            found = store.resolve(model, channel, release)
            serials = Serials(target.parent / f".{target.name}.serials")
            if not release:
                serials.check(channel, found.signature, store.trusted)
            fetched = not _is_complete(target, found.release_id)
            if fetched:
                files = [
                    _File(entry["path"], found.key(entry["path"]), entry["size"], entry["executable"], entry["sha256"])
                    for entry in found.files
                ]
                _fetch_package(store, target, found, files, output)
            else:
                _write_signature(target, found)
            if not release:
                serials.note(channel, found.signature)
            return Downloaded(target, found.release_id, fetched, found.signature)
    except OSError as error:
        raise StoreError(
            f"{error.filename or target.parent} cannot be written: {error.strerror}; "
            "make the directory writable for this user, free some space, or choose another directory"
        ) from None


def _is_complete(target: Path, release_id: str) -> bool:
    try:
        package = Package(target)
        package.verify()
    except OldLayoutError as error:
        raise NoSuchRelease(str(error)) from None  # it may be the only copy of somebody's weights
    except PackageError:
        return False
    return package.release_id == release_id


def _write_signature(directory: Path, release: Release) -> None:
    """Put the newest statement beside the manifest that it is about."""
    path = directory / SIGNATURE_NAME
    with contextlib.suppress(OSError):
        if path.read_text("ascii", "replace") == release.signed:
            return
    scratch = directory / f".{SIGNATURE_NAME}.new"
    scratch.write_text(release.signed, "ascii")
    scratch.chmod(0o644)
    scratch.replace(path)


def _fetch_package(store: Store, target: Path, release: Release, files: list[_File], output: TextIO) -> None:
    """Fill the staging directory of a release with `files`, and make it `target`."""
    staging = target.parent / f".{target.name}.{release.release_id}.part"
    for other in target.parent.glob(f".{target.name}.*.part"):
        if other != staging:
            shutil.rmtree(other)
    _open_staging(staging)
    missing = [file for file in files if not file.matches(staging / file.path)]
    parts = {file.path: _PartialFile(staging, file) for file in missing}
    to_come = sum(part.missing_bytes for part in parts.values())
    _check_space(target.parent, to_come)
    progress = Progress(to_come, output)
    for file in missing:
        _fetch_file(store, staging, file, parts[file.path], progress)
    progress.finish()
    _remove_leftovers(staging, files)
    _write_signature(staging, release)
    for directory, _, _ in os.walk(staging):
        Path(directory).chmod(0o755)
        _sync(Path(directory))
    _put_in_place(staging, target)


def _fetch_file(store: Store, staging: Path, file: _File, part: _PartialFile, progress: Progress) -> None:
    final = staging / file.path
    for last in (False, True):
        progress.start_file(file.path, file.size, file.size - part.missing_bytes)
        part.fetch(store, progress)
        if file.matches(part.path):
            break
        part.discard()
        if last:
            progress.finish()
            raise DigestMismatch(
                f"{store.bucket.where(file.key)} twice differed from its manifest; nothing was "
                "put in place: verify the release (python -m whisper_store verify) and publish it again"
            )
        # It may have been corrupted by an earlier run or on the way.
        progress.note(f"{file.path} differs from its manifest: fetching it again")
    part.path.chmod(0o755 if file.executable else 0o644)
    part.path.replace(final)
    part.forget()


class _PartialFile:
    """A file that arrives in ranges: its bytes so far, and beside them the numbers of the complete ranges."""

    def __init__(self, staging: Path, file: _File):
        self.file = file
        self.path = staging / f"{file.path}.part"
        self._record = staging / f"{file.path}.ranges"
        self._lock = threading.Lock()
        self._done = self._read_record()

    @property
    def _count(self) -> int:
        return -(-self.file.size // RANGE_SIZE)

    @property
    def missing_bytes(self) -> int:
        """Bytes still to come."""
        return sum(self._length(number) for number in range(self._count) if number not in self._done)

    def _length(self, number: int) -> int:
        return min(RANGE_SIZE, self.file.size - number * RANGE_SIZE)

    def _read_record(self) -> set[int]:
        try:
            if self.path.lstat().st_size != self.file.size:
                return set()
            return {int(line) for line in self._record.read_text("ascii").split()} & set(range(self._count))
        except (OSError, ValueError):
            return set()

    def discard(self) -> None:
        """Start from nothing."""
        self.forget()
        self.path.unlink(missing_ok=True)
        self._done = set()

    def forget(self) -> None:
        """Remove the record of ranges."""
        self._record.unlink(missing_ok=True)

    def fetch(self, store: Store, progress: Progress) -> None:
        """Fetch the missing ranges, several at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        missing = [number for number in range(self._count) if number not in self._done]
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, self.file.size)
            with open(self._record, "a" if self._done else "w", encoding="ascii") as record:
                self._fetch_ranges(missing, store, descriptor, record, progress)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _fetch_ranges(
        self, missing: list[int], store: Store, descriptor: int, record: TextIO, progress: Progress
    ) -> None:
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            tasks = [pool.submit(self._fetch_range, store, number, descriptor, record, progress) for number in missing]
            try:
                for task in concurrent.futures.as_completed(tasks):
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _fetch_range(self, store: Store, number: int, descriptor: int, record: TextIO, progress: Progress) -> None:
        start, length = number * RANGE_SIZE, self._length(number)
        data = _read_range(store, self.file, start, length)
        os.pwrite(descriptor, data, start)
        with self._lock:
            record.write(f"{number}\n")
            record.flush()
            self._done.add(number)
        progress.add(length)


def _read_range(store: Store, file: _File, start: int, length: int) -> bytes:
    try:
        data = store.bucket.read_range(file.key, start, length)
    except ObjectMissing:
        raise NoSuchRelease(
            f"{store.bucket.where(file.key)} is missing: the release is incomplete; publish it again"
        ) from None
    if len(data) != length:
        raise DigestMismatch(
            f"{store.bucket.where(file.key)} is shorter than its manifest says: remove it and publish the release again"
        )
    return data


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    wanted = needed + needed // 10
    if free < wanted:
        raise StoreError(
            f"{directory} has {free / 1e6:.0f} MB of free space, but {wanted / 1e6:.0f} MB are needed: "
            "free some or choose another directory"
        )


def _open_staging(staging: Path) -> None:
    """Make the staging directory, or go on with that of an earlier run, which made no links: none is followed."""
    if staging.is_symlink():
        staging.unlink()
    elif any(path.is_symlink() for path in staging.rglob("*")):
        shutil.rmtree(staging)
    staging.mkdir(exist_ok=True)


def _remove_leftovers(staging: Path, files: list[_File]) -> None:
    """Remove files of an earlier run that are not part of this release, and directories without one that is."""
    wanted = {file.path for file in files}
    needed = {parent.as_posix() for path in wanted for parent in PurePosixPath(path).parents}
    for directory, directories, names in os.walk(staging):
        here = Path(directory).relative_to(staging)
        for name in names:
            if (here / name).as_posix() not in wanted:
                Path(directory, name).unlink()
        for name in directories:
            if (here / name).as_posix() not in needed:
                shutil.rmtree(Path(directory, name))


def _put_in_place(staging: Path, target: Path) -> None:
    """Give the staging directory its final name, replacing what has it, with no moment without a package."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise StoreError(f"{target} is not a directory: remove it and try again")
    if not target.exists():
        staging.rename(target)
    else:
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        if not _exchange(staging, target):
            target.rename(old / "package")
            staging.rename(target)
        else:
            staging.rename(old / "package")
        shutil.rmtree(old)
    _sync(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; return False if the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    # int renameat2(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, unsigned int flags);
    return libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(target: Path, output: TextIO) -> Iterator[None]:
    """Hold the lock of a package's directory, so that two processes on one volume download it once."""
    lock = target.parent / f".{target.name}.lock"
    with open(lock, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            output.write(f"another process is downloading {target.name} to {target.parent}: waiting for it\n")
            output.flush()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
