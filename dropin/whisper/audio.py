"""Audio as the engine takes it: float32, mono, 16 kHz, within -1 to 1."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from whisper_xeon.audio.decode import SAMPLE_RATE, decode, map_samples
from whisper_xeon.audio.errors import AudioError
from whisper_xeon.audio.file_types import FileHint

_LONGEST_SECONDS = 24 * 3600
_DECODE_SECONDS = 3600
__all__ = ["SAMPLE_RATE", "load_audio", "samples_of"]


def load_audio(file: str | os.PathLike[str], sr: int = SAMPLE_RATE) -> memoryview[float]:
    """Return the samples of a file, as a memoryview of floats: `numpy.asarray` makes an array of it without a copy.

    Raises `RuntimeError` for a file that cannot be read or decoded.
    """
    if sr != SAMPLE_RATE:
        raise ValueError(f"sr: whisper takes {SAMPLE_RATE} Hz only")
    return samples_of(file)


def samples_of(audio: Any) -> memoryview[float]:
    """Return the samples of a path, or those of an array or tensor of float32. Raises as `load_audio`, `TypeError`."""
    if isinstance(audio, (str, os.PathLike)):
        return _decoded(audio)
    try:
        view: memoryview[float] = memoryview(audio.numpy() if hasattr(audio, "numpy") else audio)
    except TypeError:
        raise TypeError(f"audio: a path or an array of float32 is needed, not {type(audio).__name__}") from None
    if view.format != "f" or view.ndim != 1 or not view.contiguous:
        raise TypeError("audio: an array must be float32, of one dimension and contiguous")
    return view


def _decoded(path: str | os.PathLike[str]) -> memoryview[float]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            hint = FileHint(name=Path(path).name)
            audio = decode(fd, max_seconds=_LONGEST_SECONDS, timeout=_DECODE_SECONDS, hint=hint)
        finally:
            os.close(fd)
    except OSError as error:
        raise RuntimeError(f"Failed to load audio: {os.fspath(path)}: {error.strerror}") from None
    except AudioError as error:
        raise RuntimeError(f"Failed to load audio: {os.fspath(path)}: {error}") from None
    with audio:
        samples = map_samples(audio.fd, audio.samples) if audio.samples else b""
    return memoryview(samples).cast("B").cast("f")
