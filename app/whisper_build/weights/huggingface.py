"""A Hugging Face directory: `config.json`, the weights as safetensors or `pytorch_model.bin`, whole or in shards.

The vocabulary, `vocab.json` or `tokenizer.json`, is only compared: a ggml file gets OpenAI's own.
"""

from __future__ import annotations

import json
import re
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from whisper_build.downloads import SourceError
from whisper_build.weights.checkpoint import (
    FLOAT16,
    KEY_BIAS,
    Checkpoint,
    Tensor,
    bfloat16,
    count,
    printable,
)
from whisper_build.weights.pytorch import read_state_dict
from whisper_package.model_file import HyperParameters

CONFIG = "config.json"
_ADAPTER = "adapter_config.json"
_SAFETENSORS = ("model.safetensors.index.json", "model.safetensors")
_PYTORCH = ("pytorch_model.bin.index.json", "pytorch_model.bin")
_VOCABULARIES = ("vocab.json", "tokenizer.json")
_OUTPUT = "proj_out.weight"
# safetensors' name → numpy's; bfloat16 numpy does not know.
_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}

_SETTINGS = {
    "n_vocab": "vocab_size",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
    "n_mels": "num_mel_bins",
}
# In the order in which they are tried: the first that fits decides.
_NAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(encoder|decoder)\.embed_positions\.weight", r"\1.positional_embedding"),
        (r"decoder\.embed_tokens\.weight", r"decoder.token_embedding.weight"),
        (r"encoder\.layer_norm\.(\w+)", r"encoder.ln_post.\1"),
        (r"decoder\.layer_norm\.(\w+)", r"decoder.ln.\1"),
        (r"(\w+)\.layers\.(\d+)\.self_attn\.(q|k|v|out)_proj\.(\w+)", r"\1.blocks.\2.attn.\3.\4"),
        (r"(\w+)\.layers\.(\d+)\.self_attn_layer_norm\.(\w+)", r"\1.blocks.\2.attn_ln.\3"),
        (r"(\w+)\.layers\.(\d+)\.encoder_attn\.(q|k|v|out)_proj\.(\w+)", r"\1.blocks.\2.cross_attn.\3.\4"),
        (r"(\w+)\.layers\.(\d+)\.encoder_attn_layer_norm\.(\w+)", r"\1.blocks.\2.cross_attn_ln.\3"),
        (r"(\w+)\.layers\.(\d+)\.fc1\.(\w+)", r"\1.blocks.\2.mlp.0.\3"),
        (r"(\w+)\.layers\.(\d+)\.fc2\.(\w+)", r"\1.blocks.\2.mlp.2.\3"),
        (r"(\w+)\.layers\.(\d+)\.final_layer_norm\.(\w+)", r"\1.blocks.\2.mlp_ln.\3"),
    )
)
_PROJECTIONS = {".q.": ".query.", ".k.": ".key.", ".v.": ".value."}


def files(directory: Path) -> list[Path]:
    """Return the files of a directory that decide what comes out of it. Raises `SourceError`."""
    others = [path for path in map(directory.joinpath, (CONFIG, *_VOCABULARIES)) if path.is_file()]
    return [*others, *_weights(directory)]


def read(directory: Path) -> Checkpoint:
    """Return the checkpoint in a directory. Raises `SourceError`."""
    path = directory / CONFIG
    config = _json(path)
    if config.get("model_type") != "whisper":
        raise SourceError(f"{path} is of a model of type {printable(config.get('model_type'))}, not of a whisper")
    sizes = {ours: count(config.get(theirs), theirs, path) for ours, theirs in _SETTINGS.items()}
    tensors: dict[str, Tensor] = {}
    for file in _weights(directory):
        for name, tensor in (_safetensors(file) if file.suffix == ".safetensors" else read_state_dict(file)).items():
            if tensors.setdefault(_translated(name), tensor) is not tensor:
                raise SourceError(f"{file}: {printable(name)} is there twice: the shards are of different models")
    redundant = frozenset(name for name in tensors if name == _OUTPUT or name.endswith(KEY_BIAS))
    parameters = HyperParameters(**sizes, ftype=FLOAT16)
    return Checkpoint(directory, parameters, tensors, _vocabulary(directory), redundant)


def _translated(name: str) -> str:
    """Return OpenAI's name of a tensor; one that no rule knows stays as it is."""
    short = name.removeprefix("model.")
    for pattern, replacement in _NAMES:
        match = pattern.fullmatch(short)
        if match:
            translated = match.expand(replacement)
            for theirs, ours in _PROJECTIONS.items():
                translated = translated.replace(theirs, ours)
            return translated
    return short


def _weights(directory: Path) -> list[Path]:
    """Return the files with the weights: one, or the shards that an index names. Raises `SourceError`."""
    for index, whole in (_SAFETENSORS, _PYTORCH):
        if (directory / whole).is_file():
            return [directory / whole]
        if (directory / index).is_file():
            return _shards(directory / index)
    if (directory / _ADAPTER).is_file():
        raise SourceError(
            f"{directory} is an adapter (LoRA) without the model under it: merge the two (merge_and_unload in peft), "
            "and give the directory that save_pretrained then writes"
        )
    raise SourceError(
        f"{directory} lacks the weights: neither {_SAFETENSORS[1]} nor {_PYTORCH[1]} is there; get the whole directory"
    )


def _shards(index: Path) -> list[Path]:
    found = _json(index).get("weight_map")
    names = list(found.values()) if isinstance(found, dict) else []
    if not names or not all(isinstance(name, str) and "/" not in name for name in names):
        raise SourceError(f"{index} names no shards: get it again")
    shards = [index.parent / name for name in sorted(set(names))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise SourceError(
            f"{index.parent} lacks {len(missing)} of {len(shards)} shards, {printable(missing[0])} first: get them too"
        )
    return shards


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file: safetensors checks it, numpy reads it, since the two share no bfloat16."""
    try:
        with safe_open(path, "numpy"):
            pass
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
    except SafetensorError as error:
        raise SourceError(f"{path} is cut off or damaged ({error}): get it again") from None
    data = np.memmap(path, np.uint8, "r", 8 + length) if path.stat().st_size > 8 + length else np.zeros(0, np.uint8)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _TYPES:
            raise SourceError(
                f"{path}: {printable(name)} has numbers of type {printable(entry['dtype'])}, which cannot be read: "
                "save the model as float16, bfloat16 or float32"
            )
        start, end = entry["data_offsets"]
        try:
            values = data[start:end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
        except ValueError:
            raise SourceError(f"{path}: {printable(name)} has an impossible shape: get it again") from None
        tensors[name] = Tensor(values.shape, partial(_numbers, values, entry["dtype"]))
    return tensors


def _numbers(values: np.ndarray, kind: str) -> np.ndarray:
    return bfloat16(values) if kind == "BF16" else values


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise SourceError(f"{path} is damaged or not JSON: get it again") from None
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds no settings: get it again")
    return content


def _vocabulary(directory: Path) -> dict[int, str] | None:
    """Return id → token, None when the directory has no tokenizer: the weights do without."""
    for name in _VOCABULARIES:
        path = directory / name
        if not path.is_file():
            continue
        content = _json(path)
        if name == "tokenizer.json":
            content = content.get("model", {}).get("vocab", {}) if isinstance(content.get("model"), dict) else {}
        if not isinstance(content, dict) or not all(type(number) is int for number in content.values()):
            raise SourceError(f"{path} has no vocabulary: get it again")
        return {number: token for token, number in content.items()}
    return None
