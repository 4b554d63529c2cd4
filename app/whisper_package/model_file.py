"""Checks a ggml Whisper model before the library reads it.

whisper.cpp's loader trusts its input: a tensor of more than four dimensions writes past the stack, a vocabulary whose
size is not Whisper's reads past the heap during transcription, absurd sizes end in an uncaught exception. So every
number that the loader acts on is compared here with what the others imply. Weights are skipped, not read: a file of
600 MB takes a few milliseconds more than one of 8 MB. Dimensions come from the file, never from its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from whisper_package.ggml_file import F16, F32, GgmlFile, Tensor, TensorType

_QUANTIZATION_VERSION = 2
_FFT_BINS = 201  # 1 + WHISPER_N_FFT / 2
_MAX_TOKEN = 1024

# The vocabularies Whisper was released with: English only, 99 languages, 100 languages (large-v3).
VOCABULARIES = (51864, 51865, 51866)


# ftype of the file's header (enum ggml_ftype) -> type of its matrices.
_MATRIX_TYPES = {
    0: F32,
    1: F16,
    2: TensorType("q4_0", 2, 32, 18),
    3: TensorType("q4_1", 3, 32, 20),
    7: TensorType("q8_0", 8, 32, 34),
    8: TensorType("q5_0", 6, 32, 22),
    9: TensorType("q5_1", 7, 32, 24),
    10: TensorType("q2_k", 10, 256, 84),
    11: TensorType("q3_k", 11, 256, 110),
    12: TensorType("q4_k", 12, 256, 144),
    13: TensorType("q5_k", 13, 256, 176),
    14: TensorType("q6_k", 14, 256, 210),
}


class HyperParameters(NamedTuple):
    """The header of a model file, in the file's order; counts, none of them bytes."""

    n_vocab: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int
    ftype: int

    @property
    def quantization(self) -> str:
        """The type of the matrices, for example `q5_1`."""
        return _MATRIX_TYPES[self.ftype % 1000].name

    @property
    def dimensions(self) -> dict[str, int]:
        """What a manifest keeps of this, because the memory that a model takes follows from it (`models.size_of`)."""
        return {
            "width": self.n_audio_state,
            "encoder_layers": self.n_audio_layer,
            "decoder_layers": self.n_text_layer,
        }


# Generous bounds, so that products of sizes that pass stay far from 32-bit overflow. The largest Whisper has 1280, 32.
_BOUNDS = {
    "n_audio_ctx": (1, 1500),
    "n_audio_state": (32, 2048),
    "n_audio_head": (1, 64),
    "n_audio_layer": (1, 64),
    "n_text_ctx": (32, 2048),
    "n_text_state": (32, 2048),
    "n_text_head": (1, 64),
    "n_text_layer": (1, 64),
}


def expected_tensors(parameters: HyperParameters) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return name -> (shape, enum ggml_type) of every tensor of a model, in shapes the innermost extent first.

    `ValueError` says which of the parameters does not fit a Whisper model.
    """
    matrix = _matrix_type(parameters)
    return {name: (shape, kind.number) for name, (shape, kind) in _tensors(parameters, matrix)}


def check_model_file(path: os.PathLike[str] | str) -> HyperParameters:
    """Return the file's hyper-parameters if the library can load it safely; raises `ModelFileError` if not."""
    with GgmlFile(Path(path), "Whisper model", range(1, 4)) as file:
        return _Checker(file).check()


class _Checker:
    def __init__(self, file: GgmlFile):
        self._file = file

    def check(self) -> HyperParameters:
        self._file.check_magic()
        parameters = HyperParameters(*self._file.unpack("<11i"))
        try:
            matrix = _matrix_type(parameters)
        except ValueError as error:
            raise self._file.error(str(error)) from None
        self._check_filters(parameters)
        self._check_vocabulary(parameters)
        self._file.check_tensors(dict(_tensors(parameters, matrix)))
        return parameters

    def _check_filters(self, p: HyperParameters) -> None:
        n_mel, n_fft = self._file.unpack("<2i")
        if (n_mel, n_fft) != (p.n_mels, _FFT_BINS):
            raise self._file.error(f"the mel filters are {n_mel} x {n_fft}, expected {p.n_mels} x {_FFT_BINS}")
        self._file.skip(n_mel * n_fft * 4)

    def _check_vocabulary(self, p: HyperParameters) -> None:
        (count,) = self._file.unpack("<i")
        if not 1 <= count <= p.n_vocab:
            raise self._file.error(f"it lists {count} tokens, expected 1 to {p.n_vocab}")
        for index in range(count):
            (length,) = self._file.unpack("<I")
            if length > _MAX_TOKEN:
                raise self._file.error(f"token {index} has {length} bytes")
            self._file.take(length)


def _matrix_type(p: HyperParameters) -> TensorType:
    """Return the type of the matrices; `ValueError` says which of the parameters does not fit a Whisper model."""
    if p.n_vocab not in VOCABULARIES:
        raise ValueError(f"n_vocab is {p.n_vocab}, expected one of {', '.join(map(str, VOCABULARIES))}")
    for name, (least, most) in _BOUNDS.items():
        value = getattr(p, name)
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}, expected {least} to {most}")
    if p.n_audio_state != p.n_text_state:
        raise ValueError(f"n_audio_state {p.n_audio_state} differs from n_text_state {p.n_text_state}")
    for state, head in ((p.n_audio_state, p.n_audio_head), (p.n_text_state, p.n_text_head)):
        if state % head:
            raise ValueError(f"a state of {state} cannot be divided into {head} heads")
    if p.n_mels not in (80, 128):
        raise ValueError(f"n_mels is {p.n_mels}, expected 80 or 128")
    version, ftype = divmod(p.ftype, 1000)
    if ftype not in _MATRIX_TYPES or not 0 <= version <= _QUANTIZATION_VERSION:
        raise ValueError(f"ftype {p.ftype} is not a known type of weights")
    matrix = _MATRIX_TYPES[ftype]
    if p.n_audio_state % matrix.block:
        raise ValueError(f"a state of {p.n_audio_state} does not fit blocks of {matrix.block} weights")
    return matrix


def _tensors(p: HyperParameters, matrix: TensorType) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor, as whisper.cpp's loader creates them."""
    state = p.n_audio_state
    convolution = F32 if matrix is F32 else F16

    def norm(name: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", ((state,), F32)
        yield f"{name}.bias", ((state,), F32)

    def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", ((inputs, outputs), matrix)
        if bias:
            yield f"{name}.bias", ((outputs,), F32)

    def attention(name: str) -> Iterator[tuple[str, Tensor]]:
        yield from norm(f"{name}_ln")
        yield from linear(f"{name}.query", state, state)
        yield from linear(f"{name}.key", state, state, bias=False)
        yield from linear(f"{name}.value", state, state)
        yield from linear(f"{name}.out", state, state)

    def perceptron(name: str) -> Iterator[tuple[str, Tensor]]:
        yield from norm(f"{name}_ln")
        yield from linear(f"{name}.0", state, 4 * state)
        yield from linear(f"{name}.2", 4 * state, state)

    yield "encoder.positional_embedding", ((state, p.n_audio_ctx), F32)
    for number, inputs in ((1, p.n_mels), (2, state)):
        yield f"encoder.conv{number}.weight", ((3, inputs, state), convolution)
        yield f"encoder.conv{number}.bias", ((1, state), F32)
    yield from norm("encoder.ln_post")
    for layer in range(p.n_audio_layer):
        yield from attention(f"encoder.blocks.{layer}.attn")
        yield from perceptron(f"encoder.blocks.{layer}.mlp")
    yield "decoder.positional_embedding", ((state, p.n_text_ctx), F32)
    yield "decoder.token_embedding.weight", ((state, p.n_vocab), matrix)
    yield from norm("decoder.ln")
    for layer in range(p.n_text_layer):
        yield from attention(f"decoder.blocks.{layer}.attn")
        yield from attention(f"decoder.blocks.{layer}.cross_attn")
        yield from perceptron(f"decoder.blocks.{layer}.mlp")
