"""What the rows about engines have in common: the package that they serve, and its workers as processes."""

from __future__ import annotations

import os
from pathlib import Path

from whisper_bench import builds
from whisper_bench.locations import RECORDINGS
from whisper_bench.processes import Service, descendants

CLIP = RECORDINGS / "en-00.wav"
FIXTURE = "small"  # the tests' tiny network: many requests in a short time


def packages(model: str) -> Path:
    """Return the directory that holds the package of `model`: the one that WHISPER_BENCH_DIST names, or a build."""
    given = os.environ.get("WHISPER_BENCH_DIST")
    if given:
        return Path(given).resolve()
    return builds.fixture(model) if model == FIXTURE else builds.real(model, "q5_1")


def workers(service: Service) -> list[int]:
    """Return the process ids of the workers: what the zygote, the service's long-lived child, has forked."""
    return [
        pid
        for pid in descendants(service.pid)
        if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text() == "wx-worker\n"
    ]
