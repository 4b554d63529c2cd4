"""Make a ggml file of whatever Whisper a path holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from whisper_build.downloads import SourceError
from whisper_build.weights import ctranslate2, ggml, huggingface, pytorch
from whisper_build.weights.checkpoint import Checkpoint, printable
from whisper_build.weights.pinned import Assets
from whisper_package.digests import file_digest

# Goes up with every change that makes other bytes of the same source: what was converted before is converted again.
VERSION = 1

_FORMS = (
    "a ggml file, OpenAI's .pt, a Hugging Face directory (config.json, model.safetensors) or a CTranslate2 directory "
    "(model.bin, vocabulary.json or .txt)"
)
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_POINTER = b"version https://git-lfs.github.com/spec/"
# What Python and numpy raise for a source whose parts contradict each other in a way that no reader looks for.
_DAMAGE = (ValueError, TypeError, IndexError, OverflowError, MemoryError, RecursionError)


class Source:
    """A model in another form than ggml: its reader, and the files that decide what comes out of it."""

    def __init__(self, path: Path, files: list[Path], read: Callable[[Path], Checkpoint]):
        """Describe it. Raises `SourceError` for Git LFS pointers."""
        for file in files:
            _check_content(file)
        self._path = path
        self._files = files
        self._read = read

    def digest(self) -> str:
        """Return the SHA-256 (hex) of this converter's version and of the names and bytes of all files."""
        lines = [f"{file_digest(path)}  {path.name}\n" for path in sorted(self._files)]
        return hashlib.sha256("".join([f"converter {VERSION}\n", *lines]).encode("utf-8")).hexdigest()

    def convert(self, assets: Assets, destination: Path) -> None:
        """Write the ggml file. Raises `SourceError`."""
        try:
            checkpoint = self._read(self._path)
            checkpoint.check()
            assets.check_vocabulary(checkpoint)
            ggml.write(checkpoint, assets, destination)
        except _DAMAGE as error:
            raise SourceError(
                f"{self._path} is damaged or not a Whisper model ({type(error).__name__}: {printable(str(error))}): "
                "get it again"
            ) from error
        ggml.check(destination)


def source(path: Path) -> Source | None:
    """Return what is to be converted, None for a ggml file that can be used as it is. Raises `SourceError`."""
    if path.is_dir():
        return _directory(path)
    with open(path, "rb") as stream:
        start = stream.read(9)
    if start.startswith(ggml.MAGIC):
        ggml.check(path)
        return None
    if start.startswith(_ZIP):
        return Source(path, [path], pytorch.read_openai)
    if start.startswith(_PICKLE):
        raise SourceError(
            f"{path} was saved by a PyTorch before 1.6, in a form that cannot be read without running it: load it with "
            "torch.load(..., weights_only=True) and save it again with torch.save"
        )
    if start.endswith(b"{"):
        raise SourceError(f"{path} is a safetensors file without its config.json: give the directory that has both")
    _check_content(path)
    raise SourceError(f"{path} is not a Whisper model: {_FORMS} is needed")


def _check_content(path: Path) -> None:
    with open(path, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise SourceError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` there")


def _directory(path: Path) -> Source:
    if (path / ctranslate2.MODEL).is_file():
        return Source(path, ctranslate2.files(path), ctranslate2.read)
    if (path / huggingface.CONFIG).is_file():
        return Source(path, huggingface.files(path), huggingface.read)
    raise SourceError(
        f"{path} is not a directory of a Whisper model: neither {huggingface.CONFIG} nor {ctranslate2.MODEL} is there; "
        f"{_FORMS} is needed"
    )
