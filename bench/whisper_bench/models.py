"""`make bench-models`: every model at its true dimensions, with random weights: quantized, loaded, and run once.

For each: the size of its file as f16 and as q5_1; seconds until the service with one engine is ready, and of one
request with a 30 s window; memory of all its processes at rest and at the peak of such a request (summed PSS), and how
much a second engine adds to the peak. The package's own self-test, which whisper-cli must pass, proves that the model
computes from end to end. Times are those of one round. One model at a time is on the disk, 6 GB for the largest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from whisper_bench import builds, memory, synthetic_model
from whisper_bench.locations import WORK_DIR
from whisper_bench.processes import Service
from whisper_bench.provenance import origin
from whisper_package.models import MODEL_CONFIGS, QUANTIZATIONS
from whisper_package.package import Package

QUANTIZATION = QUANTIZATIONS[0]


def measure(workshop: builds.Workshop, model: str, directory: Path) -> dict[str, Any]:
    """Return the figures of one model; intermediate files go to `directory`."""
    weights, clip = directory / "weights.bin", directory / "clip.wav"
    synthetic_model.write_model(model, weights)
    f16 = weights.stat().st_size
    clip.write_bytes(builds.speech(builds.CLIP_SECONDS))
    selftest = {"audio": str(clip), "language": "en", "text": synthetic_model.TEXT}
    dist = workshop.assemble(directory, {model: weights}, QUANTIZATION, selftest)
    weights.unlink()
    package = Package.find(dist, model)
    window = memory.Request(builds.speech(30), query="language=en")
    start = time.monotonic()
    with Service(dist, model) as service:
        service.wait_ready()
        ready = time.monotonic() - start
        memory.send(service, window)
        answered = time.monotonic() - start - ready
    rest, peak = memory.peak(model, dist, model, window, engines=1)
    _, both = memory.peak(model, dist, model, window, engines=2)
    return {
        "f16_mb": f16 / 1e6,
        "quantized_mb": package.model_file.stat().st_size / 1e6,
        "ready_s": ready,
        "window_s": answered,
        "rest_mb": rest,
        "peak_mb": peak,
        "further_engine_mb": both - peak,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        f"| model | f16 file | {QUANTIZATION} file | ready after | one window | at rest | peak | each further engine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, figures in found.items():
        cells = [f"`{model}`"]
        cells += [f"{figures[name]:.0f} MB" for name in ("f16_mb", "quantized_mb")]
        cells += [f"{figures[name]:.1f} s" for name in ("ready_s", "window_s")]
        cells += [f"{figures[name]:.0f} MB" for name in ("rest_mb", "peak_mb", "further_engine_mb")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all; results of other models are kept")
    output = WORK_DIR / "models"
    parser.add_argument("--output", type=Path, default=output, metavar="PATH", help="write PATH.md and PATH.json")
    parser.add_argument(
        "--context", type=Path, metavar="DIR", help="build context of a finished build, instead of a build"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.models) - set(MODEL_CONFIGS)
    if unknown:
        parser.error(f"unknown model {', '.join(sorted(unknown))}: choose from {', '.join(MODEL_CONFIGS)}")
    kept = arguments.output.with_suffix(".json")
    measured = json.loads(kept.read_text(encoding="utf-8")) if arguments.models and kept.exists() else {}
    with builds.workshop(arguments.context) as workshop:
        for model in arguments.models or MODEL_CONFIGS:
            print(f"{model}: generating, quantizing and running it", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=WORK_DIR) as directory:
                measured[model] = measure(workshop, model, Path(directory))
            measured = {model: measured[model] for model in MODEL_CONFIGS if model in measured}
            kept.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    text = table(measured)
    arguments.output.with_suffix(".md").write_text(f"{text}\n{origin()}\n", encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
