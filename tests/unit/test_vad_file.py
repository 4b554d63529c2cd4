"""The check of the voice detection's weights before the library reads them: every damaged file is rejected.

The file is of zeros, but its header and tensors are those of Silero's network.
"""

from __future__ import annotations

import math
import random
import struct

import pytest

from whisper_package.errors import ModelFileError
from whisper_package.vad_file import check_vad_file

HEADER = (512, 64, 4, 129, 128, 3, 128, 64, 3, 64, 64, 3, 64, 128, 3, 128, 128, 128, 1)
F32, F16 = 0, 1
TENSORS = (
    ("_model.encoder.0.reparam_conv.weight", (3, 129, 128), F16),
    ("_model.encoder.0.reparam_conv.bias", (128,), F32),
    ("_model.encoder.1.reparam_conv.weight", (3, 128, 64), F16),
    ("_model.encoder.1.reparam_conv.bias", (64,), F32),
    ("_model.encoder.2.reparam_conv.weight", (3, 64, 64), F16),
    ("_model.encoder.2.reparam_conv.bias", (64,), F32),
    ("_model.encoder.3.reparam_conv.weight", (3, 64, 128), F16),
    ("_model.encoder.3.reparam_conv.bias", (128,), F32),
    ("_model.decoder.rnn.weight_ih", (128, 512), F32),
    ("_model.decoder.rnn.weight_hh", (128, 512), F32),
    ("_model.decoder.rnn.bias_ih", (512,), F32),
    ("_model.decoder.rnn.bias_hh", (512,), F32),
    ("_model.decoder.decoder.2.weight", (128,), F16),
    ("_model.decoder.decoder.2.bias", (), F32),
    ("_model.stft.forward_basis_buffer", (256, 1, 258), F16),
)
TENSORS_AT = 4 + 4 + len(b"silero-16k") + 12 + 4 * len(HEADER)


def tensor(name: str, shape: tuple[int, ...], kind: int) -> bytes:
    head = struct.pack(f"<3i{len(shape)}i", len(shape), len(name), kind, *shape) + name.encode()
    return head + bytes(math.prod(shape) * (2 if kind == F16 else 4))


@pytest.fixture(scope="module")
def weights() -> bytes:
    header = b"lmgg" + struct.pack("<i", 10) + b"silero-16k" + struct.pack("<3i", 6, 2, 0)
    return header + struct.pack(f"<{len(HEADER)}i", *HEADER) + b"".join(tensor(*each) for each in TENSORS)


@pytest.fixture
def check(tmp_path):
    """Return a function that writes bytes to a file and checks it."""

    def run(data: bytes) -> None:
        path = tmp_path / "vad.bin"
        path.write_bytes(data)
        check_vad_file(path)

    return run


def test_a_whole_file_passes(weights, check):
    check(weights)


def test_the_pinned_size_is_that_of_the_known_network(weights):
    assert len(weights) == 885098


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"vad\.bin does not exist: fetch the package again"):
        check_vad_file(tmp_path / "vad.bin")


def test_another_magic_number_is_rejected(weights, check):
    with pytest.raises(ModelFileError, match="is it a ggml network for voice detection"):
        check(b"GGUF" + weights[4:])


@pytest.mark.parametrize("length", [9, 11, -1, 2**31 - 1])
def test_another_type_is_rejected(weights, check, length):
    with pytest.raises(ModelFileError, match="does not say that it is Silero's for 16 kHz"):
        check(weights[:4] + struct.pack("<i", length) + weights[8:])


@pytest.mark.parametrize("place", range(len(HEADER)))
def test_every_number_of_the_header_counts(weights, check, place):
    at = TENSORS_AT - 4 * (len(HEADER) - place)
    with pytest.raises(ModelFileError, match="its dimensions are"):
        check(weights[:at] + struct.pack("<i", HEADER[place] + 1) + weights[at + 4 :])


@pytest.mark.parametrize("n_dims", [4, 5, -1, 2**30])
def test_a_tensor_of_too_many_dimensions_is_rejected(weights, check, n_dims):
    with pytest.raises(ModelFileError, match=f"a tensor has {n_dims} dimensions"):
        check(weights[:TENSORS_AT] + struct.pack("<i", n_dims) + weights[TENSORS_AT + 4 :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(("_model.decoder.decoder.2.bias", (), F16), "has type 1, expected 0", id="type"),
        pytest.param(("_model.decoder.decoder.2.bias", (1,), F32), r"has shape \[1\], expected \[\]", id="shape"),
        pytest.param(("_model.decoder.decoder.2.bus", (), F32), "is unknown or a duplicate", id="name"),
        pytest.param(("_model.decoder.rnn.bias_ih", (512,), F32), "is unknown or a duplicate", id="duplicate"),
    ],
)
def test_a_foreign_tensor_is_rejected(weights, check, change, message):
    with pytest.raises(ModelFileError, match=message):
        check(weights.replace(tensor("_model.decoder.decoder.2.bias", (), F32), tensor(*change)))


def test_a_missing_tensor_is_named(weights, check):
    with pytest.raises(ModelFileError, match=r"1 tensors are missing, _model\.decoder\.decoder\.2\.bias"):
        check(weights.replace(tensor("_model.decoder.decoder.2.bias", (), F32), b""))


def test_a_file_that_was_cut_short_is_rejected(weights, check):
    for length in random.Random(3).sample(range(len(weights)), 50):
        with pytest.raises(ModelFileError):
            check(weights[:length])
