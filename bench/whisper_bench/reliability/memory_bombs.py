"""Small files that make a decoder take all the memory it can get, in a unit that has not enough of it."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from whisper_bench import builds
from whisper_bench.locations import APP_DIR
from whisper_bench.processes import HttpProcess
from whisper_bench.reliability import Row
from whisper_bench.reliability.callers import ATTACKERS, attacking, packages, transcribe

LIMIT_MB = 900
BALLAST_MB = 600  # what an engine with real weights has in it, and the fixture's has not
SPEECH_SECONDS = 90
TITLE = (
    f"AIFF at 1 Hz and MP4 with an index of 14 and 30 million samples, from 4 addresses, into a unit of {LIMIT_MB} MB "
    f"of which {BALLAST_MB} MB are taken: recordings of {SPEECH_SECONDS} s of others"
)
GOAL = "0 others lost"
TODAY = "others' engine killed"
SECONDS = 60.0
_CGROUPS = Path("/sys/fs/cgroup")


def measure(seconds: float) -> Row:
    """Count the recordings of others that are not transcribed, and what the kernel killed."""
    speech = builds.speech(SPEECH_SECONDS)
    answers: collections.Counter[int | str] = collections.Counter()
    with memory_limit(LIMIT_MB) as group, LimitedService(group) as service:
        service.wait_ready()
        with ballast(group, BALLAST_MB), attacking(attack, service.port):
            time.sleep(3)
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                answers[transcribe(service.port, speech)[0]] += 1
        killed = out_of_memory_kills(group)
    lost = answers.total() - answers[200]
    return Row(f"{lost} of {answers.total()} lost", not lost, f"{killed} decoders killed for want of memory")


class LimitedService(HttpProcess):
    """The service, in a control group."""

    name = "the service"
    ready_path = "/readyz"

    def __init__(self, group: Path):
        script = 'echo $$ > "$1/cgroup.procs" && exec "$2" -m whisper_xeon'
        values = {
            "PYTHONPATH": str(APP_DIR),
            "WHISPER_ARTIFACTS_DIR": str(packages()),
            "WHISPER_PORT": "PORT",
            "WHISPER_SPOOL_MB": "256",
            "WHISPER_LOG_LEVEL": "error",
        }
        super().__init__(["/bin/sh", "-c", script, "sh", group, sys.executable], values)


@contextlib.contextmanager
def memory_limit(megabytes: int) -> Iterator[Path]:
    """Make a control group with so much memory; the block has its directory."""
    unified = (_CGROUPS / "cgroup.controllers").exists()
    group = (_CGROUPS if unified else _CGROUPS / "memory") / f"whisper-xeon-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(megabytes * 10**6))
        yield group
    finally:
        for _ in range(100):  # until the last process in it is gone
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def out_of_memory_kills(group: Path) -> int:
    """Return how often the kernel killed a process of the group."""
    events = next(file for file in (group / "memory.events", group / "memory.oom_control") if file.exists())
    return next(int(line.split()[1]) for line in events.read_text().splitlines() if line.startswith("oom_kill "))


@contextlib.contextmanager
def ballast(group: Path, megabytes: int) -> Iterator[None]:
    """Take memory of the group, in a file in memory that no process is killed for."""
    script = (
        "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid())); fd = os.memfd_create('x')\n"
        "for _ in range(int(sys.argv[2])): os.write(fd, bytes(10**6))\n"
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(group), str(megabytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


def attack(port: int) -> None:
    """Send the bombs from four addresses, over and over, for ever."""
    bombs = (
        (aiff(60_000), "audio/aiff"),
        (mp4(30_000_000), "audio/mp4"),  # more than a decoder may take
        *[(mp4(14_000_000), "audio/mp4")] * 10,  # nearly that
    )

    def send(address: str) -> None:
        for audio, kind in itertools.cycle(bombs):
            transcribe(port, audio, kind=kind, caller=address)

    threads = [threading.Thread(target=send, args=(address,)) for address in ATTACKERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def aiff(samples: int) -> bytes:
    """Return an AIFF file with one sample of 8 bits per second."""
    one_hertz = bytes.fromhex("3fff8000000000000000")  # 80-bit float
    common = struct.pack(">hIh", 1, samples, 8) + one_hertz
    chunks = b"COMM" + struct.pack(">I", len(common)) + common
    chunks += b"SSND" + struct.pack(">III", samples + 8, 0, 0) + bytes(samples)
    return b"FORM" + struct.pack(">I", len(chunks) + 4) + b"AIFF" + chunks


def mp4(samples: int) -> bytes:
    """Return an MP4 file of some kB whose index has so many samples of A-law."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    times = struct.pack(">IIII", 0, 0, 44100, 44100)
    entry = _box(b"alaw", bytes(6), struct.pack(">H", 1), bytes(8), struct.pack(">HHHHI", 1, 16, 0, 0, 44100 << 16))
    table = _box(
        b"stbl",
        _full_box(b"stsd", struct.pack(">I", 1), entry),
        _full_box(b"stts", struct.pack(">III", 1, samples, 1024)),
        _full_box(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
        _full_box(b"stsz", struct.pack(">II", 1, samples)),
        _full_box(b"stco", struct.pack(">II", 1, 1000)),
    )
    reference = _box(b"dinf", _full_box(b"dref", struct.pack(">I", 1), _box(b"url ", b"\0\0\0\1")))
    media = _box(
        b"mdia",
        _full_box(b"mdhd", times, struct.pack(">HH", 0x55C4, 0)),
        _full_box(b"hdlr", bytes(4), b"soun", bytes(12), b"x\0"),
        _box(b"minf", _full_box(b"smhd", bytes(4)), reference, table),
    )
    head = struct.pack(">IIIII", 0, 0, 1, 0, 44100) + bytes(8) + struct.pack(">HHHH", 0, 0, 0x100, 0)
    track = _box(b"trak", _box(b"tkhd", b"\0\0\0\7", head, matrix, bytes(8)), media)
    movie = _full_box(
        b"mvhd", times, struct.pack(">IH", 0x10000, 0x100), bytes(10), matrix, bytes(24), struct.pack(">I", 2)
    )
    kind = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
    return kind + _box(b"moov", movie, track) + _box(b"mdat", b"\xd5" * 2000)


def _box(name: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", len(content) + 8, name) + content


def _full_box(name: bytes, *parts: bytes) -> bytes:
    return _box(name, bytes(4), *parts)
