"""`load_model`, and what it returns."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from whisper import weights
from whisper.engine import Engine
from whisper_package.package import Package
from whisper_xeon.engine.errors import WhisperLibraryError
from whisper_xeon.languages import known_to

_ACCELERATORS = ("cuda", "xpu", "mps", "hip", "vulkan")

# What the original has, as functions or of a model.
_PARTS = frozenset(
    """DecodingOptions DecodingResult decode decoder detect_language embed_audio encoder forward log_mel_spectrogram
    logits pad_or_trim parameters set_alignment_heads state_dict""".split()  # noqa: SIM905 - one to read
)


@dataclass
class ModelDimensions:
    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int


class Device:
    """The processor, asked as torch's devices are: whisper-xeon computes nowhere else."""

    type = "cpu"
    index = None

    def __str__(self) -> str:
        return self.type

    def __repr__(self) -> str:
        return f"device(type={self.type!r})"

    def __eq__(self, other: object) -> bool:
        """Whether `other` is the processor too: torch's own, or its name."""
        return str(other) == self.type

    def __hash__(self) -> int:
        return hash(self.type)


class Whisper:
    """One loaded model. Any thread may call it; one transcription runs at a time."""

    def __init__(self, package: Package, threads: int | None = None):
        """Load the model of `package`. Raises `RuntimeError`."""
        try:
            self.engine = Engine(package=package, threads=threads, audio_ctx="full", vad=False)
        except WhisperLibraryError as error:
            raise RuntimeError(str(error)) from None
        parameters = self.engine.parameters._asdict()
        self.dims = ModelDimensions(**{name: parameters[name] for name in ModelDimensions.__dataclass_fields__})

    @property
    def device(self) -> Device:
        """Where it computes."""
        return Device()

    @property
    def is_multilingual(self) -> bool:
        return self.engine.multilingual

    @property
    def num_languages(self) -> int:
        return len(known_to(self.dims.n_vocab)) if self.is_multilingual else 99

    def transcribe(self, audio: Any, **options: Any) -> dict[str, Any]:
        """Return text, segments and language of a recording: see `whisper.transcribe`."""
        from whisper.transcribe import transcribe

        return transcribe(self, audio, **options)

    def __getattr__(self, name: str) -> Any:
        raise missing(name, "model")

    def to(self, device: Any) -> Whisper:
        """Stay on the processor."""
        check_device(device)
        return self

    def eval(self) -> Whisper:
        """Change nothing: a model is never trained here."""
        return self


def missing(name: str, owner: str) -> AttributeError:
    """Return the error of a name that `owner` has not; where the original has it, it says what to use."""
    why = ": whisper-xeon has no network to take apart, use load_model(...).transcribe(...)" if name in _PARTS else ""
    return AttributeError(f"{owner} has no attribute {name!r}{why}")


def available_models() -> list[str]:
    """Return the models that may be named; their weights need not be here."""
    return list(weights.NAMES)


def load_model(
    name: str,
    device: Any = None,
    download_root: str | os.PathLike[str] | None = None,
    in_memory: bool = False,
    *,
    threads: int | None = None,
) -> Whisper:
    """Load a model by its name, or by the path of a package or of OpenAI's `.pt`.

    `device` may be any: without a GPU in use, one line says so. `download_root` is where `.pt` files are looked for,
    `~/.cache/whisper` by default; `in_memory` changes nothing, since weights are mapped into memory. `threads`, which
    the original has not, compute (default: as many as this process may use, up to 8). Raises `RuntimeError`.
    """
    check_device(device)
    return Whisper(weights.find(name, download_root), threads)


def check_device(device: Any) -> None:
    """Say in one line that a GPU is not used. Raises `ValueError` for what is no device."""
    kind = str(device or "auto").partition(":")[0]
    if kind in _ACCELERATORS:
        print(f"whisper: no GPU is in use: {device} was asked for, whisper-xeon computes on the CPU", file=sys.stderr)
    elif kind not in ("auto", "cpu"):
        raise ValueError(f"device: use auto, cpu or cuda, not {device}")
