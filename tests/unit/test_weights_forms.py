"""Every form of a Whisper comes out as the same ggml file, and what is wrong with one is said in one line."""

from __future__ import annotations

import json
import lzma
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import model_forms
from model_forms import (
    LARGE_V3,
    MULTILINGUAL,
    PARAMETERS,
    ctranslate2_variables,
    huggingface_name,
    quantized,
    tensors,
    vocabulary,
    write_bfloat16,
    write_ctranslate2,
    write_huggingface,
    write_openai,
    write_saved,
)
from other_vocabularies import ModelFile
from paths import FIXTURES
from whisper_build.downloads import SourceError
from whisper_build.weights.convert import source
from whisper_build.weights.pinned import Assets
from whisper_package.digests import file_digest
from whisper_package.model_file import check_model_file

NETWORK = tensors()
QUERY = "encoder.blocks.0.attn.query.weight"


@pytest.fixture(scope="module")
def assets(tmp_path_factory) -> Assets:
    archive = tmp_path_factory.mktemp("assets") / "assets.tar.gz"
    return Assets.read(archive, model_forms.write_assets(archive))


@pytest.fixture
def convert(assets, tmp_path):
    """Return a function that converts a path and returns the file."""

    def run(path: Path) -> Path:
        target = tmp_path / "converted.bin"
        source(path).convert(assets, target)
        return target

    return run


@pytest.fixture(scope="module")
def expected(assets, tmp_path_factory) -> Path:
    """The ggml file of the network, which `test_the_file_says_what_the_network_is` looks into."""
    folder = tmp_path_factory.mktemp("expected")
    source(write_openai(folder / "model.pt", NETWORK)).convert(assets, folder / "model.bin")
    return folder / "model.bin"


def same(first: Path, second: Path) -> bool:
    """Compare files; pytest would take minutes to explain how millions of bytes differ."""
    return file_digest(first) == file_digest(second)


def keep(path: Path) -> Path:
    """Give a file a name that the next conversion leaves alone."""
    return path.rename(path.with_name("kept.bin"))


def written(path: Path) -> ModelFile:
    return ModelFile.read(path.read_bytes())


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Return the upper halves of numbers that have nothing in the lower ones."""
    bits = values.astype("<f4").view("<u4")
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("<u2")


def cut_to_bfloat16(network: model_forms.Tensors) -> model_forms.Tensors:
    return {
        name: (values.astype("<f4").view("<u4") & 0xFFFF0000).view("<f4").astype(np.float16)
        for name, values in network.items()
    }


def with_pytorch_bin(folder: Path) -> Path:
    write_huggingface(folder, NETWORK)
    (folder / "model.safetensors").unlink()
    write_saved(folder / "pytorch_model.bin", {huggingface_name(name): value for name, value in NETWORK.items()})
    return folder


def torchs_own(folder: Path) -> Path:
    folder.mkdir()
    packed = FIXTURES / "weights" / "whisper-32.pt.xz"
    (folder / "tiny.pt").write_bytes(lzma.decompress(packed.read_bytes()))
    return folder / "tiny.pt"


def as_float(network: model_forms.Tensors, kind: type) -> model_forms.Tensors:
    return {name: values.astype(kind) for name, values in network.items()}


FORMS = {
    "PyTorch's own file": torchs_own,
    ".pt of float32": lambda path: write_openai(path.with_suffix(".pt"), as_float(NETWORK, np.float32)),
    ".pt of float64": lambda path: write_openai(path.with_suffix(".pt"), as_float(NETWORK, np.float64)),
    "Hugging Face": lambda path: write_huggingface(path, NETWORK),
    "Hugging Face of float32": lambda path: write_huggingface(path, as_float(NETWORK, np.float32)),
    "Hugging Face in shards": lambda path: write_huggingface(path, NETWORK, shards=3),
    "Hugging Face with pytorch_model.bin": with_pytorch_bin,
    "CTranslate2": lambda path: write_ctranslate2(path, ctranslate2_variables(NETWORK)),
    "CTranslate2 of float32": lambda path: write_ctranslate2(
        path, ctranslate2_variables(as_float(NETWORK, np.float32))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bytes(form, tmp_path, convert, expected):
    assert same(convert(FORMS[form](tmp_path / "model")), expected)


def test_what_comes_out_is_taken_as_it_is(expected):
    assert source(expected) is None


def test_the_file_says_what_the_network_is(expected):
    assert check_model_file(expected) == PARAMETERS
    model = written(expected)
    assert model.tokens == [*map(model_forms.word, range(model_forms.TOKENS)), b"<|endoftext|>"]
    assert np.array_equal(np.frombuffer(model.filters, "<f4"), np.full(80 * 201, 80 / 1024, "<f4"))
    for tensor in model.tensors:
        values = np.frombuffer(tensor.data, {0: "<f4", 1: "<f2"}[tensor.type])
        assert np.array_equal(values, NETWORK[tensor.name.decode()].ravel()), tensor.name


def test_the_order_is_that_of_the_published_files(expected):
    names = [tensor.name.decode() for tensor in written(expected).tensors]
    assert names[:7] == [
        "decoder.positional_embedding",
        "encoder.positional_embedding",
        "decoder.token_embedding.weight",
        "decoder.blocks.0.mlp_ln.weight",
        "decoder.blocks.0.mlp_ln.bias",
        "decoder.blocks.0.mlp.0.weight",
        "decoder.blocks.0.mlp.0.bias",
    ]
    assert names[-2:] == ["encoder.ln_post.weight", "encoder.ln_post.bias"]


def test_bfloat16_comes_out_as_the_float16_that_it_is(tmp_path, convert):
    network = cut_to_bfloat16(NETWORK)
    expected = keep(convert(write_openai(tmp_path / "model.pt", network)))
    write_huggingface(tmp_path / "hf", network)
    write_bfloat16(tmp_path / "hf" / "model.safetensors", network)
    variables = {
        name: bfloat16_bits(values) if values.dtype == np.float16 else values
        for name, values in ctranslate2_variables(network).items()
    }
    assert same(convert(tmp_path / "hf"), expected)
    assert same(convert(write_ctranslate2(tmp_path / "ct2", variables)), expected)


def test_float32_is_rounded_to_the_nearest(tmp_path, convert, expected):
    # Less than half of the distance to the next float16, up and down in turn.
    nudged = {}
    for name, values in NETWORK.items():
        factors = np.where(np.arange(values.size) % 2, 1 + 1 / 8192, 1 - 1 / 8192).astype(np.float32)
        nudged[name] = values.astype(np.float32) * factors.reshape(values.shape)
    assert same(convert(write_huggingface(tmp_path / "model", nudged)), expected)


@pytest.mark.parametrize(("kind", "steps"), [(np.int8, 127), (np.int16, 1024)])
def test_what_was_quantized_comes_back_within_half_a_step(tmp_path, convert, kind, steps):
    directory = write_ctranslate2(tmp_path / "model", quantized(ctranslate2_variables(NETWORK), kind))
    for tensor in written(convert(directory)).tensors:
        values = np.frombuffer(tensor.data, {0: "<f4", 1: "<f2"}[tensor.type]).astype(np.float32)
        exact = NETWORK[tensor.name.decode()].astype(np.float32).ravel()
        # float16 itself is right to a two-thousandth.
        assert np.abs(values - exact).max() <= 0.5 * (0.5 / steps) + 0.5 / 2048, tensor.name


def test_equal_variables_that_ctranslate2_stores_once_are_all_there(tmp_path, convert):
    network = dict(NETWORK)
    network["encoder.blocks.1.attn_ln.bias"] = network["encoder.blocks.0.attn_ln.bias"]
    expected = keep(convert(write_openai(tmp_path / "model.pt", network)))
    variables = ctranslate2_variables(network)
    alias, name = (f"encoder/layer_{layer}/self_attention/layer_norm/beta" for layer in (1, 0))
    del variables[alias]
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight", alias: name}
    assert same(convert(write_ctranslate2(tmp_path / "ct2", variables, aliases=aliases)), expected)


@pytest.mark.parametrize("parameters", [MULTILINGUAL, LARGE_V3])
def test_vocabulary_and_filters_are_those_of_the_kind(tmp_path, convert, assets, parameters):
    network = tensors(parameters)
    converted = keep(convert(write_huggingface(tmp_path / "model", network, parameters)))
    model = written(converted)
    assert model.parameters == parameters
    assert model.tokens == [*map(model_forms.word, range(model_forms.TOKENS)), b""]
    assert model.filters == assets.filters[parameters.n_mels].tobytes()
    variables = ctranslate2_variables(network, parameters)
    directory = write_ctranslate2(tmp_path / "ct2", variables, tokens=vocabulary(parameters))
    assert same(convert(directory), converted)


def test_a_distilled_model_has_fewer_layers_in_its_decoder(tmp_path, convert):
    parameters = PARAMETERS._replace(n_audio_layer=4, n_text_layer=2)
    directory = write_huggingface(tmp_path / "model", tensors(parameters), parameters)
    assert written(convert(directory)).parameters == parameters


def test_an_output_layer_that_is_the_embedding_is_left_out(tmp_path, convert, expected):
    directory = write_huggingface(tmp_path / "model", NETWORK)
    renamed = {huggingface_name(name): values for name, values in NETWORK.items()}
    renamed["proj_out.weight"] = NETWORK["decoder.token_embedding.weight"]
    save_file(renamed, directory / "model.safetensors")
    assert same(convert(directory), expected)


def test_names_may_come_without_the_prefix_of_the_model(tmp_path, convert, expected):
    directory = write_huggingface(tmp_path / "model", NETWORK)
    bare = {huggingface_name(name).removeprefix("model."): values for name, values in NETWORK.items()}
    save_file(bare, directory / "model.safetensors")
    assert same(convert(directory), expected)


def test_a_directory_without_a_tokenizer_does(tmp_path, convert, expected):
    directory = write_huggingface(tmp_path / "model", NETWORK)
    (directory / "vocab.json").unlink()
    assert same(convert(directory), expected)


def test_a_digest_is_of_the_bytes_and_of_nothing_else(tmp_path):
    first, second = (write_huggingface(tmp_path / name, NETWORK) for name in ("first", "second"))
    (second / "README.md").write_text("It is mine.")
    assert source(first).digest() == source(second).digest()
    nudged = {**NETWORK, QUERY: NETWORK[QUERY] + np.float16(1)}
    assert source(write_huggingface(tmp_path / "third", nudged)).digest() != source(first).digest()


# What is wrong with a source, said in one line that names it.


def refused(convert, path: Path, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        convert(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def changed(folder: Path, **config) -> Path:
    return write_huggingface(folder, NETWORK, **config)


def without(name: str) -> model_forms.Tensors:
    return {other: values for other, values in NETWORK.items() if other != name}


def test_a_missing_tensor_is_named(tmp_path, convert):
    path = write_huggingface(tmp_path / "model", without(QUERY))
    refused(convert, path, rf"lacks '{QUERY}': it is incomplete, or its configuration belongs to another model")


def test_many_missing_tensors_are_counted(tmp_path, convert):
    refused(convert, changed(tmp_path / "model", encoder_layers=3), "lacks '.*', '.*', '.*' and 12 more tensors")


def test_an_unknown_tensor_is_named(tmp_path, convert):
    path = write_huggingface(tmp_path / "model", {**NETWORK, "encoder.lora_A.weight": np.ones((2, 2), np.float16)})
    refused(convert, path, r"has 'encoder\.lora_A\.weight', which a Whisper of these dimensions does not have")


def test_an_unknown_variable_is_named(tmp_path, convert):
    variables = {**ctranslate2_variables(NETWORK), "decoder/extra/weight": np.ones((2, 2), np.float16)}
    refused(convert, write_ctranslate2(tmp_path / "model", variables), "has 'decoder/extra/weight', which a Whisper")


def test_a_tensor_of_another_shape_is_named(tmp_path, convert):
    path = write_huggingface(tmp_path / "model", {**NETWORK, QUERY: np.ones((32, 16), np.float16)})
    refused(convert, path, rf"{QUERY} has shape \[32, 16\], the configuration implies \[32, 32\]")


@pytest.mark.parametrize("value", [0, -1, 1.5, "32", None, True, [32], 10**30])
def test_a_setting_that_is_no_size_is_named(tmp_path, convert, value):
    with pytest.raises(SourceError, match=r"(d_model|n_audio_state) is "):
        convert(changed(tmp_path / "model", d_model=value))


def test_a_vocabulary_that_was_extended_is_named(tmp_path, convert):
    refused(
        convert, changed(tmp_path / "model", vocab_size=51870), "can be served: n_vocab is 51870, expected one of 51864"
    )


def test_another_architecture_is_named(tmp_path, convert):
    with pytest.raises(SourceError, match=r"config\.json is of a model of type 'wav2vec2', not of a whisper"):
        convert(changed(tmp_path / "model", model_type="wav2vec2"))


def test_a_tokenizer_of_its_own_is_named(tmp_path, convert):
    path = changed(tmp_path / "model")
    tokens = vocabulary()
    tokens[1000], tokens[1001] = tokens[1001], tokens[1000]
    (path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    refused(convert, path, r"token 1000 of the vocabulary is '\\u0120w1001', OpenAI's is '\\u0120w1000'")


def test_a_tokenizer_json_is_compared_too(tmp_path, convert):
    path = changed(tmp_path / "model")
    (path / "vocab.json").unlink()
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"!": 0}}}))
    refused(convert, path, "token 0 of the vocabulary is '!'")


def test_broken_tokens_of_ctranslate2_are_named(tmp_path, convert):
    tokens = ["\ufffd" if number > 127 else token for number, token in enumerate(vocabulary())]
    path = write_ctranslate2(tmp_path / "model", ctranslate2_variables(NETWORK), tokens=tokens)
    refused(convert, path, r"token 128 of the vocabulary is '\\ufffd'")


def test_broken_tokens_of_a_ggml_file_are_counted(tmp_path, convert, expected):
    model = written(expected)
    model.tokens[128:256] = ["\ufffd".encode()] * 128
    (tmp_path / "ggml-model.bin").write_bytes(model.bytes())
    refused(
        convert, tmp_path / "ggml-model.bin", r"128 tokens of the vocabulary are broken \(U\+FFFD instead of bytes\)"
    )


def test_a_damaged_ggml_file_is_named(tmp_path, convert, expected):
    (tmp_path / "ggml-model.bin").write_bytes(expected.read_bytes()[:-1])
    refused(convert, tmp_path / "ggml-model.bin", "is damaged or not a Whisper model: it ends after")


def test_an_index_with_something_else_than_names_is_named(tmp_path, convert):
    path = write_huggingface(tmp_path / "model", NETWORK, shards=1)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": []}}))
    refused(convert, path, r"index\.json names no shards")


def test_a_missing_shard_is_named(tmp_path, convert):
    path = write_huggingface(tmp_path / "model", NETWORK, shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    refused(convert, path, "lacks 1 of 3 shards, 'model-00002-of-00003.safetensors' first: get them too")


def test_a_shard_outside_the_directory_is_not_read(tmp_path, convert):
    path = write_huggingface(tmp_path / "model", NETWORK, shards=1)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../model-00001-of-00001.safetensors"}}))
    refused(convert, index.parent, r"index\.json names no shards")


def test_missing_weights_are_named(tmp_path, convert):
    path = changed(tmp_path / "model")
    (path / "model.safetensors").unlink()
    refused(convert, path, r"lacks the weights: neither model\.safetensors nor pytorch_model\.bin is there")


def test_an_adapter_alone_is_named_with_the_remedy(tmp_path, convert):
    path = changed(tmp_path / "model")
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text("{}")
    refused(convert, path, r"is an adapter \(LoRA\) without the model under it: merge the two \(merge_and_unload")


def test_a_shape_that_no_array_can_have_is_named(tmp_path, convert):
    path = changed(tmp_path / "model")
    header = json.dumps({"a": {"dtype": "F16", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(convert, path, r"model\.safetensors: 'a' has an impossible shape: get it again")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_safetensors_that_were_cut_off_are_named(tmp_path, convert, length):
    path = changed(tmp_path / "model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SourceError, match=r"model\.safetensors is cut off or damaged"):
        convert(path.parent)


def test_weights_of_another_type_are_named(tmp_path, convert):
    path = changed(tmp_path / "model")
    renamed = {huggingface_name(name): values for name, values in NETWORK.items()}
    name = huggingface_name(QUERY)
    save_file({**renamed, name: renamed[name].astype(np.int8)}, path / "model.safetensors")
    refused(
        convert, path, rf"{re.escape(name)}' has numbers of type 'I8', which cannot be read: save the model as float16"
    )


def test_every_place_where_a_model_bin_can_be_cut_off_is_found(tmp_path, convert):
    path = write_ctranslate2(tmp_path / "model", ctranslate2_variables(NETWORK)) / "model.bin"
    whole = path.read_bytes()
    for length in [*range(0, 400, 7), *range(400, len(whole), len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"model\.bin is cut off or damaged at byte \d+: get it again"):
            convert(path.parent)


def test_a_model_of_an_older_ctranslate2_is_named(tmp_path, convert):
    path = write_ctranslate2(tmp_path / "model", ctranslate2_variables(NETWORK), version=4)
    refused(
        convert, path, "in a file of version 4, WhisperSpec revision 3 in version 6 is needed: convert the model again"
    )


def test_a_directory_of_ctranslate2_without_vocabulary_is_named(tmp_path, convert):
    path = write_ctranslate2(tmp_path / "model", ctranslate2_variables(NETWORK))
    (path / "vocabulary.txt").unlink()
    refused(convert, path, r"has neither vocabulary\.json nor vocabulary\.txt: it is incomplete")


def test_a_quantized_matrix_without_its_scale_is_named(tmp_path, convert):
    variables = quantized(ctranslate2_variables(NETWORK), np.int8)
    del variables["encoder/layer_0/ffn/linear_0/weight_scale"]
    path = write_ctranslate2(tmp_path / "model", variables)
    refused(convert, path, "lacks encoder/layer_0/ffn/linear_0/weight_scale, without which")


def test_a_scale_may_be_stored_once_for_two_matrices(tmp_path, convert):
    network = dict(NETWORK)
    network["encoder.blocks.1.mlp.0.weight"] = -network["encoder.blocks.0.mlp.0.weight"]
    variables = quantized(ctranslate2_variables(network), np.int8)
    expected = keep(convert(write_ctranslate2(tmp_path / "twice", variables)))
    scale, alias = (f"encoder/layer_{layer}/ffn/linear_0/weight_scale" for layer in (0, 1))
    assert np.array_equal(variables[scale], variables.pop(alias))
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight", alias: scale}
    assert same(convert(write_ctranslate2(tmp_path / "once", variables, aliases=aliases)), expected)


def test_a_weight_that_is_a_single_number_is_named(tmp_path, convert):
    variables = {**ctranslate2_variables(NETWORK), "encoder/conv1/weight": np.array(1, np.float32)}
    refused(
        convert, write_ctranslate2(tmp_path / "model", variables), "encoder/conv1/weight cannot be cut into 1 parts"
    )


def test_contradictions_that_no_reader_looks_for_are_one_line(tmp_path, convert):
    variables = quantized(ctranslate2_variables(NETWORK), np.int8)
    name = "encoder/layer_0/self_attention/linear_0/weight_scale"
    variables[name] = variables[name].reshape(1, -1)
    path = write_ctranslate2(tmp_path / "model", variables)
    refused(convert, path, r"is damaged or not a Whisper model \(ValueError: '.*'\): get it again")


def test_a_scale_that_does_not_fit_is_named(tmp_path, convert):
    variables = quantized(ctranslate2_variables(NETWORK), np.int8)
    variables["encoder/layer_0/ffn/linear_0/weight_scale"] = np.ones(7, np.float32)
    path = write_ctranslate2(tmp_path / "model", variables)
    refused(convert, path, "encoder/layer_0/ffn/linear_0/weight_scale has 7 numbers, which do not fit")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_is_named_with_the_remedy(tmp_path, convert, name):
    path = changed(tmp_path / "model")
    (path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 290403936\n")
    refused(convert, path, rf"{re.escape(name)} is a Git LFS pointer, not the file itself: run `git lfs pull` there")


@pytest.mark.parametrize("value", [np.nan, np.inf, 70000])
def test_a_value_that_float16_cannot_hold_is_named(tmp_path, convert, value):
    network = as_float(NETWORK, np.float32)
    network[QUERY][3, 4] = value
    refused(convert, write_huggingface(tmp_path / "model", network), rf"{QUERY} has values beyond float16's 65504")


def test_a_key_with_a_bias_is_named(tmp_path, convert):
    variables = ctranslate2_variables(NETWORK)
    variables["encoder/layer_0/self_attention/linear_0/bias"][32] = 1
    refused(
        convert, write_ctranslate2(tmp_path / "model", variables), r"encoder\.blocks\.0\.attn\.key\.bias is not zero"
    )


def test_an_output_layer_of_its_own_is_named(tmp_path, convert):
    path = changed(tmp_path / "model")
    renamed = {huggingface_name(name): values for name, values in NETWORK.items()}
    renamed["proj_out.weight"] = NETWORK["decoder.token_embedding.weight"] + np.float16(1)
    save_file(renamed, path / "model.safetensors")
    refused(
        convert, path, r"proj_out\.weight differs from decoder\.token_embedding\.weight: whisper\.cpp has one matrix"
    )


def test_an_output_layer_is_read_only_after_all_shapes(tmp_path, convert):
    path = changed(tmp_path / "model")
    renamed = {huggingface_name(name): values for name, values in NETWORK.items()}
    other = np.zeros((7, 3), np.float16)
    embedding = huggingface_name("decoder.token_embedding.weight")
    save_file({**renamed, embedding: other, "proj_out.weight": other + 1}, path / "model.safetensors")
    refused(convert, path, r"decoder\.token_embedding\.weight has shape \[7, 3\], the configuration implies")


def test_an_empty_directory_is_named_with_what_is_needed(tmp_path, convert):
    refused(
        convert, tmp_path, r"neither config\.json nor model\.bin is there; a ggml file, OpenAI's \.pt, a Hugging Face"
    )


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"RIFF" + bytes(100), "is not a Whisper model: a ggml file, OpenAI's"),
        (b"", "is not a Whisper model"),
        (struct.pack("<Q", 200) + b'{"a"', r"is a safetensors file without its config\.json: give the directory"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", r"was saved by a PyTorch before 1\.6"),
        (b"PK\x03\x04" + bytes(100), "is cut off or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
    ids=["another file", "an empty file", "safetensors", "an old pickle", "a broken archive", "a pointer"],
)
def test_a_file_that_is_no_model_is_named(tmp_path, convert, start, message):
    (tmp_path / "model").write_bytes(start)
    refused(convert, tmp_path / "model", message)


def test_assets_that_are_not_openais_are_named(tmp_path):
    archive = tmp_path / "assets.tar.gz"
    folder = model_forms.write_assets(archive)
    with pytest.raises(SourceError, match=r"assets\.tar\.gz has no vocabularies and mel filters in elsewhere"):
        Assets.read(archive, "elsewhere")
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(SourceError, match="has no vocabularies and mel filters in"):
        Assets.read(archive, folder)
