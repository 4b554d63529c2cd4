"""What the checks of ggml files share: reading a file that may be damaged or hostile, and its tensors.

whisper.cpp's loaders trust their input, so that every number on which they act is compared here with the expected one.
Weights are skipped, not read.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from whisper_package.errors import ModelFileError

MAGIC = 0x67676D6C  # "ggml"
_MAX_NAME = 64


class TensorType(NamedTuple):
    name: str  # as whisper-quantize calls it
    number: int  # enum ggml_type
    block: int  # weights in a block
    size: int  # bytes of a block


F32, F16 = TensorType("f32", 0, 1, 4), TensorType("f16", 1, 1, 2)

# Shape, with the innermost extent first, and type.
Tensor = tuple[tuple[int, ...], TensorType]


class GgmlFile:
    """One file while it is checked. A context manager; raises `ModelFileError` for what cannot be opened."""

    def __init__(self, path: Path, what: str, dimensions: range):
        """`what` is in it; its tensors have a number of dimensions out of `dimensions`."""
        self._path = path
        self._what = what
        self._dimensions = dimensions
        self._stream: BinaryIO
        try:
            self._stream = path.open("rb", buffering=1 << 16)
        except FileNotFoundError:
            raise ModelFileError(f"{path} does not exist: fetch the package again") from None
        except OSError as error:
            raise self._unreadable(error) from None
        self._size = os.fstat(self._stream.fileno()).st_size

    def __enter__(self) -> GgmlFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()

    def check_magic(self) -> None:
        """Check the first bytes."""
        (magic,) = self.unpack("<I")
        if magic != MAGIC:
            raise self.error(f"it does not begin with ggml's magic number; is it a ggml {self._what}?")

    def check_tensors(self, expected: Mapping[str, Tensor]) -> None:
        """Check that from here to its end the file has every tensor of `expected` once, and nothing else."""
        missing = dict(expected)
        while self._stream.tell() < self._size:
            n_dims, length, number = self.unpack("<3i")
            if n_dims not in self._dimensions:
                raise self.error(f"a tensor has {n_dims} dimensions")
            shape = self.unpack(f"<{n_dims}i")
            if not 1 <= length <= _MAX_NAME:
                raise self.error(f"a tensor's name has {length} bytes")
            name = self.take(length).decode("utf-8", "replace")
            if name not in missing:
                raise self.error(f"tensor {name!r} is unknown or a duplicate")
            expected_shape, expected_type = missing.pop(name)
            if shape != expected_shape:
                raise self.error(f"tensor {name} has shape {list(shape)}, expected {list(expected_shape)}")
            if number != expected_type.number:
                raise self.error(f"tensor {name} has type {number}, expected {expected_type.number}")
            self.skip(math.prod(shape) // expected_type.block * expected_type.size)
        if missing:
            raise self.error(f"{len(missing)} tensors are missing, {min(missing)} among them")

    def unpack(self, layout: str) -> tuple[int, ...]:
        """Read the numbers that `layout` describes, as `struct` writes it."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def take(self, length: int) -> bytes:
        """Read `length` bytes."""
        try:
            data = self._stream.read(length)
        except OSError as error:
            raise self._unreadable(error) from None
        if len(data) != length:
            raise self._cut_short()
        return data

    def skip(self, length: int) -> None:
        """Pass over `length` bytes."""
        if self._stream.tell() + length > self._size:
            raise self._cut_short()
        self._stream.seek(length, os.SEEK_CUR)

    def error(self, detail: str) -> ModelFileError:
        """Return the error that says what is wrong with the file."""
        return ModelFileError(f"{self._path} is damaged or not a {self._what}: {detail}; fetch or build it again")

    def _cut_short(self) -> ModelFileError:
        return self.error(f"it ends after {self._size} bytes, in the middle of a field")

    def _unreadable(self, error: OSError) -> ModelFileError:
        return ModelFileError(f"{self._path} cannot be read: {error.strerror}")
