"""Audio files that tests make with ffmpeg, and what the service decodes from them."""

from __future__ import annotations

import array
import mmap
import os
import struct
import subprocess
from pathlib import Path

from whisper_xeon.audio.decode import SAMPLE_RATE, PcmAudio, decode, map_samples


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *arguments], check=True)


def decode_file(path: Path, **limits) -> PcmAudio:
    with open(path, "rb") as stream:
        return decode(stream.fileno(), **{"max_seconds": 600, **limits})


def decode_bytes(data: bytes, **limits) -> PcmAudio:
    fd = os.memfd_create("upload")
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(data)
        return decode(fd, **{"max_seconds": 600, **limits})
    finally:
        os.close(fd)


def values(audio: PcmAudio) -> array.array:
    """Return the samples of a mix, and close it."""
    (samples,) = sides(audio)
    return samples


def sides(audio: PcmAudio) -> list[array.array]:
    """Return the samples of each side, or of the mix, and close them."""
    with audio:
        return [_floats(map_samples(fd, audio.samples) if audio.samples else b"") for fd in audio.fds]


def _floats(data: mmap.mmap | bytes) -> array.array:
    result = array.array("f")
    result.frombytes(data)
    return result


def sounding(samples: array.array, step: float = 0.1) -> list[bool]:
    """Tell of each tenth of a second whether there is sound."""
    size = round(step * SAMPLE_RATE)
    return [max(map(abs, samples[at : at + size])) > 0.003 for at in range(0, len(samples), size)]


def wav(data: bytes, *, tag=1, channels=1, rate=SAMPLE_RATE, bits=16, extra=b"", before=b"", size=None) -> bytes:
    """Return a WAV file; `size` is what its header claims about `data`."""
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits) + extra
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + before
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body
