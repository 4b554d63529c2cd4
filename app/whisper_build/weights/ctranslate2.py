"""A CTranslate2 directory, the form that faster-whisper runs: `model.bin` and `vocabulary.txt` or `vocabulary.json`.

`model.bin` is a list of named variables. What was quantized comes back as close to what it was as int8 or int16 allow.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np

from whisper_build.downloads import SourceError
from whisper_build.weights.checkpoint import (
    EMBEDDING,
    FLOAT16,
    KEY_BIAS,
    Checkpoint,
    Tensor,
    bfloat16,
    count,
    printable,
)
from whisper_package.model_file import HyperParameters

MODEL = "model.bin"
_VERSION = 6
_SPECIFICATION = ("WhisperSpec", 3)
# CTranslate2's enum DataType
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, np.uint16)
_BFLOAT16 = 5
_MAX_RANK = 3
_OUTPUT = "decoder/projection/weight"

# (name there, name at OpenAI); the rows of a fused matrix are cut apart below.
_TOP = (
    ("encoder/position_encodings/encodings", "encoder.positional_embedding"),
    ("encoder/conv1", "encoder.conv1"),
    ("encoder/conv2", "encoder.conv2"),
    ("encoder/layer_norm", "encoder.ln_post"),
    ("decoder/position_encodings/encodings", "decoder.positional_embedding"),
    ("decoder/embeddings", "decoder.token_embedding"),
    ("decoder/layer_norm", "decoder.ln"),
)
_BLOCK = (
    ("self_attention/layer_norm", "attn_ln"),
    ("self_attention/linear_0", "attn.query attn.key attn.value"),
    ("self_attention/linear_1", "attn.out"),
    ("attention/layer_norm", "cross_attn_ln"),
    ("attention/linear_0", "cross_attn.query"),
    ("attention/linear_1", "cross_attn.key cross_attn.value"),
    ("attention/linear_2", "cross_attn.out"),
    ("ffn/layer_norm", "mlp_ln"),
    ("ffn/linear_0", "mlp.0"),
    ("ffn/linear_1", "mlp.2"),
)
_PARTS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def files(directory: Path) -> list[Path]:
    """Return the files of a directory that decide what comes out of it."""
    return [path for path in map(directory.joinpath, (MODEL, *_VOCABULARIES)) if path.is_file()]


def read(directory: Path) -> Checkpoint:
    """Return the checkpoint in a directory. Raises `SourceError`."""
    path = directory / MODEL
    variables = _Variables(path)
    tensors: dict[str, Tensor] = {}
    for theirs, ours in _TOP:
        variables.translate(theirs, ours, tensors)
    for side in ("encoder", "decoder"):
        for layer in range(variables.layers(side)):
            for theirs, ours in _BLOCK:
                names = " ".join(f"{side}.blocks.{layer}.{name}" for name in ours.split())
                variables.translate(f"{side}/layer_{layer}/{theirs}", names, tensors)
    variables.move(_OUTPUT, _OUTPUT, tensors)
    redundant = frozenset(name for name in tensors if name == _OUTPUT or name.endswith(KEY_BIAS))
    variables.keep_unknown(tensors)

    def extent(name: str, axis: int) -> int:
        shape = tensors[name].shape if name in tensors else ()
        return count(shape[axis] if axis < len(shape) else None, f"extent {axis} of {name}", path)

    parameters = HyperParameters(
        n_vocab=extent(EMBEDDING, 0),
        n_audio_ctx=extent("encoder.positional_embedding", 0),
        n_audio_state=extent("encoder.positional_embedding", 1),
        n_audio_head=variables.scalar("encoder/num_heads"),
        n_audio_layer=variables.layers("encoder"),
        n_text_ctx=extent("decoder.positional_embedding", 0),
        n_text_state=extent("decoder.positional_embedding", 1),
        n_text_head=variables.scalar("decoder/num_heads"),
        n_text_layer=variables.layers("decoder"),
        n_mels=extent("encoder.conv1.weight", 1),
        ftype=FLOAT16,
    )
    return Checkpoint(directory, parameters, tensors, _vocabulary(directory), redundant)


class _Variables:
    """The variables of a `model.bin`, still in the file."""

    def __init__(self, path: Path):
        self._path = path
        self._data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        self._at = 0
        self._variables: dict[str, np.ndarray] = {}
        self._aliases: dict[str, str] = {}
        self._bfloat16: set[str] = set()
        self._used: set[str] = set()
        try:
            self._parse()
        except (struct.error, UnicodeDecodeError, ValueError):
            raise SourceError(f"{path} is cut off or damaged at byte {self._at}: get it again") from None

    def _parse(self) -> None:
        (version,) = self._unpack("<I")
        specification = (self._string(), *self._unpack("<I"))
        if version != _VERSION or specification != _SPECIFICATION:
            raise SourceError(
                f"{self._path} is {printable(specification[0])} revision {specification[1]} in a file of version "
                f"{version}, {_SPECIFICATION[0]} revision {_SPECIFICATION[1]} in version {_VERSION} is needed: convert "
                "the model again, with CTranslate2 4"
            )
        for _ in range(*self._unpack("<I")):
            name = self._string()
            (rank,) = self._unpack("<B")
            shape = self._unpack(f"<{rank}I")
            kind, size = self._unpack("<BI")
            if kind >= len(_TYPES) or rank > _MAX_RANK:
                raise SourceError(
                    f"{self._path}: {printable(name)} has type {kind} and rank {rank}: get the model again"
                )
            raw = self._data[self._at : self._at + size]
            if len(raw) != size:
                raise ValueError
            self._variables[name] = raw.view(_TYPES[kind]).reshape(shape)
            if kind == _BFLOAT16:
                self._bfloat16.add(name)
            self._at += size
        # Equal variables are stored once.
        for _ in range(*self._unpack("<I")):
            alias, name = self._string(), self._string()
            if name not in self._variables:
                raise ValueError
            self._aliases[alias] = name

    def _unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._data.data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _string(self) -> str:
        (size,) = self._unpack("<H")
        text = self._data[self._at : self._at + size].tobytes()
        if len(text) != size or not text.endswith(b"\0"):
            raise ValueError
        self._at += size
        return text[:-1].decode("utf-8")

    def layers(self, side: str) -> int:
        """Return how many blocks the encoder or the decoder has."""
        found = (re.match(rf"{side}/layer_(\d+)/", name) for name in self._names())
        return len({match[1] for match in found if match})

    def scalar(self, name: str) -> int:
        """Return a number that is not a weight. Raises `SourceError`."""
        value = self._get(name)
        return count(value.item() if value is not None and value.size == 1 else None, name, self._path)

    def translate(self, theirs: str, ours: str, tensors: dict[str, Tensor]) -> None:
        """Add a layer's tensors under OpenAI's names; a layer of several names is cut into as many, by rows."""
        names = ours.split()
        if self._get(theirs) is not None:
            self.move(theirs, ours, tensors)
            return
        for part, our_part in _PARTS.items():
            name = f"{theirs}/{part}"
            variable = self._get(name)
            if variable is None:
                continue
            rows, left = divmod(variable.shape[0] if variable.ndim else 0, len(names))
            if left or not rows:
                raise SourceError(f"{self._path}: {name} cannot be cut into {len(names)} parts: get the model again")
            for index, our_name in enumerate(names):
                self.move(name, f"{our_name}.{our_part}", tensors, slice(index * rows, (index + 1) * rows))

    def move(self, name: str, ours: str, tensors: dict[str, Tensor], rows: slice | None = None) -> None:
        """Add one tensor, or some rows of it, if it is there."""
        variable = self._get(name)
        if variable is None:
            return
        self._used |= {name, f"{name}_scale"}
        part = variable if rows is None else variable[rows]
        tensors[ours] = Tensor(part.shape, lambda: self._numbers(name, part, rows))

    def _numbers(self, name: str, part: np.ndarray, rows: slice | None) -> np.ndarray:
        stored = self._aliases.get(name, name)
        if stored in self._bfloat16:
            return bfloat16(part)
        if part.dtype.kind != "i":
            return part
        scale = self._get(f"{stored}_scale")
        if scale is None:
            raise SourceError(
                f"{self._path} lacks {name}_scale, without which {name} means nothing: get the model again"
            )
        # int8 has a scale for each row, int16 one for all.
        if scale.size not in (1, len(self._variables[stored])):
            raise SourceError(
                f"{self._path}: {name}_scale has {scale.size} numbers, which do not fit: get the model again"
            )
        if scale.size > 1:
            scale = scale if rows is None else scale[rows]
            scale = scale.reshape(-1, *[1] * (part.ndim - 1))
        return part.astype(np.float32) / scale.astype(np.float32)

    def keep_unknown(self, tensors: dict[str, Tensor]) -> None:
        """Add what no rule translates, so that the check of all tensors names it; single numbers are settings."""
        for name in self._names() - self._used:
            variable = self._get(name)
            if variable is not None and variable.size > 1:
                self.move(name, name, tensors)

    def _names(self) -> set[str]:
        return {*self._variables, *self._aliases}

    def _get(self, name: str) -> np.ndarray | None:
        return self._variables.get(self._aliases.get(name, name))


_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")


def _vocabulary(directory: Path) -> dict[int, str]:
    for name in _VOCABULARIES:
        path = directory / name
        if not path.is_file():
            continue
        try:
            text = path.read_text("utf-8")
            tokens = json.loads(text) if name.endswith(".json") else text.split("\n")
        except (ValueError, RecursionError):
            raise SourceError(f"{path} is damaged: get it again") from None
        if not isinstance(tokens, list):
            raise SourceError(f"{path} is not a list of tokens: get it again")
        return dict(enumerate(tokens))
    raise SourceError(
        f"{directory} has neither {' nor '.join(_VOCABULARIES)}: it is incomplete; get the whole directory again"
    )
