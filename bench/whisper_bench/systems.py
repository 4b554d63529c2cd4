"""What `make bench` measures: this project's packages and the baselines, and where each of them lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whisper_bench import baselines, builds
from whisper_package.package import Package
from whisper_package.variants import choose_variant, cpu_flags

THREADS = 2
VNNI = "cascadelake"


@dataclass
class Systems:
    """Directories and programs to measure; what is None is left out."""

    ours: Path  # directory with whisper_<model>_xeon/, all kernels
    best: str  # name of the CPU variant that this processor takes
    vnni: str | None = None  # of the one for VNNI alone, if that is another
    upstream: Path | None = None  # as `ours`, without kernels
    server: Path | None = None  # whisper-server with the upstream libraries
    faster_whisper: Path | None = None  # directory with the same weights for faster-whisper

    @classmethod
    def build(cls, model: str, build: Callable[..., Path]) -> Systems:
        """Build what is missing; `build` is `builds.fixture` or `builds.true_size`."""
        ours, upstream = build(model), build(model, kernels=[])
        best, vnni = variants(Package.find(upstream, model))
        server = baselines.whisper_server(Package.find(upstream, model), upstream.parent / "context", best)
        converted = baselines.faster_whisper_model(model) if build is builds.true_size else None
        return cls(ours, best, vnni, upstream, server, converted)

    @classmethod
    def without_baselines(cls, ours: Path, model: str) -> Systems:
        """Take a package that is already built, and nothing to compare it with."""
        return cls(ours, *variants(Package.find(ours, model)))


def variants(package: Package) -> tuple[str, str | None]:
    """Return the CPU variant that this processor takes, and the one for VNNI alone if the processor has more."""
    best = choose_variant(package, cpu_flags()).name
    knows_vnni = "avx512_vnni" in cpu_flags()
    return best, VNNI if knows_vnni and best != VNNI else None
