"""The normalized whisper.cpp tree: the files that a build reads, wherever they came from.

A git checkout and an sdist have different extra files, modes and times; the digest covers paths and bytes only, so that
the same source has the same id however it was obtained.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from whisper_build.downloads import SourceError
from whisper_package.digests import file_digest

# What CMake needs to configure and compile whisper, whisper-cli and whisper-quantize, and the public-domain clip that
# is the default self-test. The example directories beside cli and quantize are only configured, since
# examples/CMakeLists.txt adds them unconditionally.
_DIRECTORIES = (
    "cmake",
    "examples/bench",
    "examples/cli",
    "examples/deprecation-warning",
    "examples/quantize",
    "examples/server",
    "examples/vad-speech-segments",
    "ggml",
    "include",
    "src",
)
_FILES = frozenset(
    {
        "CMakeLists.txt",
        "LICENSE",
        "bindings/javascript/package-tmpl.json",
        "examples/CMakeLists.txt",
        "examples/common-ggml.cpp",
        "examples/common-ggml.h",
        "examples/common-whisper.cpp",
        "examples/common-whisper.h",
        "examples/common.cpp",
        "examples/common.h",
        "examples/grammar-parser.cpp",
        "examples/grammar-parser.h",
        "examples/json.hpp",
        "examples/miniaudio.h",
        "examples/stb_vorbis.c",
        "samples/jfk.wav",
    }
)


def belongs(relative: str) -> bool:
    """Tell whether a path, relative to the root of whisper.cpp, is part of the normalized tree."""
    parts = PurePosixPath(relative).parts
    if any(part.startswith(".") for part in parts):
        return False
    return relative in _FILES or any(relative.startswith(directory + "/") for directory in _DIRECTORIES)


def tree_digest(root: Path) -> str:
    """Return the digest of every file below `root`.

    It is the SHA-256 of the lines `<sha256>  <path>` in byte order of the paths, so that
    `find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum` gives the same.
    """
    lines = [f"{file_digest(root / relative)}  {relative}\n" for relative in sorted(_walk(root), key=os.fsencode)]
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def copy_from_directory(source: Path, destination: Path) -> None:
    """Write the normalized tree of a whisper.cpp checkout to `destination`. Raises `SourceError`."""
    _write(((path, (source / path).read_bytes()) for path in _walk(source) if belongs(path)), destination, str(source))


def copy_from_archive(archive: Path, subdir: str, destination: Path) -> None:
    """Write the normalized tree found below `subdir` of a tar archive to `destination`. Raises `SourceError`."""
    prefix = subdir.strip("/") + "/" if subdir.strip("/") else ""
    try:
        with tarfile.open(archive) as tar:
            _write(_archive_files(tar, prefix), destination, f"{archive} (subdir {subdir or '.'})")
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"{archive} cannot be unpacked: {error}") from None


def _archive_files(tar: tarfile.TarFile, prefix: str) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        # Only regular files are read, and only under names that belongs() knows: links and `..` cannot get out.
        if not member.isreg() or not member.name.startswith(prefix):
            continue
        relative = member.name[len(prefix) :]
        if ".." not in PurePosixPath(relative).parts and belongs(relative):
            stream = tar.extractfile(member)
            if stream is not None:
                yield relative, stream.read()


def _write(files: Iterable[tuple[str, bytes]], destination: Path, source: str) -> None:
    written = set()
    for relative, content in files:
        target = destination / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.add(relative)
    missing = sorted(name for name in _FILES if name not in written)
    if missing:
        raise SourceError(f"{source} is not a whisper.cpp source tree: {', '.join(missing)} not found in it")


def _walk(root: Path) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory) / name
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(root).as_posix()
