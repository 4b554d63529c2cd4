"""What voice detection and word times cost, on one thread of the service."""

from __future__ import annotations

import re
import statistics

from whisper_bench.processes import Service, form
from whisper_bench.words.corpus import Clip
from whisper_bench.words.sound import SYNTHETIC_SECONDS
from whisper_package.package import Package

ROUNDS = 5
TIMED_CLIPS = 10


def detection(package: Package, quiet: list[Clip]) -> float:
    """Return the seconds of computing for a second of audio in which nobody speaks: detection and nothing else."""
    with _service(package) as service:
        rounds = [statistics.fmean(_compute_seconds(service, clip, "segment") for clip in quiet) for _ in range(ROUNDS)]
    return statistics.median(rounds) / SYNTHETIC_SECONDS


def word_times(package: Package, clips: list[Clip]) -> float:
    """Return how many times as long computing takes with word times as without; medians of interleaved rounds."""
    ratios = []
    with _service(package) as service:
        for _ in range(ROUNDS):
            seconds = {
                granularity: sum(_compute_seconds(service, clip, granularity) for clip in clips[:TIMED_CLIPS])
                for granularity in ("segment", "word")
            }
            ratios.append(seconds["word"] / seconds["segment"])
    return statistics.median(ratios)


def _service(package: Package) -> Service:
    service = Service(package.directory.parent, package.model, WHISPER_THREADS="1")
    service.wait_ready()
    return service


def _compute_seconds(service: Service, clip: Clip, granularity: str) -> float:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": granularity}
    body, content_type = form(clip.path.read_bytes(), **fields, **({"language": clip.language} if clip.text else {}))
    status, answer, headers = service.request("POST", "/v1/audio/transcriptions", body, {"Content-Type": content_type})
    if status != 200:
        raise SystemExit(f"bench: the service answered {status} to {clip.file}: {answer.decode(errors='replace')}")
    return float(re.search(r"compute;dur=([\d.]+)", headers["Server-Timing"])[1]) / 1000
