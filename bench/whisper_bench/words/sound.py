"""Sound files that are made here: recordings without speech, and the corpus under hard conditions.

All are 16 kHz mono 16-bit WAV in .build/bench/words/audio, written once: they follow from seeds and the corpus.
"""

from __future__ import annotations

import dataclasses
import subprocess
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from whisper_bench import nonspeech
from whisper_bench.locations import WORK_DIR
from whisper_bench.words.corpus import Clip

AUDIO = WORK_DIR / "words" / "audio"
SYNTHETIC, SYNTHETIC_SECONDS = 200, 60.0


def _seed(clip: Clip) -> int:
    return zlib.crc32(clip.file.encode("utf-8"))


# How each condition changes a clip's samples.
CONDITIONS: dict[str, Callable[[nonspeech.Samples, Clip], nonspeech.Samples]] = {
    "quiet, -30 dB": lambda samples, _: nonspeech.quiet(samples),
    "telephone, 8 kHz G.711": lambda samples, _: nonspeech.telephone(samples),
    "noise at 5 dB": lambda samples, clip: nonspeech.noisy(samples, _seed(clip)),
    "singing": lambda samples, clip: nonspeech.sung(samples, _seed(clip)),
}


def samples(path: Path) -> nonspeech.Samples:
    """Return any sound file as float32, mono, 16 kHz."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", str(nonspeech.RATE), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)


def under(condition: str, clips: list[Clip]) -> list[Clip]:
    """Return the clips as they sound under one of `CONDITIONS`."""
    made = []
    for clip in clips:
        path = AUDIO / condition.replace(" ", "-").replace(",", "") / f"{clip.file}.wav"
        if not path.exists():
            _write(path, CONDITIONS[condition](samples(clip.path), clip))
        made.append(dataclasses.replace(clip, path=path))
    return made


def synthetic() -> list[Clip]:
    """Return the synthetic recordings without speech; `kind` is what each holds."""
    directory = AUDIO / "without-speech"
    # They take minutes to make, so what is there is not made again.
    if len(list(directory.glob("*.wav"))) < SYNTHETIC:
        for name, sound in nonspeech.recordings(SYNTHETIC, SYNTHETIC_SECONDS):
            _write(directory / f"{name}.wav", sound)
    order = sorted(directory.glob("*.wav"), key=lambda path: path.stem.rpartition("-")[2])
    return [Clip(path.name, path, "", "", SYNTHETIC_SECONDS, path.stem.partition("-")[0]) for path in order]


def _write(path: Path, sound: nonspeech.Samples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with wave.open(str(part), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(nonspeech.RATE)
        writer.writeframes(np.rint(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    part.rename(path)
