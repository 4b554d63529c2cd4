"""A small Whisper of legal dimensions in each form that the builder converts, written without torch and CTranslate2.

Its numbers follow from a formula, so that they are the same everywhere; `tests/fixtures/weights` has the same network
as torch saved it. It transcribes nothing: what counts is that every form comes out as the same bytes.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from whisper_package.model_file import HyperParameters, expected_tensors

PARAMETERS = HyperParameters(51864, 8, 32, 1, 2, 32, 32, 1, 1, 80, 1)
MULTILINGUAL = PARAMETERS._replace(n_vocab=51865)
LARGE_V3 = PARAMETERS._replace(n_vocab=51866, n_mels=128)
TOKENS = 50256
# Rows of the embedding beyond these are zero, which packs well.
_EMBEDDED = 64

Tensors = dict[str, np.ndarray]


def tensors(parameters: HyperParameters = PARAMETERS) -> Tensors:
    """Return float16 numbers between -0.5 and 0.5 under OpenAI's names, outermost extent first."""
    made = {}
    for number, (name, (shape, _)) in enumerate(sorted(expected_tensors(parameters).items())):
        shape = shape[::-1][:1] if name in ("encoder.conv1.bias", "encoder.conv2.bias") else shape[::-1]
        mixed = (np.arange(np.prod(shape), dtype=np.uint64) + 7919 * number) * 2654435761 % 65521
        values = (mixed.astype(np.float64) / 65521 - 0.5).astype(np.float16).reshape(shape)
        if name == "decoder.token_embedding.weight":
            values[_EMBEDDED:] = 0
        made[name] = values
    return made


def word(number: int) -> bytes:
    """Return the ordinary token of a number: first all single bytes, as in GPT-2's vocabulary, then made-up words."""
    return bytes([number]) if number < 256 else f" w{number}".encode()


def _spelling() -> dict[int, str]:
    kept = [byte for byte in range(256) if 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or byte >= 0xAE]
    moved = [byte for byte in range(256) if byte not in kept]
    return {**{byte: chr(byte) for byte in kept}, **{byte: chr(256 + index) for index, byte in enumerate(moved)}}


_SPELLING = _spelling()


def spelled(token: bytes) -> str:
    """Return a token as GPT-2 writes it down: in printable characters, one for each byte."""
    return "".join(_SPELLING[byte] for byte in token)


def vocabulary(parameters: HyperParameters = PARAMETERS) -> list[str]:
    """Return what a tokenizer's file lists, the special tokens cut short."""
    ordinary = [spelled(word(number)) for number in range(TOKENS)]
    return [*ordinary, *([] if parameters.n_vocab == 51864 else [""]), "<|endoftext|>", "<|startoftranscript|>"]


def write_assets(archive: Path) -> str:
    """Write an archive like openai-whisper's, with made-up words and filters; returns the directory in it."""
    lines = [base64.b64encode(word(number)) + b" %d" % number for number in range(TOKENS)]
    # Backwards: it is the rank that counts.
    english = b"\n".join(reversed(lines)) + b"\n"
    filters = io.BytesIO()
    np.savez(filters, **{f"mel_{bins}": np.full((bins, 201), bins / 1024, np.float32) for bins in (80, 128)})
    files = {
        "gpt2.tiktoken": english,
        "multilingual.tiktoken": english + b"= %d\n" % TOKENS,
        "mel_filters.npz": filters.getvalue(),
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"whisper/assets/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return "whisper/assets"


# Hugging Face


def huggingface_name(name: str) -> str:
    """Return Hugging Face's name of a tensor."""
    for ours, theirs in (
        ("positional_embedding", "embed_positions.weight"),
        ("token_embedding", "embed_tokens"),
        ("ln_post", "layer_norm"),
        ("decoder.ln.", "decoder.layer_norm."),
        (".blocks.", ".layers."),
        (".cross_attn_ln.", ".encoder_attn_layer_norm."),
        (".attn_ln.", ".self_attn_layer_norm."),
        (".mlp_ln.", ".final_layer_norm."),
        (".mlp.0.", ".fc1."),
        (".mlp.2.", ".fc2."),
        (".cross_attn.", ".encoder_attn."),
        (".attn.", ".self_attn."),
        (".query.", ".q_proj."),
        (".key.", ".k_proj."),
        (".value.", ".v_proj."),
        (".out.", ".out_proj."),
    ):
        name = name.replace(ours, theirs)
    return f"model.{name}"


def write_huggingface(
    directory: Path, network: Tensors, parameters: HyperParameters = PARAMETERS, *, shards: int = 0, **config: Any
) -> Path:
    """Write a Hugging Face directory with safetensors, in shards if asked for; `config` goes over its settings."""
    directory.mkdir(parents=True)
    settings = {
        "model_type": "whisper",
        "vocab_size": parameters.n_vocab,
        "max_source_positions": parameters.n_audio_ctx,
        "d_model": parameters.n_audio_state,
        "encoder_attention_heads": parameters.n_audio_head,
        "encoder_layers": parameters.n_audio_layer,
        "max_target_positions": parameters.n_text_ctx,
        "decoder_attention_heads": parameters.n_text_head,
        "decoder_layers": parameters.n_text_layer,
        "num_mel_bins": parameters.n_mels,
        **config,
    }
    (directory / "config.json").write_text(json.dumps(settings))
    listed = {token: number for number, token in enumerate(vocabulary(parameters))}
    (directory / "vocab.json").write_text(json.dumps(listed))
    renamed = {huggingface_name(name): values for name, values in network.items()}
    if not shards:
        save_file(renamed, directory / "model.safetensors")
        return directory
    index = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(renamed.items())[shard::shards])
        save_file(part, directory / file)
        index.update(dict.fromkeys(part, file))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return directory


def write_bfloat16(path: Path, network: Tensors) -> None:
    """Write safetensors of bfloat16, which numpy does not know: the upper halves of float32."""
    header, data = {}, b""
    for name, values in network.items():
        raw = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        header[huggingface_name(name)] = {
            "dtype": "BF16",
            "shape": values.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# PyTorch


_STORAGES = {"f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage"}


class Pickle:
    """Writes the pickle of a dictionary of tensors as torch does, and keeps the bytes of its storages."""

    def __init__(self) -> None:
        self.storages: list[bytes] = []

    def document(self, value: Any) -> bytes:
        return b"\x80\x02" + self.value(value) + b"."

    def value(self, value: Any) -> bytes:
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        if isinstance(value, int):
            if not -(2**31) <= value < 2**31:
                return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)
            return b"J" + struct.pack("<i", value)
        if isinstance(value, dict):
            return b"}(" + b"".join(self.value(item) for pair in value.items() for item in pair) + b"u"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.value, value)) + b"t"
        if isinstance(value, np.ndarray):
            return self.tensor(value)
        raise TypeError(type(value))

    def tensor(self, values: np.ndarray) -> bytes:
        kind = _STORAGES[values.dtype.str[1:]]
        self.storages.append(values.tobytes())
        key = str(len(self.storages) - 1)
        storage = (
            b"("
            + self.value("storage")
            + f"ctorch\n{kind}\n".encode()
            + b"".join(map(self.value, (key, "cpu", values.size)))
            + b"tQ"
        )
        strides = tuple(step // values.itemsize for step in values.strides)
        layout = self.value(0) + self.value(values.shape) + self.value(strides)
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + layout + b"\x89ccollections\nOrderedDict\n)RtR"


def write_zip(path: Path, pickle: bytes, storages: list[bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Write the archive around a pickle, which `compression` is for, and its storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickle, compression)
        archive.writestr(f"{path.stem}/byteorder", "little")
        for key, data in enumerate(storages):
            archive.writestr(f"{path.stem}/data/{key}", data)
    return path


def write_saved(path: Path, content: Any) -> Path:
    """Write what torch.save writes for dictionaries, texts, numbers and arrays."""
    pickle = Pickle()
    return write_zip(path, pickle.document(content), pickle.storages)


def write_openai(path: Path, network: Tensors, parameters: HyperParameters = PARAMETERS) -> Path:
    """Write a checkpoint of OpenAI's whisper."""
    dims = {name: value for name, value in parameters._asdict().items() if name != "ftype"}
    return write_saved(path, {"dims": dims, "model_state_dict": network})


# CTranslate2

_TYPES = {"f4": 0, "i1": 1, "i2": 2, "f2": 4, "u2": 5}


def ctranslate2_variables(network: Tensors, parameters: HyperParameters = PARAMETERS) -> dict[str, np.ndarray]:
    """Return the variables of a model.bin: matrices that read the same input are fused, keys have a bias of zeros."""
    made: dict[str, np.ndarray] = {}

    def layer(theirs: str, *ours: str, norm: bool = False) -> None:
        weights = [network[f"{name}.weight"] for name in ours]
        biases = [network.get(f"{name}.bias", np.zeros(parameters.n_audio_state, np.float16)) for name in ours]
        made[f"{theirs}/{'gamma' if norm else 'weight'}"] = np.concatenate(weights)
        made[f"{theirs}/{'beta' if norm else 'bias'}"] = np.concatenate(biases)

    for side, layers in (("encoder", parameters.n_audio_layer), ("decoder", parameters.n_text_layer)):
        made[f"{side}/position_encodings/encodings"] = network[f"{side}.positional_embedding"]
        made[f"{side}/num_heads"] = np.array(parameters.n_audio_head, np.int16)
        layer(f"{side}/layer_norm", "encoder.ln_post" if side == "encoder" else "decoder.ln", norm=True)
        for number in range(layers):
            there, here = f"{side}/layer_{number}", f"{side}.blocks.{number}"
            layer(f"{there}/self_attention/layer_norm", f"{here}.attn_ln", norm=True)
            layer(f"{there}/self_attention/linear_0", *(f"{here}.attn.{part}" for part in ("query", "key", "value")))
            layer(f"{there}/self_attention/linear_1", f"{here}.attn.out")
            if side == "decoder":
                layer(f"{there}/attention/layer_norm", f"{here}.cross_attn_ln", norm=True)
                layer(f"{there}/attention/linear_0", f"{here}.cross_attn.query")
                layer(f"{there}/attention/linear_1", *(f"{here}.cross_attn.{part}" for part in ("key", "value")))
                layer(f"{there}/attention/linear_2", f"{here}.cross_attn.out")
            layer(f"{there}/ffn/layer_norm", f"{here}.mlp_ln", norm=True)
            layer(f"{there}/ffn/linear_0", f"{here}.mlp.0")
            layer(f"{there}/ffn/linear_1", f"{here}.mlp.2")
    layer("encoder/conv1", "encoder.conv1")
    layer("encoder/conv2", "encoder.conv2")
    made["decoder/embeddings/weight"] = network["decoder.token_embedding.weight"]
    made["decoder/scale_embeddings"] = np.array(0, np.int8)
    return made


def quantized(variables: dict[str, np.ndarray], kind: type) -> dict[str, np.ndarray]:
    """Return the variables as CTranslate2 quantizes them: a scale for each row of int8, one for a matrix of int16."""
    made = {}
    for name, values in variables.items():
        if not name.endswith("/weight"):
            made[name] = values
            continue
        exact = values.astype(np.float32)
        if kind is np.int8:
            largest = np.abs(exact.reshape(len(exact), -1)).max(axis=1)
            scale = (127 / np.where(largest == 0, 127, largest)).astype(np.float32)
            factor = scale.reshape(-1, *[1] * (exact.ndim - 1))
        else:
            scale = factor = np.float32(2**10 / np.abs(exact).max())
        made[name] = np.rint(exact * factor).astype(kind)
        made[f"{name}_scale"] = np.asarray(scale)
    return made


def write_ctranslate2(
    directory: Path,
    variables: dict[str, np.ndarray],
    *,
    aliases: dict[str, str] | None = None,
    tokens: list[str] | None = None,
    version: int = 6,
) -> Path:
    """Write a CTranslate2 directory; uint16 stands for bfloat16."""

    def text(string: str) -> bytes:
        return struct.pack("<H", len(string) + 1) + string.encode() + b"\0"

    directory.mkdir(parents=True)
    with open(directory / "model.bin", "wb") as stream:
        stream.write(struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables)))
        for name, values in variables.items():
            stream.write(text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape))
            stream.write(struct.pack("<BI", _TYPES[values.dtype.str[1:]], values.nbytes) + values.tobytes())
        known = {"decoder/projection/weight": "decoder/embeddings/weight"} if aliases is None else aliases
        stream.write(struct.pack("<I", len(known)))
        for alias, name in known.items():
            stream.write(text(alias) + text(name))
    (directory / "config.json").write_text("{}")
    (directory / "vocabulary.txt").write_text("\n".join(vocabulary() if tokens is None else tokens), encoding="utf-8")
    return directory
