"""`make compare`: the library adapter and whisper-cli side by side, in the real service.

Measured for each, with a fresh service per round and the adapters interleaved: seconds until it is ready, of the first
request and of later ones; memory of all its processes (summed PSS) when idle and at its peak; how often the model was
loaded. On the fixture, and on one window with random weights of the true dimensions of `small`, whose times are real
while its text means nothing. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from whisper_bench import builds
from whisper_bench.interleaved import interleaved
from whisper_bench.locations import RECORDINGS, WORK_DIR
from whisper_bench.processes import PeakMemory, Service
from whisper_bench.provenance import origin

ADAPTERS = ("library", "cli")
MODEL = "small"
PACKAGE = f"whisper_{MODEL}_xeon"
IN_OPEN, IN_CLOSE_NOWRITE = 0x20, 0x10
INOTIFY_EVENT = struct.Struct("iIII")


@dataclass
class Case:
    """One package and clip to measure both adapters on."""

    title: str
    artifacts_dir: Path
    audio: bytes
    rounds: int
    later: int  # requests after the first, in each round
    query: str = ""  # fields of each request


@dataclass
class Figures:
    """What the rounds of one adapter measured, in seconds and MB (10^6 bytes)."""

    ready: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)


class OpenCounter:
    """Counts how often a file is opened, as the kernel reports it (inotify)."""

    def __init__(self, path: Path):
        libc = ctypes.CDLL(None, use_errno=True)
        # int inotify_init1(int flags); int inotify_add_watch(int fd, const char *pathname, uint32_t mask)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # The kernel merges equal events in a row; with closing watched as well, there is one between two openings.
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN | IN_CLOSE_NOWRITE) < 0:
            raise OSError(ctypes.get_errno(), "cannot watch the model file with inotify")

    def close(self) -> int:
        """Stop watching and return how often the file was opened."""
        opened = 0
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 4096):
                opened += sum(bool(mask & IN_OPEN) for _, mask, _, _ in INOTIFY_EVENT.iter_unpack(data))
        os.close(self._fd)
        return opened


def measure(case: Case, artifacts_dir: Path, adapter: str, figures: Figures) -> None:
    """Run one round."""
    opened = OpenCounter(next((artifacts_dir / PACKAGE).glob(f"ggml-{MODEL}-*.bin")))
    start = time.monotonic()
    with Service(artifacts_dir, MODEL, WHISPER_ADAPTER=adapter) as service:
        service.wait_ready()
        figures.ready.append(time.monotonic() - start)
        figures.idle.append(service.settled_memory())
        with PeakMemory(service.pid) as peak:
            for number in range(1 + case.later):
                start = time.monotonic()
                status, body = service.transcribe(case.audio, case.query)
                (figures.later if number else figures.first).append(time.monotonic() - start)
                if status != 200:
                    raise SystemExit(f"compare: the service answered {status}: {body.decode()}")
                figures.texts.add(json.loads(body)["text"])
        figures.peak.append(peak.mb)
    # The service reads the file once to check it, before anything is loaded.
    figures.loads.append(opened.close() - 1)


def compare(case: Case) -> Iterator[str]:
    """Measure both adapters in interleaved rounds and yield the table's rows."""
    figures = {adapter: Figures() for adapter in ADAPTERS}
    with tempfile.TemporaryDirectory(dir=WORK_DIR) as directory:
        # A copy: nobody else opens its model file.
        shutil.copytree(case.artifacts_dir / PACKAGE, Path(directory) / PACKAGE)
        print(case.title, file=sys.stderr, flush=True)
        for adapter in interleaved(list(ADAPTERS), case.rounds):
            measure(case, Path(directory), adapter, figures[adapter])
    if figures["library"].texts != figures["cli"].texts:
        texts = {adapter: found.texts for adapter, found in figures.items()}
        raise SystemExit(f"compare: the adapters transcribed different texts: {texts}")
    for adapter, found in figures.items():
        seconds = [f"{statistics.median(values):.2f} s" for values in (found.ready, found.first, found.later)]
        memory = [f"{statistics.median(values):.0f} MB" for values in (found.idle, found.peak)]
        loads = f"{statistics.median(found.loads):g} for {1 + case.later} requests"
        yield "| " + " | ".join([case.title, adapter, *seconds, *memory, loads]) + " |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fixture", type=Path, metavar="DIR", help="directory with whisper_small_xeon/, instead of a build"
    )
    parser.add_argument("--true-size", type=Path, metavar="DIR", help="the same, with weights of true dimensions")
    parser.add_argument("--rounds", type=int, default=5, help="rounds on the fixture (default: 5)")
    parser.add_argument("--true-rounds", type=int, default=3, help="rounds at true dimensions, may be 0 (default: 3)")
    parser.add_argument(
        "--output", type=Path, default=WORK_DIR / "compare.md", help="file that the table is also written to"
    )
    arguments = parser.parse_args()
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    fixture = arguments.fixture or builds.fixture(MODEL)
    clip = (RECORDINGS / "en-00.wav").read_bytes()
    cases = [Case("fixture, 3 s of speech", fixture, clip, arguments.rounds, later=4)]
    if arguments.true_rounds:
        true_size = arguments.true_size or builds.true_size(MODEL)
        title = f"{MODEL}, one window of 30 s"
        cases.append(Case(title, true_size, builds.speech(30), arguments.true_rounds, later=1, query="language=en"))
    lines = [
        "| | adapter | ready after | first request | later requests | idle memory | peak memory | model loads |",
        "|---|---|---|---|---|---|---|---|",
        *(row for case in cases for row in compare(case)),
        "",
        f"Medians; {origin()}",
    ]
    table = "\n".join(lines) + "\n"
    arguments.output.write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
