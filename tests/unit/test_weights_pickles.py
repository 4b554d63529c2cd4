"""A PyTorch file is read without running it: what asks for more than tensors is refused by name."""

from __future__ import annotations

import os
import pickle
import re
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model_forms import PARAMETERS, Pickle, tensors, write_openai, write_saved, write_zip
from whisper_build.downloads import SourceError
from whisper_build.weights.pickles import PickleError, load
from whisper_build.weights.pytorch import read_openai

NETWORK = tensors()
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
DIMS = {name: value for name, value in PARAMETERS._asdict().items() if name != "ftype"}


@pytest.fixture
def trap(tmp_path) -> Path:
    """A file that is there only after a pickle was run."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALLS = {
    "posix.system": lambda trap: Call(os.system, f"touch {trap}"),
    "builtins.eval": lambda trap: Call(eval, f"open({str(trap)!r}, 'w')"),
    "builtins.exec": lambda trap: Call(exec, f"open({str(trap)!r}, 'w')"),
    "io.open": lambda trap: Call(open, str(trap), "w"),
    "subprocess.Popen": lambda trap: Call(subprocess.Popen, ["touch", str(trap)]),
    "builtins.getattr": lambda trap: Call(getattr, str, "format"),
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CALLS)
def test_what_would_run_is_refused_by_name(tmp_path, trap, name, protocol):
    hostile = pickle.dumps({"dims": {}, "model_state_dict": CALLS[name](trap)}, protocol, fix_imports=False)
    path = write_zip(tmp_path / "model.pt", hostile, [])
    with pytest.raises(
        SourceError, match=rf"model\.pt: its pickle asks for {re.escape(name)}, which no dictionary of tensors"
    ):
        read_openai(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.hub", "load"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("collections", "Counter"),
        ("whisper_build.downloads", "download"),
        ("os\x1b[31m", "system"),
    ],
)
def test_only_a_handful_of_names_is_known(module, name):
    shown = ascii(f"{module}.{name}")[1:-1]
    with pytest.raises(PickleError) as caught:
        load(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R.")
    assert f"its pickle asks for {shown}, which" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\x80\x02U\x01aQ.", "uses SHORT_BINSTRING"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "something else where a tuple must be"),
        (b"\x80\x02X\x04\x00\x00\x00filecbuiltins\nopen\nQ.", r"asks for builtins\.open"),
        (
            b"\x80\x02(X\x04\x00\x00\x00filectorch\nHalfStorage\nX\x01\x00\x00\x000K\x00K\x01tQ.",
            "not a storage of tensors",
        ),
        (
            b"\x80\x02(X\x07\x00\x00\x00storageccollections\nOrderedDict\nX\x01\x00\x00\x000K\x00K\x01tQ.",
            "not a storage of tensors",
        ),
        (b"P1\n.", "uses PERSID"),
        (b"\x80\x02(ios\nsystem\n.", "uses INST"),
        (b"\x80\x02(o.", "uses OBJ"),
        (b"\x80\x02)\x81.", "uses NEWOBJ"),
        (b"\x80\x02\x82\x01.", "uses EXT1"),
        (
            b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
            "calls collections.OrderedDict in a way that PyTorch does not",
        ),
        (b"\x80\x02" + TENSOR + b")R.", "calls torch._utils._rebuild_tensor_v2 in a way that"),
        (b"\x80\x02)R.", "damaged"),
        (b"\x80\x02K\x01)R.", "something else where a _Global must be"),
        (b"\x80\x02})K\x01s.", "a key that is neither a text nor a number"),
        (b"\x80\x02K\x01K\x02b.", "something else where a dict must be"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02K\x01", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"t", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f", "damaged"),
        (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f", "damaged"),
        (b"not a pickle", "damaged"),
    ],
)
def test_a_pickle_that_torch_would_not_write_is_refused(code, message):
    with pytest.raises(PickleError, match=message):
        load(code)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (((0), (5,), (1,)), "reaches beyond its storage"),
        (((1), (4,), (1,)), "reaches beyond its storage"),
        (((0), (2, 2), (3, 1)), "reaches beyond its storage"),
        (((0), (2, 2), (1,)), "of a shape that Whisper does not have"),
        (((0), (1, 1, 1, 1), (1, 1, 1, 1)), "of a shape that Whisper does not have"),
        (((0), (0,), (1,)), "of a shape that Whisper does not have"),
        (((-1), (2,), (1,)), "something else where a size must be"),
        (((0), (4,), (-1,)), "something else where a size must be"),
        (((0), (5,), (0,)), "of more numbers than its storage has"),
        (((0), (10**15,), (0,)), "of more numbers than its storage has"),
        (((0), (2**70,), (0,)), "of more numbers than its storage has"),
        (((0), (2**40, 2**40), (0, 0)), "of more numbers than its storage has"),
    ],
)
def test_a_tensor_that_its_storage_does_not_hold_is_refused(layout, message):
    writer = Pickle()
    storage = b"(" + writer.value("storage") + b"ctorch\nHalfStorage\n" + b"".join(map(writer.value, ("0", "cpu", 4)))
    code = TENSOR + b"(" + storage + b"tQ" + b"".join(map(writer.value, layout)) + b"\x89}tR"
    with pytest.raises(PickleError, match=message):
        load(b"\x80\x02" + code + b".")


def test_references_that_would_unfold_without_end_take_no_memory():
    # Each of 5000 lists holds the one before it twice: walked, that would be 2 ** 5000 things.
    nested = b"".join(b"](h\x00h\x00eq\x00" for _ in range(5000))
    assert isinstance(load(b"\x80\x02]q\x00" + nested + b"."), list)


def test_a_module_as_torch_saves_it_is_read(tmp_path):
    """A state dictionary carries versions of its modules, which are set as an attribute; parameters may be wrapped."""
    writer = Pickle()
    wrapped = b"ctorch._utils\n_rebuild_parameter\n(" + writer.tensor(np.ones(2, np.float16)) + b"\x89}tR"
    state = b"ccollections\nOrderedDict\n)R(" + writer.value("a") + wrapped + b"u"
    metadata = b"}" + writer.value("_metadata") + b"}sb"
    assert load(b"\x80\x02" + state + metadata + b".")["a"].shape == (2,)


def test_a_view_comes_out_as_torch_shows_it(tmp_path):
    network = dict(NETWORK)
    name = "encoder.blocks.0.mlp.0.weight"
    network[name] = np.asfortranarray(NETWORK[name])
    assert network[name].strides != NETWORK[name].strides
    # The numbers of a storage as they lie in memory, whatever the order of its view.
    path = tmp_path / "model.pt"
    writer = Pickle()
    code = writer.document({"dims": DIMS, "model_state_dict": network})
    position = list(network).index(name)
    writer.storages[position] = network[name].tobytes(order="A")
    read = read_openai(write_zip(path, code, writer.storages)).tensors[name].read()
    assert np.array_equal(read, NETWORK[name])


def test_a_checkpoint_that_lacks_its_dimensions_is_named(tmp_path):
    with pytest.raises(SourceError, match="lacks dims or model_state_dict"):
        read_openai(write_saved(tmp_path / "model.pt", {"state_dict": NETWORK}))


@pytest.mark.parametrize(
    "lists",
    [
        b"]q\x00" + b"](h\x00h\x00eq\x00" * 40,  # shown in full, 2 ** 40 of them
        b"]" * 5000 + b"a" * 4999 + b"q\x00",  # more levels than Python descends
    ],
    ids=["unfolding", "nested"],
)
def test_a_dimension_that_is_a_labyrinth_of_lists_is_named_by_its_type(tmp_path, lists):
    text = Pickle().value
    dims = b"}(" + text("n_vocab") + b"h\x00u"
    code = b"\x80\x02" + lists + b"}(" + text("model_state_dict") + b"}" + text("dims") + dims + b"u."
    with pytest.raises(SourceError, match=r"n_vocab in dims is a list, a whole number above 0 is needed"):
        read_openai(write_zip(tmp_path / "model.pt", code, []))


@pytest.mark.parametrize("value", [-1, "six", {}])
def test_a_dimension_that_is_no_size_is_named(tmp_path, value):
    saved = {"dims": {**DIMS, "n_audio_head": value}, "model_state_dict": NETWORK}
    with pytest.raises(SourceError, match=r"n_audio_head in dims is .*, a whole number above 0 is needed"):
        read_openai(write_saved(tmp_path / "model.pt", saved))


def test_something_else_among_the_tensors_is_named(tmp_path):
    saved = {"dims": DIMS, "model_state_dict": {**NETWORK, "epoch": 7}}
    with pytest.raises(SourceError, match=r"'epoch' is not a tensor: save model\.state_dict\(\) alone"):
        read_openai(write_saved(tmp_path / "model.pt", saved))


def test_a_missing_storage_is_named(tmp_path):
    writer = Pickle()
    path = write_zip(tmp_path / "model.pt", writer.document({"dims": DIMS, "model_state_dict": NETWORK}), [])
    with pytest.raises(SourceError, match=r"model\.pt lacks 'data/0': get it again"):
        read_openai(path).tensors[next(iter(NETWORK))].read()


def test_a_storage_of_another_size_is_named(tmp_path):
    writer = Pickle()
    code = writer.document({"dims": DIMS, "model_state_dict": NETWORK})
    path = write_zip(tmp_path / "model.pt", code, [writer.storages[0][:-2], *writer.storages[1:]])
    size = len(writer.storages[0])
    with pytest.raises(SourceError, match=rf"'data/0' has {size - 2} bytes, {size} are needed"):
        read_openai(path).tensors[next(iter(NETWORK))].read()


def test_a_storage_that_was_damaged_is_named(tmp_path):
    path = write_openai(tmp_path / "model.pt", NETWORK)
    data = bytearray(path.read_bytes())
    name = "decoder.blocks.0.attn.key.weight"
    data[data.index(NETWORK[name].tobytes()) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"cannot be read .*Bad CRC-32.*: get it again"):
        read_openai(path).tensors[name].read()


@pytest.mark.parametrize("length", [0.0, 0.01, 0.5, 0.999])
def test_an_archive_that_was_cut_off_is_named(tmp_path, length):
    path = write_openai(tmp_path / "model.pt", NETWORK)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * length)])
    with pytest.raises(SourceError, match=r"model\.pt is cut off or damaged"):
        read_openai(path)


def test_a_pickle_that_unpacks_to_gigabytes_is_refused_unread(tmp_path):
    path = write_zip(tmp_path / "model.pt", b"\x80\x02" + b"0" * (1 << 24), [], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(SourceError, match=r"'data\.pkl' is compressed or too large, which torch\.save does not do"):
        read_openai(path)


def test_a_storage_that_unpacks_to_gigabytes_is_refused_unread(tmp_path):
    writer = Pickle()
    code = writer.document({"dims": DIMS, "model_state_dict": {"a": np.zeros(1 << 24, np.float16)}})
    path = write_zip(tmp_path / "model.pt", code, [])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/data/0", writer.storages[0], zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match="'data/0' is compressed or too large"):
        read_openai(path).tensors["a"].read()


def test_a_size_that_the_archive_only_claims_is_refused_unread(tmp_path):
    path = write_openai(tmp_path / "model.pt", NETWORK)
    data = bytearray(path.read_bytes())
    entry = data.index(b"model/data.pkl", data.index(b"PK\x01\x02")) - 46
    struct.pack_into("<2I", data, entry + 20, 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"'data\.pkl' is compressed or too large"):
        read_openai(path)


def test_an_archive_of_a_later_kind_is_named(tmp_path):
    path = write_openai(tmp_path / "model.pt", NETWORK)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 207
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"model\.pt is cut off or damaged \(zip file version 20\.7\)"):
        read_openai(path)


def test_another_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(SourceError, match=r"was not written by torch\.save: it has 0 files \*/data\.pkl, not one"):
        read_openai(tmp_path / "model.pt")


def test_a_file_of_a_big_endian_machine_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", Pickle().document({}))
        archive.writestr("model/byteorder", "big")
    with pytest.raises(
        SourceError, match=r"model\.pt was saved on a big-endian machine: save it on a little-endian one"
    ):
        read_openai(tmp_path / "model.pt")
