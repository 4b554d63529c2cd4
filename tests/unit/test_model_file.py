"""The check of a model file before the library reads it: every damaged file is refused, and none reaches the loader.

The damage is done to the fixture's small model, at offsets found by walking its header.
"""

from __future__ import annotations

import contextlib
import lzma
import random
import struct

import pytest

from paths import FIXTURES
from whisper_package.errors import ModelFileError
from whisper_package.model_file import HyperParameters, check_model_file

PARAMETERS_AT = 4
FILTERS_AT = PARAMETERS_AT + 4 * len(HyperParameters._fields)


@pytest.fixture(scope="module")
def model() -> bytes:
    return lzma.decompress((FIXTURES / "models" / "ggml-fixture-small.bin.xz").read_bytes())


@pytest.fixture(scope="module")
def places(model) -> dict[str, int]:
    """Offsets in the model file: the vocabulary's count, its first token, the first tensor and the one after it."""
    n_mel, n_fft = struct.unpack_from("<2i", model, FILTERS_AT)
    vocabulary = FILTERS_AT + 8 + n_mel * n_fft * 4
    (count,) = struct.unpack_from("<i", model, vocabulary)
    offset = vocabulary + 4
    for _ in range(count):
        offset += 4 + struct.unpack_from("<I", model, offset)[0]
    n_dims, length, _ = struct.unpack_from("<3i", model, offset)
    shape = struct.unpack_from(f"<{n_dims}i", model, offset + 12)
    name = offset + 12 + 4 * n_dims
    assert model[name : name + length] == b"encoder.positional_embedding", "the first tensor is float32"
    weights = name + length
    return {
        "vocabulary": vocabulary,
        "token": vocabulary + 4,
        "tensor": offset,
        "shape": offset + 12,
        "name": name,
        "weights": weights,
        "second tensor": weights + 4 * shape[0] * shape[1],
    }


@pytest.fixture
def check(tmp_path):
    """Return a function that writes bytes to a file and checks it."""

    def run(data: bytes) -> HyperParameters:
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        return check_model_file(path)

    return run


def patched(data: bytes, offset: int, *numbers: int) -> bytes:
    """Return `data` with little-endian 32-bit numbers written at an offset."""
    packed = struct.pack(f"<{len(numbers)}I", *(number & 0xFFFFFFFF for number in numbers))
    return data[:offset] + packed + data[offset + len(packed) :]


def test_a_whole_file_passes_with_its_own_dimensions(model, check):
    found = check(model)
    assert (found.n_vocab, found.n_audio_state) == (51865, 128)  # OpenAI's small has 768


def test_another_file_is_refused(check):
    with pytest.raises(ModelFileError, match=r"model\.bin is damaged or not a Whisper model: .* magic number"):
        check(b"RIFF" + bytes(1000))


def test_an_empty_file_is_refused(check):
    with pytest.raises(ModelFileError, match="ends after 0 bytes"):
        check(b"")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="does not exist: fetch the package again"):
        check_model_file(tmp_path / "model.bin")


def test_a_file_cut_off_anywhere_is_refused(model, places, check):
    lengths = [*places.values(), FILTERS_AT, FILTERS_AT + 8, len(model) - 1, len(model) // 2]
    lengths += range(1, len(model), len(model) // 50)
    for length in lengths:
        with pytest.raises(ModelFileError):
            check(model[:length])


def test_bytes_after_the_last_tensor_are_refused(model, check):
    with pytest.raises(ModelFileError):
        check(model + bytes(64))


@pytest.mark.parametrize("n_vocab", [0, -1, 50257, 50258, 50300, 50363, 51863, 51867, 2**31 - 1])
def test_a_vocabulary_that_whisper_never_had_is_refused(model, check, n_vocab):
    with pytest.raises(ModelFileError, match=f"n_vocab is {n_vocab}"):
        check(patched(model, PARAMETERS_AT, n_vocab))


@pytest.mark.parametrize("name", HyperParameters._fields)
@pytest.mark.parametrize("value", [0, -1, 7, 2**31 - 1, -(2**31)])
def test_an_absurd_hyper_parameter_is_refused(model, check, name, value):
    with pytest.raises(ModelFileError):
        check(patched(model, PARAMETERS_AT + 4 * HyperParameters._fields.index(name), value))


@pytest.mark.parametrize("n_dims", [5, 4, 0, -1, 64, 2**30])
def test_a_tensor_of_too_many_dimensions_is_refused(model, places, check, n_dims):
    with pytest.raises(ModelFileError, match=f"a tensor has {n_dims} dimensions"):
        check(patched(model, places["tensor"], n_dims))


@pytest.mark.parametrize("length", [0, -1, 2**31 - 1])
def test_a_tensors_name_of_absurd_length_is_refused(model, places, check, length):
    with pytest.raises(ModelFileError, match="a tensor's name has"):
        check(patched(model, places["tensor"] + 4, length))


@pytest.mark.parametrize("number", [1, 7, 42, -1, 2**31 - 1])
def test_a_tensor_of_another_type_is_refused(model, places, check, number):
    with pytest.raises(ModelFileError, match=rf"positional_embedding has type {number}, expected 0"):
        check(patched(model, places["tensor"] + 8, number))


def test_a_tensor_of_another_shape_is_refused(model, places, check):
    width, height = struct.unpack_from("<2i", model, places["shape"])
    with pytest.raises(ModelFileError, match="positional_embedding has shape"):
        check(patched(model, places["shape"], height, width))


def test_shapes_whose_product_overflows_are_refused(model, places, check):
    with pytest.raises(ModelFileError, match="positional_embedding has shape"):
        check(patched(model, places["shape"], 2**31 - 1, 2**31 - 1))


def test_an_unknown_tensor_is_refused(model, places, check):
    with pytest.raises(ModelFileError, match=r"'Xncoder\.positional_embedding' is unknown"):
        check(model[: places["name"]] + b"X" + model[places["name"] + 1 :])


def test_a_tensor_that_stands_twice_is_refused(model, places, check):
    first = model[places["tensor"] : places["second tensor"]]
    with pytest.raises(ModelFileError, match="positional_embedding' is unknown or a duplicate"):
        check(model[: places["second tensor"]] + first + model[places["second tensor"] :])


def test_a_missing_tensor_is_refused(model, places, check):
    with pytest.raises(ModelFileError, match=r"1 tensors are missing, encoder\.positional_embedding among them"):
        check(model[: places["tensor"]] + model[places["second tensor"] :])


def test_a_model_without_weights_is_refused(model, places, check):
    """The library takes such a file for one of its own tests, and transcribes nothing with it."""
    with pytest.raises(ModelFileError, match="tensors are missing"):
        check(model[: places["tensor"]])


@pytest.mark.parametrize("count", [0, -1, 51866, 2**31 - 1])
def test_more_tokens_than_the_vocabulary_has_are_refused(model, places, check, count):
    with pytest.raises(ModelFileError, match="tokens, expected 1 to 51865"):
        check(patched(model, places["vocabulary"], count))


def test_a_token_of_absurd_length_is_refused(model, places, check):
    with pytest.raises(ModelFileError, match="token 0 has 2147483647 bytes"):
        check(patched(model, places["token"], 2**31 - 1))


@pytest.mark.parametrize(("mels", "bins"), [(81, 201), (80, 200), (2**31 - 1, 2**31 - 1), (-1, -1)])
def test_mel_filters_of_another_size_are_refused(model, check, mels, bins):
    with pytest.raises(ModelFileError, match="the mel filters are"):
        check(patched(model, FILTERS_AT, mels, bins))


def test_random_damage_to_the_header_never_raises_anything_else(model, places, check):
    random_ = random.Random(3)
    for _ in range(100):
        data = bytearray(model)
        for _ in range(random_.randint(1, 4)):
            data[random_.choice([random_.randrange(FILTERS_AT + 8), random_.randrange(places["weights"])])] ^= 1 << 7
        with contextlib.suppress(ModelFileError):
            check(bytes(data))
