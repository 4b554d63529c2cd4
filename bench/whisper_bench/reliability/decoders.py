"""Files that keep a decoder busy out of all proportion, and somebody else's short recording beside them."""

from __future__ import annotations

import collections
import statistics
import subprocess
import tempfile
import threading
from pathlib import Path

from whisper_bench.processes import Service
from whisper_bench.reliability import Row
from whisper_bench.reliability.callers import ATTACKERS, CLIP, attacking, packages, transcribe

TITLE = (
    "4 callers that send FLAC of 655 kHz with 8 channels and no length, over and over (and then of 192 kHz, which is "
    "accepted): a 3 s WAV of somebody else"
)
GOAL = "at most twice the time that it takes alone"
TODAY = "118 s"
SECONDS = 60.0


def measure(seconds: float) -> Row:
    """Compare the median time of the WAV alone and under each of the two loads."""
    with Service(packages(), "small") as service:
        service.wait_ready()
        transcribe(service.port)
        alone = times(service.port, 10)
        loads = {}
        for rate in (655_340, 192_000):
            with attacking(attack, service.port, endless_flac(rate)):
                transcribe(service.port)
                loads[rate] = times(service.port, max(5, round(seconds / 3)))
        compressed = _compressed(service.port)
    worst = max(statistics.median(found) for found in loads.values()) / statistics.median(alone)
    described = "; ".join(
        f"{rate // 1000} kHz: {statistics.median(found):.2f} s (longest {max(found):.2f} s)"
        for rate, found in loads.items()
    )
    return Row(f"{worst:.1f} times (alone {statistics.median(alone):.2f} s; {described})", worst <= 2, compressed)


def times(port: int, number: int) -> list[float]:
    """Return the seconds of so many transcriptions; one that fails counts as a minute."""
    found = [transcribe(port) for _ in range(number)]
    return [seconds if status == 200 else 60.0 for status, seconds in found]


def _compressed(port: int) -> str:
    """Say how long the same clip as FLAC, which needs a decoder, takes beside files that may have all of them."""
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "flac", "-"]
    clip = subprocess.run(command, input=CLIP, capture_output=True, check=True).stdout
    with attacking(attack, port, endless_flac(192_000)):
        transcribe(port)
        found = [transcribe(port, clip, kind="audio/flac") for _ in range(3)]
    answers = collections.Counter(status for status, _ in found)
    return f"the clip as FLAC beside 192 kHz: {dict(answers)}, at most {max(seconds for _, seconds in found):.1f} s"


def attack(port: int, audio: bytes) -> None:
    """Send the file from four addresses, over and over, for ever."""

    def send(address: str) -> None:
        while True:
            transcribe(port, audio, kind="audio/flac", caller=address, seconds=600)

    threads = [threading.Thread(target=send, args=(address,)) for address in ATTACKERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def endless_flac(rate: int) -> bytes:
    """Return a FLAC file of about a megabyte with an hour of silence in 8 channels, which does not say its length."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "silence.flac"
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            f"anullsrc=r={rate}:cl=7.1",
            "-t",
            "20",
            "-c:a",
            "flac",
        ]
        options = ["-strict", "-2", "-frame_size", "65535", "-sample_fmt", "s16", str(file)]
        subprocess.run([*command, *options], check=True)
        content = file.read_bytes()
    at = 4
    while True:  # over the blocks of metadata
        last, size = content[at] >> 7, int.from_bytes(content[at + 1 : at + 4], "big")
        at += 4 + size
        if last:
            break
    head = bytearray(content[:at])
    told = int.from_bytes(head[18:26], "big") & ~((1 << 36) - 1)  # the number of samples: unknown
    head[18:26] = told.to_bytes(8, "big")
    return bytes(head) + content[at:] * 181
