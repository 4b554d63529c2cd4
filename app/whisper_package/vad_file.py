"""Checks the weights of the voice detection before the library reads them.

One network is known: Silero's for 16 kHz, versions 5 and 6, in whisper.cpp's layout. Its loader indexes arrays by the
numbers of the header, and copies tensors of whatever size they say.
"""

from __future__ import annotations

import os
from pathlib import Path

from whisper_package.ggml_file import F16, F32, GgmlFile, Tensor

_TYPE = b"silero-16k"
_WINDOW, _CONTEXT = 512, 64  # samples
# Inputs, outputs and width of each convolution; the last one's outputs are as many as the LSTM has.
_LAYERS = ((129, 128, 3), (128, 64, 3), (64, 64, 3), (64, 128, 3))
_STATE = 128
_EXTENTS = [extent for layer in _LAYERS for extent in layer]
_HEADER = (_WINDOW, _CONTEXT, len(_LAYERS), *_EXTENTS, _STATE, _STATE, _STATE, 1)


def check_vad_file(path: os.PathLike[str] | str) -> None:
    """Raise `ModelFileError` unless the library can load the file safely."""
    with GgmlFile(Path(path), "network for voice detection", range(4)) as file:
        file.check_magic()
        (length,) = file.unpack("<i")
        if length != len(_TYPE) or file.take(length) != _TYPE:
            raise file.error("it does not say that it is Silero's for 16 kHz")
        file.unpack("<3i")  # the version: shown by the loader, and nothing depends on it
        header = file.unpack(f"<{len(_HEADER)}i")
        if header != _HEADER:
            raise file.error(f"its dimensions are {list(header)}, expected {list(_HEADER)}")
        file.check_tensors(_tensors())


def _tensors() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {"_model.stft.forward_basis_buffer": ((256, 1, 258), F16)}
    for number, (inputs, outputs, width) in enumerate(_LAYERS):
        name = f"_model.encoder.{number}.reparam_conv"
        tensors[f"{name}.weight"] = ((width, inputs, outputs), F16)
        tensors[f"{name}.bias"] = ((outputs,), F32)
    for side in ("ih", "hh"):
        tensors[f"_model.decoder.rnn.weight_{side}"] = ((_STATE, 4 * _STATE), F32)
        tensors[f"_model.decoder.rnn.bias_{side}"] = ((4 * _STATE,), F32)
    tensors["_model.decoder.decoder.2.weight"] = ((_STATE,), F16)
    tensors["_model.decoder.decoder.2.bias"] = ((), F32)
    return tensors
