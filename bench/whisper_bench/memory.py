"""`make memory`: how much memory the service takes: the summed PSS of all its processes, in MB (10^6 bytes).

At the true dimensions of `small` and `medium` (random weights): at rest, and the peak while every engine computes one
30 s window, with one, two and four engines. With the fixture: what an hour of audio adds, and whether the same mix of
requests leaves the same memory behind after the 10th and after the 500th.

RESULTS.md has the memory per thread. Uploads and decoded audio that wait are in no process's memory; they come on top.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from whisper_bench import builds
from whisper_bench.locations import RECORDINGS, WORK_DIR
from whisper_bench.processes import PeakMemory, Service, descendants, form
from whisper_bench.provenance import origin

ENGINES = (1, 2, 4)
# What one engine may take at its peak, in MB, and by how much memory may have grown after the last request, in percent.
PEAK_GOALS = {"small": 500, "medium": 2000}
DRIFT_GOAL = 2.0
FIRST_CHECKPOINT = 10
MIDDLE_CHECKPOINT = 100
LONGEST_SECONDS = 100  # of audio, in the mix


@dataclass
class Request:
    """One request of the mix and the status with which it must be answered."""

    body: bytes
    status: int = 200
    content_type: str = "audio/wav"
    query: str = ""
    path: str = "/transcribe"


def peak(title: str, artifacts_dir: Path, model: str, request: Request, engines: int) -> tuple[float, float]:
    """Send one request per engine at the same time; return MB at rest and at the peak."""
    progress(f"{title}: {engines} engine{'s' * (engines > 1)}")
    with Service(artifacts_dir, model, WHISPER_ENGINES=str(engines)) as service:
        service.wait_ready()
        idle = service.settled_memory()
        with PeakMemory(service.pid) as memory, ThreadPoolExecutor(engines) as clients:
            for answer in [clients.submit(send, service, request) for _ in range(engines)]:
                answer.result()
        return idle, memory.mb


def peaks(fixture: Path, true_size: Path | None) -> Iterator[str]:
    """Measure each number of engines and yield the table's rows."""
    for model, limit in PEAK_GOALS.items():
        request = Request(builds.speech(30), query="language=en")
        title = f"{model}, one window of 30 s"
        directory = true_size or builds.true_size(model)
        for engines in ENGINES:
            idle, highest = peak(title, directory, model, request, engines)
            goal = verdict(highest <= limit, f"at most {limit} MB") if engines == 1 else ""
            yield row(title, engines, f"{idle:.0f} MB", f"{highest:.0f} MB", goal)
    title = "fixture, one hour of audio"
    hour = Request(encode("long.wav", "mp3", "-b:a", "32k", seconds=3599), content_type="audio/mpeg")
    idle, highest = peak(title, fixture, "small", hour, 1)
    yield row(title, 1, f"{idle:.0f} MB", f"{highest:.0f} MB", "")


def drift(fixture: Path, requests: int) -> Iterator[str]:
    """Send the mix again and again, one request after the other, and yield the table of the memory at rest."""
    mix = mixed_requests()
    checkpoints = sorted({FIRST_CHECKPOINT, min(MIDDLE_CHECKPOINT, requests), requests})
    found: dict[int, float] = {}
    with Service(fixture, "small", WHISPER_MAX_AUDIO_SECONDS=str(LONGEST_SECONDS)) as service:
        service.wait_ready()
        processes = descendants(service.pid)
        for number in range(1, requests + 1):
            send(service, mix[(number - 1) % len(mix)])
            if number in checkpoints:
                progress(f"fixture, mixed requests: {number} of {requests}")
                # Without pages of files: their share depends on which other processes have Python's libraries mapped.
                found[number] = service.settled_memory("Anon", "Shmem")
        if descendants(service.pid) != processes:
            raise SystemExit("memory: an engine was replaced in between, which hides how much memory it had taken")
    percent = (found[requests] / found[FIRST_CHECKPOINT] - 1) * 100
    yield row("", *(f"after request {number}" for number in found), "drift", "goal")
    yield "|---" * (len(found) + 3) + "|"
    goal = verdict(percent < DRIFT_GOAL, f"below {DRIFT_GOAL:g} %")
    yield row("fixture, mixed requests", *(f"{value:.1f} MB" for value in found.values()), f"{percent:+.1f} %", goal)


def mixed_requests() -> list[Request]:
    """Return ten requests: lengths from 1 to 75 s, six formats, forms and bare audio, three of which must fail."""
    plain, silence, short = ((RECORDINGS / name).read_bytes() for name in ("en-00.wav", "silence.wav", "fr-01.wav"))
    words = "response_format=verbose_json&timestamp_granularities[]=word"
    openai = "/v1/audio/transcriptions"
    too_long = encode("long.wav", "ogg", "-c:a", "libopus", "-b:a", "16k", seconds=LONGEST_SECONDS + 20)
    return [
        Request(plain),
        Request(encode("long.wav", "mp3", "-b:a", "64k"), content_type="audio/mpeg", query=words, path=openai),
        upload(encode("en-01.wav", "flac", "-ar", "44100", "-ac", "2"), language="en"),
        Request(b"no sound " * 1000, status=422),
        Request(encode("de-00.wav", "m4a"), content_type="audio/mp4", query="response_format=srt", path=openai),
        Request(short, status=400, query="language=klingon"),
        upload(encode("vi-00.wav", "webm", "-c:a", "libopus"), language="vi"),
        Request(silence),
        Request(too_long, status=413, content_type="audio/ogg"),
        upload(short),
    ]


def upload(audio: bytes, **fields: str) -> Request:
    """Return a request with the audio in a form."""
    body, content_type = form(audio, **fields)
    return Request(body, content_type=content_type)


def encode(recording: str, extension: str, *options: str, seconds: int | None = None) -> bytes:
    """Return a recording in another format, repeated until it has `seconds` if these are given."""
    length = () if seconds is None else ("-t", str(seconds))
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / f"clip.{extension}"
        source = ("-stream_loop", "0" if seconds is None else "-1", "-i", str(RECORDINGS / recording))
        subprocess.run(["ffmpeg", "-loglevel", "error", *source, *length, *options, str(target)], check=True)
        return target.read_bytes()


def send(service: Service, request: Request) -> None:
    """Send a request; an answer with an unexpected status ends the measurement."""
    status, body = service.transcribe(request.body, request.query, request.content_type, request.path)
    if status != request.status:
        raise SystemExit(f"memory: the service answered {status} instead of {request.status}: {body.decode()}")


def verdict(met: bool, goal: str) -> str:
    """Return a goal and whether it was met."""
    return f"{goal}: {'met' if met else 'MISSED'}"


def row(*cells: object) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def progress(text: str) -> None:
    """Report on standard error what is being measured."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fixture", type=Path, metavar="DIR", help="directory with whisper_small_xeon/, instead of a build"
    )
    parser.add_argument(
        "--true-size", type=Path, metavar="DIR", help="directory with whisper_<model>_xeon/ of true dimensions"
    )
    parser.add_argument("--requests", type=int, default=500, help="requests for the drift, at least 10 (default: 500)")
    parser.add_argument("--drift-only", action="store_true", help="leave out the peaks")
    parser.add_argument(
        "--output", type=Path, default=WORK_DIR / "memory.md", help="file that the table is also written to"
    )
    arguments = parser.parse_args()
    if arguments.requests < FIRST_CHECKPOINT:
        parser.error(f"--requests {arguments.requests}: must be at least {FIRST_CHECKPOINT}")
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    fixture = arguments.fixture or builds.fixture("small")
    lines = list(drift(fixture, arguments.requests))
    if not arguments.drift_only:
        head = [row("", "engines", "at rest", "peak", "goal"), "|---" * 5 + "|"]
        lines = [*head, *peaks(fixture, arguments.true_size), "", *lines]
    table = "\n".join([*lines, "", f"Summed PSS, after requests of anonymous memory only; {origin()}"]) + "\n"
    arguments.output.write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
