"""OpenAI's `.pt` and Hugging Face's `pytorch_model.bin`: what `torch.save` writes, read without torch.

Such a file is a ZIP archive of a pickle and, beside it, the numbers of each storage as they lie in memory.
"""

from __future__ import annotations

import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from whisper_build.downloads import SourceError
from whisper_build.weights.checkpoint import FLOAT16, Checkpoint, Tensor, bfloat16, count, printable
from whisper_build.weights.pickles import PickleError, StoredTensor, load
from whisper_package.model_file import HyperParameters

# The pickle names a few thousand tensors at most; 3 MB for the largest Whisper would be many.
_PICKLE_BYTES = 16 << 20
# What zipfile raises for archives that are damaged, encrypted or of another kind.
_DAMAGE = (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OSError, struct.error)


def read_openai(path: Path) -> Checkpoint:
    """Return the checkpoint that OpenAI's `whisper` saves: `dims` and `model_state_dict`. Raises `SourceError`."""
    archive = _Archive(path)
    saved = archive.content()
    if not isinstance(saved, dict) or not {"dims", "model_state_dict"} <= saved.keys():
        raise SourceError(
            f"{path} is not a checkpoint of OpenAI's whisper: it lacks dims or model_state_dict. Give the Hugging Face "
            "directory that it belongs to, or save both with torch.save"
        )
    dims = saved["dims"] if isinstance(saved["dims"], dict) else {}
    sizes = {
        name: count(dims.get(name), f"{name} in dims", path) for name in HyperParameters._fields if name != "ftype"
    }
    return Checkpoint(path, HyperParameters(**sizes, ftype=FLOAT16), archive.tensors(saved["model_state_dict"]))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors, by name, of a file that holds nothing but them. Raises `SourceError`."""
    archive = _Archive(path)
    return archive.tensors(archive.content())


class _Archive:
    """A ZIP archive as torch writes it: nothing in it is compressed, and everything lies below one directory."""

    def __init__(self, path: Path):
        self._path = path
        self._size = path.stat().st_size
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise SourceError(f"{path} is cut off or damaged ({error}): get it again") from None
        found = [name for name in self._zip.NameToInfo if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise SourceError(f"{path} was not written by torch.save: it has {len(found)} files */data.pkl, not one")
        self._directory = found[0].partition("/")[0]
        if f"{self._directory}/byteorder" in self._zip.NameToInfo and self._bytes("byteorder", at_most=16) != b"little":
            raise SourceError(f"{path} was saved on a big-endian machine: save it on a little-endian one")

    def content(self) -> Any:
        """Return what the pickle describes."""
        try:
            return load(self._bytes("data.pkl", at_most=_PICKLE_BYTES))
        except PickleError as error:
            raise SourceError(f"{self._path}: {error}. Get the model from a source that you trust") from None

    def tensors(self, described: Any) -> dict[str, Tensor]:
        """Return name → tensor of what the pickle described as a dictionary of tensors."""
        if not isinstance(described, dict):
            raise SourceError(f"{self._path} has no dictionary of tensors: save model.state_dict()")
        tensors = {}
        for name, stored in described.items():
            if not isinstance(name, str) or not isinstance(stored, StoredTensor):
                raise SourceError(f"{self._path}: {printable(name)} is not a tensor: save model.state_dict() alone")
            tensors[name] = Tensor(stored.shape, partial(self._numbers, stored))
        return tensors

    def _numbers(self, stored: StoredTensor) -> np.ndarray:
        storage = stored.storage
        kind = np.dtype(np.uint16 if storage.kind == "bfloat16" else storage.kind)
        size = storage.count * kind.itemsize
        data = self._bytes(f"data/{storage.key}", at_most=size)
        if len(data) != size:
            raise SourceError(
                f"{self._path}: {printable(f'data/{storage.key}')} has {len(data)} bytes, {size} are needed: get the "
                "model again"
            )
        # Within the storage: pickles.py checked that.
        view = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, kind)[stored.offset :],
            stored.shape,
            [step * kind.itemsize for step in stored.strides],
            writeable=False,
        )
        return bfloat16(view) if storage.kind == "bfloat16" else view

    def _bytes(self, name: str, *, at_most: int) -> bytes:
        """Return a file of the archive. What is compressed or too large is rejected unread: it may be a bomb."""
        info = self._zip.NameToInfo.get(f"{self._directory}/{name}")
        if info is None:
            raise SourceError(f"{self._path} lacks {printable(name)}: get it again")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(at_most, self._size):
            raise SourceError(
                f"{self._path}: {printable(name)} is compressed or too large, which torch.save does not do: get the "
                "model from a source that you trust"
            )
        try:
            return self._zip.read(info)
        except _DAMAGE as error:
            raise SourceError(f"{self._path}: {printable(name)} cannot be read ({error}): get it again") from None
