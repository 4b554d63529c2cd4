"""What every reader makes of its source: dimensions, and tensors by OpenAI's names that are read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from whisper_build.downloads import SourceError
from whisper_package.model_file import HyperParameters, expected_tensors

# enum ggml_ftype of a file whose matrices are float16
FLOAT16 = 1
# ggml keeps the biases of convolutions as columns; everyone else as vectors.
COLUMNS = frozenset({"encoder.conv1.bias", "encoder.conv2.bias"})
EMBEDDING = "decoder.token_embedding.weight"
# What the names of biases end with that Whisper does not have and some formats store as zeros.
KEY_BIAS = ".key.bias"
_LISTED = 3
_WIDTH = 80


class Tensor(NamedTuple):
    """A tensor that is still in its file: the shape, outermost extent first, and how to get its numbers."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]  # float16, float32 or float64


@dataclass(frozen=True)
class Checkpoint:
    """A Whisper as a reader found it in `path`. `vocabulary` is id → token as GPT-2 spells bytes, None without one.

    `redundant` are names of tensors that a ggml file has no room for: the output layer, which must be the token
    embedding, and biases of keys, which must be zero.
    """

    path: Path
    parameters: HyperParameters
    tensors: Mapping[str, Tensor]
    vocabulary: Mapping[int, str] | None = None
    redundant: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raise `SourceError` unless there are exactly the tensors that the dimensions imply, each in its shape.

        What is redundant is checked last and left where it is.
        """
        try:
            expected = expected_tensors(self.parameters)
        except ValueError as error:
            raise SourceError(f"{self.path} is not a Whisper that can be served: {error}") from None
        missing = expected.keys() - self.tensors.keys()
        if missing:
            raise SourceError(
                f"{self.path} lacks {_some(missing)}: it is incomplete, or its configuration belongs to another model. "
                "Get the whole model again"
            )
        unknown = self.tensors.keys() - expected.keys() - self.redundant
        if unknown:
            raise SourceError(
                f"{self.path} has {_some(unknown)}, which a Whisper of these dimensions does not have: it is "
                "another network, or contains an adapter that must be merged into it first"
            )
        for name, (innermost_first, _) in expected.items():
            shape = self.tensors[name].shape
            wanted = innermost_first[1:] if name in COLUMNS else innermost_first[::-1]
            if shape != wanted:
                raise SourceError(
                    f"{self.path}: {name} has shape {list(shape)}, the configuration implies {list(wanted)}: they do "
                    "not belong together; get both again"
                )
        # These are read, so they come after the shapes.
        for name in sorted(self.redundant):
            self._check_redundant(name)

    def _check_redundant(self, name: str) -> None:
        tensor, embedding = self.tensors[name], self.tensors[EMBEDDING]
        if name.endswith(KEY_BIAS):
            if tensor.read().any():
                raise SourceError(
                    f"{self.path}: {name} is not zero: keys of a Whisper have no bias, so this is another network"
                )
        elif tensor.shape != embedding.shape or not np.array_equal(tensor.read(), embedding.read()):
            raise SourceError(
                f"{self.path}: {name} differs from {EMBEDDING}: whisper.cpp has one matrix for both; train with tied "
                "embeddings (tie_word_embeddings)"
            )

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as float16, rounded to the nearest. Raises `SourceError` for what float16 cannot hold."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values = self.tensors[name].read().astype(np.float16)
        if not np.isfinite(values).all():
            raise SourceError(
                f"{self.path}: {name} has values beyond float16's 65504, or NaN: the training went wrong or the "
                "file is damaged"
            )
        return values


def bfloat16(raw: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, which numpy does not know, given as uint16: they are float32 cut in half."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def count(value: object, what: str, path: Path) -> int:
    """Return a dimension that a file states. Raises `SourceError` for anything but a whole number above 0."""
    if type(value) is not int or value <= 0:
        raise SourceError(f"{path}: {what} is {printable(value)}, a whole number above 0 is needed: get it again")
    return value


def printable(value: object) -> str:
    """Return what a file says in a form that is safe and short on a terminal: of anything nested, the type."""
    if value is not None and not isinstance(value, (str, int, float)):
        return f"a {type(value).__name__}"
    shown = ascii(value)
    return shown if len(shown) <= _WIDTH else shown[:_WIDTH] + "..."


def _some(names: set[str]) -> str:
    """Name a few and count the others."""
    listed = ", ".join(printable(name) for name in sorted(names)[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more tensors"
