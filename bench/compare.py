"""`make compare`: the library adapter and whisper-cli side by side, in the service, as it really is.

Measured for each, with a fresh service a round and the adapters taking turns: seconds until it is ready, until the
first answer and until later ones; memory of all its processes (summed PSS) when idle and at its peak; how often the
model was loaded. On the fixture, and on one window with random weights of the true dimensions of `small`, whose times
are true while its texts are noise. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import platform
import re
import shlex
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import packages

ADAPTERS = ("library", "cli")
MODEL = "small"
START_SECONDS = 300
SAMPLE_SECONDS = 0.1
REQUEST_SECONDS = 1800
IN_OPEN, IN_CLOSE_NOWRITE = 0x20, 0x10
INOTIFY_EVENT = struct.Struct("iIII")


@dataclass
class Case:
    """One package and clip to measure both adapters on."""

    title: str
    artifacts_dir: Path
    clip: Path
    rounds: int
    later: int  # requests after the first, in each round
    query: str = ""  # fields of each request


@dataclass
class Figures:
    """What the rounds of one adapter gave; seconds and MB (10^6 bytes)."""

    ready: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)


class OpenCounter:
    """Counts how often a file is opened, as the kernel tells it (inotify)."""

    def __init__(self, path: Path):
        libc = ctypes.CDLL(None, use_errno=True)
        # int inotify_init1(int flags); int inotify_add_watch(int fd, const char *pathname, uint32_t mask)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # Equal events in a row are told once: closing comes between two openings.
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN | IN_CLOSE_NOWRITE) < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch the model file")

    def close(self) -> int:
        """Return the number of openings."""
        opened = 0
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 4096):
                opened += sum(bool(mask & IN_OPEN) for _, mask, _, _ in INOTIFY_EVENT.iter_unpack(data))
        os.close(self._fd)
        return opened


class Memory(threading.Thread):
    """Samples the summed PSS of a process and all below it; `peak` is the highest sum seen, in MB."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.peak = 0.0

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, summed_pss(self._pid))

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return self.peak


def summed_pss(pid: int) -> float:
    """Return the proportional set size of a process and its descendants in MB: pages that n share count 1/n each."""
    total = 0
    for process in (pid, *_descendants(pid)):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss: +(\d+) kB$", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found.group(1)) if found else 0
    return total * 1024 / 1e6


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


class Service:
    """The service with one adapter, on a free port of the loopback."""

    def __init__(self, artifacts_dir: Path, adapter: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        settings = {
            "WHISPER_ARTIFACTS_DIR": str(artifacts_dir),
            "WHISPER_MODEL_SIZE": MODEL,
            "WHISPER_ADAPTER": adapter,
            "WHISPER_PORT": str(self._port),
            "WHISPER_ENGINES": "1",
            "WHISPER_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
            "WHISPER_LOG_LEVEL": "error",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "whisper_xeon"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages.ROOT / "app"), **settings},
        )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self._request("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        raise SystemExit(f"compare: the service did not get ready (exit status {self.process.poll()})")

    def transcribe(self, audio: bytes, query: str) -> tuple[float, str]:
        """Return the seconds until the answer, and its text."""
        start = time.monotonic()
        status, body = self._request("POST", f"/transcribe?{query}", audio, {"Content-Type": "audio/wav"})
        seconds = time.monotonic() - start
        if status != 200:
            raise SystemExit(f"compare: the service answered {status}: {body.decode()}")
        return seconds, json.loads(body)["text"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def _request(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()


def measure(case: Case, adapter: str, figures: Figures) -> None:
    """Run one round."""
    audio = case.clip.read_bytes()
    opened = OpenCounter(next((case.artifacts_dir / f"whisper_{MODEL}_xeon").glob("ggml-*.bin")))
    start = time.monotonic()
    service = Service(case.artifacts_dir, adapter)
    try:
        service.wait_ready()
        figures.ready.append(time.monotonic() - start)
        figures.idle.append(summed_pss(service.process.pid))
        memory = Memory(service.process.pid)
        memory.start()
        for number in range(1 + case.later):
            seconds, text = service.transcribe(audio, case.query)
            (figures.later if number else figures.first).append(seconds)
            figures.texts.add(text)
        figures.peak.append(memory.stop())
    finally:
        service.stop()
    # The service reads the file once to check it, before anything is loaded.
    figures.loads.append(opened.close() - 1)


def compare(case: Case) -> Iterator[str]:
    """Measure both adapters in turn and yield the table's rows."""
    figures = {adapter: Figures() for adapter in ADAPTERS}
    for number in range(case.rounds):
        for adapter in ADAPTERS if number % 2 == 0 else reversed(ADAPTERS):
            print(f"{case.title}: round {number + 1} of {case.rounds}, {adapter}", file=sys.stderr, flush=True)
            measure(case, adapter, figures[adapter])
    if figures["library"].texts != figures["cli"].texts:
        raise SystemExit(f"compare: the adapters heard different texts: {[f.texts for f in figures.values()]}")
    for adapter, found in figures.items():
        seconds = [f"{statistics.median(values):.2f} s" for values in (found.ready, found.first, found.later)]
        memory = [f"{statistics.median(values):.0f} MB" for values in (found.idle, found.peak)]
        loads = f"{statistics.median(found.loads):g} for {1 + case.later} requests"
        yield "| " + " | ".join([case.title, adapter, *seconds, *memory, loads]) + " |"


def one_window(folder: Path) -> Path:
    """Write 30 s of speech, what the encoder takes at once, and return the file."""
    clip = folder / "one-window.wav"
    with wave.open(str(packages.RECORDINGS / "long.wav"), "rb") as source, wave.open(str(clip), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(30 * source.getframerate()))
    return clip


def machine() -> str:
    """Return processor and cores in words."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found.group(1) if found else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fixture", type=Path, metavar="DIR", help="folder with whisper_small_xeon/, instead of a build"
    )
    parser.add_argument("--true-size", type=Path, metavar="DIR", help="the same, with weights of true dimensions")
    parser.add_argument("--rounds", type=int, default=5, help="rounds on the fixture (default: 5)")
    parser.add_argument("--true-rounds", type=int, default=3, help="rounds at true dimensions; 0: none (default: 3)")
    arguments = parser.parse_args()
    packages.FOLDER.mkdir(parents=True, exist_ok=True)
    fixture = arguments.fixture or packages.fixture(MODEL)
    cases = [Case("fixture, 3 s of speech", fixture, packages.RECORDINGS / "en-00.wav", arguments.rounds, later=4)]
    if arguments.true_rounds:
        true_size = arguments.true_size or packages.true_size(MODEL)
        clip = one_window(packages.FOLDER)
        case = Case(f"{MODEL}, one window of 30 s", true_size, clip, arguments.true_rounds, later=1)
        # Noise is no good text, so it would be decoded three times over; above 0 a temperature is meant as it is.
        case.query = "language=en&temperature=0.01"
        cases.append(case)
    lines = [
        "| | adapter | ready after | first request | later requests | memory idle | memory peak | model loads |",
        "|---|---|---|---|---|---|---|---|",
        *(row for case in cases for row in compare(case)),
        "",
        f"Medians; {machine()}; made with `python {shlex.join(sys.argv)}`.",
    ]
    table = "\n".join(lines) + "\n"
    (packages.FOLDER / "compare.md").write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
