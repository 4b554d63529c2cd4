"""whisper.cpp's own format: written from a checkpoint, and looked over when it comes ready-made.

Order and types are those of the files that whisper.cpp publishes: OpenAI's weights give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from whisper_build.downloads import SourceError
from whisper_build.weights.checkpoint import Checkpoint
from whisper_build.weights.pinned import Assets
from whisper_package.errors import ModelFileError
from whisper_package.model_file import HyperParameters, check_model_file, expected_tensors

MAGIC = 0x67676D6C.to_bytes(4, "little")
_HEADER = struct.Struct(f"<4s{len(HyperParameters._fields)}i")
_TYPES = {0: "<f4", 1: "<f2"}
# What stands for bytes that are no whole character. OpenAI's vocabularies have it in 4 and 8 tokens, as itself.
_REPLACEMENT = "\ufffd".encode()
_MOST_REPLACEMENTS = 50


def write(checkpoint: Checkpoint, assets: Assets, destination: Path) -> None:
    """Write a checked checkpoint. Raises `SourceError` for weights that float16 cannot hold."""
    parameters = checkpoint.parameters
    filters, tokens = assets.filters[parameters.n_mels], assets.tokens(parameters.n_vocab)
    expected = expected_tensors(parameters)
    with open(destination, "wb") as stream:
        stream.write(_HEADER.pack(MAGIC, *parameters))
        stream.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        stream.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            stream.write(struct.pack("<i", len(token)) + token)
        for name in _order(parameters):
            shape, kind = expected[name]
            encoded = name.encode("ascii")
            stream.write(struct.pack(f"<{3 + len(shape)}i", len(shape), len(encoded), kind, *shape) + encoded)
            stream.write(np.ascontiguousarray(checkpoint.read(name), _TYPES[kind]).tobytes())


def check(path: Path) -> None:
    """Raise `SourceError` for a file that the library could not load, or whose vocabulary is broken."""
    try:
        check_model_file(path)
    except ModelFileError as error:
        raise SourceError(str(error)) from None
    with open(path, "rb") as stream:
        broken = sum(_REPLACEMENT in token for token in _vocabulary(stream))
    if broken > _MOST_REPLACEMENTS:
        raise SourceError(
            f"{path}: {broken} tokens of the vocabulary are broken (U+FFFD instead of bytes), as in whisper.cpp's "
            "for-tests files: Chinese, Japanese and Korean would come out unreadable. Convert the model again, or give "
            "what it was converted from"
        )


def _vocabulary(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the tokens of a file that was checked."""
    stream.seek(_HEADER.size)
    bins, frequencies = struct.unpack("<2i", stream.read(8))
    stream.seek(bins * frequencies * 4, 1)
    (count,) = struct.unpack("<i", stream.read(4))
    for _ in range(count):
        yield stream.read(*struct.unpack("<i", stream.read(4)))


def _order(p: HyperParameters) -> Iterator[str]:
    def block(name: str, *attentions: str) -> Iterator[str]:
        yield from _both(f"{name}.mlp_ln", f"{name}.mlp.0", f"{name}.mlp.2")
        for attention in attentions:
            yield from _both(f"{name}.{attention}_ln", f"{name}.{attention}.query")
            yield f"{name}.{attention}.key.weight"
            yield from _both(f"{name}.{attention}.value", f"{name}.{attention}.out")

    yield from ("decoder.positional_embedding", "encoder.positional_embedding", "decoder.token_embedding.weight")
    for layer in range(p.n_text_layer):
        yield from block(f"decoder.blocks.{layer}", "attn", "cross_attn")
    yield from _both("decoder.ln", "encoder.conv1", "encoder.conv2")
    for layer in range(p.n_audio_layer):
        yield from block(f"encoder.blocks.{layer}", "attn")
    yield from _both("encoder.ln_post")


def _both(*names: str) -> Iterator[str]:
    for name in names:
        yield f"{name}.weight"
        yield f"{name}.bias"
