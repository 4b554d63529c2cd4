"""Who takes part, and who is compared with whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from whisper_bench.words.transcripts import (
    BEAMS,
    GREEDY,
    System,
    faster_whisper,
    openai_whisper,
    ours,
    whisper_cli,
)
from whisper_bench.words.weights import Weights
from whisper_package.package import Package

SHIPPED, EXACT = "ours, q5_1", "ours, f16"
WITHOUT_DETECTION = "ours, q5_1, VAD off"
SHIPPED_BEAMS, EXACT_BEAMS = "ours, q5_1, beam 5", "ours, f16, beam 5"
QUANTIZED = ((SHIPPED, EXACT), (SHIPPED_BEAMS, EXACT_BEAMS))
FASTER_WHISPER, FASTER_WHISPER_GREEDY = "faster-whisper", "faster-whisper, greedy"
FASTER_WHISPER_VAD = "faster-whisper, VAD"
OPENAI_WHISPER, OPENAI_WHISPER_GREEDY = "openai-whisper", "openai-whisper, greedy"
WHISPER_CLI = "whisper-cli"
NAMES = (
    OPENAI_WHISPER,
    OPENAI_WHISPER_GREEDY,
    FASTER_WHISPER,
    FASTER_WHISPER_VAD,
    FASTER_WHISPER_GREEDY,
    WHISPER_CLI,
    SHIPPED,
    EXACT,
    WITHOUT_DETECTION,
    SHIPPED_BEAMS,
    EXACT_BEAMS,
)
WITH_WORD_TIMES = (OPENAI_WHISPER, FASTER_WHISPER, SHIPPED, EXACT)


@dataclass(frozen=True)
class Packages:
    """Built packages of the model that is measured: ours in two types, and whisper.cpp's without kernels."""

    NAMES: ClassVar = ("q5_1", "f16", "upstream")
    q5_1: Package
    f16: Package
    upstream: Package

    @classmethod
    def find(cls, directories: dict[str, Path], model: str) -> Packages:
        """Open those in the directories that hold `whisper_<model>_xeon/`."""
        return cls(**{name: Package.find(directory, model) for name, directory in directories.items()})


def systems(weights: Weights, packages: Packages) -> list[System]:
    """Return everybody in the order in which tables show them."""
    defaults, greedy = "its defaults", "its defaults but greedy"
    no_vad = {"WHISPER_VAD": "off"}
    beams = {"WHISPER_BEAM_SIZE": "5", "WHISPER_BEST_OF": "5", "WHISPER_TEMPERATURE_INCREMENT": "0.2"}
    shown = ", ".join(f"`{name}={value}`" for name, value in beams.items())
    return [
        openai_whisper(OPENAI_WHISPER, BEAMS, "its command's defaults, float32", weights),
        openai_whisper(OPENAI_WHISPER_GREEDY, GREEDY, "the same without beams", weights, beam_size=None),
        faster_whisper(FASTER_WHISPER, BEAMS, f"{defaults}, int8", weights),
        faster_whisper(FASTER_WHISPER_VAD, BEAMS, "the same with `vad_filter=True`", weights, vad_filter=True),
        faster_whisper(FASTER_WHISPER_GREEDY, GREEDY, f"{greedy}, int8", weights, beam_size=1),
        whisper_cli(
            WHISPER_CLI,
            BEAMS,
            f"whisper.cpp of the same source without our patches, {defaults}, f16",
            packages.upstream,
        ),
        ours(SHIPPED, GREEDY, "this project as shipped: q5_1, greedy, VAD on", packages.q5_1),
        ours(EXACT, GREEDY, "the same in f16", packages.f16),
        ours(WITHOUT_DETECTION, GREEDY, "`WHISPER_VAD=off`", packages.q5_1, **no_vad),
        ours(SHIPPED_BEAMS, BEAMS, f"search as the baselines: {shown}", packages.q5_1, **beams),
        ours(EXACT_BEAMS, BEAMS, "the same in f16", packages.f16, **beams),
    ]


def baselines(everybody: list[System], search: str = "") -> list[str]:
    """Return the names of those of others, or of those of them that search in this way."""
    return [each.name for each in everybody if search in each.search and not each.name.startswith("ours")]


def compared(everybody: list[System]) -> list[tuple[str, str]]:
    """Return the pairs that goals speak of: ours less the baselines that search alike, and q5_1 less f16."""
    names = {each.name: each.search for each in everybody}
    ours = [name for name in (SHIPPED, EXACT, SHIPPED_BEAMS, EXACT_BEAMS) if name in names]
    pairs = [(one, other) for one in ours for other in baselines(everybody, names[one])]
    return pairs + [pair for pair in QUANTIZED if names.keys() >= set(pair)]
