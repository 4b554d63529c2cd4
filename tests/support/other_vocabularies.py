"""The fixture's network as other Whisper models have it: English only, or with large-v3's ears and languages.

Made of a package's weights by leaving out or adding what makes no difference to what the network computes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from whisper_package.model_file import HyperParameters

HEADER = struct.Struct(f"<I{len(HyperParameters._fields)}i")
FFT_BINS = 201
# bytes of a block and weights in it, by the number of the type (enum ggml_type)
BLOCKS = {0: (4, 1), 1: (2, 1), 2: (18, 32), 6: (22, 32), 7: (24, 32), 8: (34, 32)}
EMPTY_TOKEN = 50256  # the last ordinary one, which the English models do not have
LAST_LANGUAGE = 50357  # of 99; large-v3 knows one more


@dataclass
class Tensor:
    """One tensor of a file; `shape` has the innermost extent first, as in the file."""

    name: bytes
    shape: list[int]
    type: int
    data: bytes

    def row_bytes(self) -> int:
        size, weights = BLOCKS[self.type]
        return self.shape[0] // weights * size


@dataclass
class ModelFile:
    """A ggml Whisper file in parts."""

    parameters: HyperParameters
    filters: bytes
    tokens: list[bytes]
    tensors: list[Tensor]

    @classmethod
    def read(cls, data: bytes) -> ModelFile:
        _, *parameters = HEADER.unpack_from(data)
        offset = HEADER.size
        bins, _ = struct.unpack_from("<2i", data, offset)
        filters = data[offset + 8 : offset + 8 + 4 * bins * FFT_BINS]
        offset += 8 + len(filters)
        (count,) = struct.unpack_from("<i", data, offset)
        offset += 4
        tokens, tensors = [], []
        for _ in range(count):
            (length,) = struct.unpack_from("<i", data, offset)
            tokens.append(data[offset + 4 : offset + 4 + length])
            offset += 4 + length
        while offset < len(data):
            dimensions, length, kind = struct.unpack_from("<3i", data, offset)
            shape = list(struct.unpack_from(f"<{dimensions}i", data, offset + 12))
            offset += 12 + 4 * dimensions
            tensor = Tensor(data[offset : offset + length], shape, kind, b"")
            offset += length
            size = tensor.row_bytes()
            for extent in shape[1:]:
                size *= extent
            tensor.data = data[offset : offset + size]
            offset += size
            tensors.append(tensor)
        return cls(HyperParameters(*parameters), filters, tokens, tensors)

    def tensor(self, name: str) -> Tensor:
        return next(tensor for tensor in self.tensors if tensor.name == name.encode())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the tensors of a file without quantization, outermost extent first; columns as vectors."""
        kinds = {0: "<f4", 1: "<f2"}
        return {
            tensor.name.decode(): np.frombuffer(tensor.data, kinds[tensor.type]).reshape(
                [extent for extent in reversed(tensor.shape) if extent > 1]
            )
            for tensor in self.tensors
        }

    def bytes(self) -> bytes:
        parts = [HEADER.pack(0x67676D6C, *self.parameters)]
        parts += [struct.pack("<2i", len(self.filters) // (4 * FFT_BINS), FFT_BINS), self.filters]
        parts += [struct.pack("<i", len(self.tokens))]
        parts += [struct.pack("<i", len(token)) + token for token in self.tokens]
        for tensor in self.tensors:
            parts += [struct.pack("<3i", len(tensor.shape), len(tensor.name), tensor.type)]
            parts += [struct.pack(f"<{len(tensor.shape)}i", *tensor.shape), tensor.name, tensor.data]
        return b"".join(parts)


def english_only(data: bytes) -> bytes:
    """Return the file as an English model: one ordinary token less, so that every special token moves by one."""
    model = ModelFile.read(data)
    model.parameters = model.parameters._replace(n_vocab=51864)
    model.tokens.pop(EMPTY_TOKEN)
    embedding = model.tensor("decoder.token_embedding.weight")
    row = embedding.row_bytes()
    embedding.data = embedding.data[: EMPTY_TOKEN * row] + embedding.data[(EMPTY_TOKEN + 1) * row :]
    embedding.shape[1] -= 1
    return model.bytes()


def large_v3(data: bytes) -> bytes:
    """Return the file with 128 mel bins, the further ones silent, and a hundredth language that it never hears."""
    model = ModelFile.read(data)
    model.parameters = model.parameters._replace(n_vocab=51866, n_mels=128)
    model.filters += bytes(4 * 48 * FFT_BINS)
    embedding = model.tensor("decoder.token_embedding.weight")
    row = embedding.row_bytes()
    unused = embedding.data[(LAST_LANGUAGE - 1) * row : LAST_LANGUAGE * row]
    embedding.data = embedding.data[: (LAST_LANGUAGE + 1) * row] + unused + embedding.data[(LAST_LANGUAGE + 1) * row :]
    embedding.shape[1] += 1
    convolution = model.tensor("encoder.conv1.weight")
    kernel, bins, width = convolution.shape
    size = len(convolution.data) // width
    silent = bytes(size // bins * 48)
    convolution.data = b"".join(convolution.data[at : at + size] + silent for at in range(0, width * size, size))
    convolution.shape = [kernel, 128, width]
    return model.bytes()
