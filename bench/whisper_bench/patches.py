"""`python -m whisper_bench.patches`: what each patch of docker/builder/patches gains, beside those before it alone.

Builds the package of true `small` dimensions without patches and with one more each time (about 20 minutes where
Docker's cache has none of them), then lets all of them take turns on two threads, for each CPU library that this
processor runs of baseline, VNNI and its own. A gain is the median of the ratios to the row above within each round.
Patches that touch whisper.cpp alone change none of these figures; `0007-encode-once` is shown by a clip whose language
is detected. Prints Markdown; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys

from whisper_bench import builds
from whisper_bench.interleaved import OnDemand, interleaved
from whisper_bench.locations import ROOT
from whisper_bench.provenance import origin
from whisper_bench.systems import THREADS, variants
from whisper_package.package import Package

PATCHES = ROOT / "docker" / "builder" / "patches"
MODEL = "small"
UPSTREAM = "upstream"
FIGURES = (("encode", "s", 2), ("token", "ms", 1))
DETECTING = "0007-encode-once"

Measured = dict[str, dict[str, list[float]]]  # name of the last patch -> figure -> a value of each round


def series() -> dict[str, Package]:
    """Build what is missing; return the packages by the name of their last patch, in the order of the patches."""
    names = [file.stem for file in sorted(PATCHES.glob("*.patch"))]
    built = {UPSTREAM: builds.true_size(MODEL, patches=[])}
    for count, name in enumerate(names, start=1):
        if name == DETECTING or "b/ggml/" in (PATCHES / f"{name}.patch").read_text(encoding="utf-8"):
            built[name] = builds.true_size(MODEL, patches=names[:count])
    return {name: Package.find(folder, MODEL) for name, folder in built.items()}


def measure(built: dict[str, Package], rounds: int, *options: str) -> Measured:
    """Return every figure of these packages, which take turns."""
    script = [sys.executable, "-m", "whisper_bench.library"]
    found: Measured = {}
    with contextlib.ExitStack() as stack:
        programs = {
            name: stack.enter_context(
                OnDemand(*script, package.directory, "--threads", str(THREADS), "--on-demand", *options)
            )
            for name, package in built.items()
        }
        for name in interleaved(list(programs), rounds):
            figures = programs[name].measure()
            del figures["variant"]
            for figure, value in figures.items():
                found.setdefault(name, {}).setdefault(figure, []).append(value)
    return found


def cell(found: Measured, figure: str, name: str, above: str | None, unit: str, digits: int) -> str:
    """Return a median, and how it compares with the row above."""
    values = found[name][figure]
    text = f"{statistics.median(values):.{digits}f} {unit}"
    if above:
        ratio = statistics.median(a / b for a, b in zip(values, found[above][figure], strict=True))
        text += f" ({ratio:.2f})"
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    rounds = parser.parse_args().rounds
    built = series()
    computing = {name: package for name, package in built.items() if name != DETECTING}
    best, vnni = variants(built[UPSTREAM])
    libraries = dict.fromkeys(("baseline", vnni or best, best))
    found = {variant: measure(computing, rounds, "--variant", variant) for variant in libraries}
    print("| |", " | ".join(f"{figure}, {variant}" for variant in libraries for figure, _, _ in FIGURES), "|")
    print("|---" * (1 + len(libraries) * len(FIGURES)) + "|")
    above = None
    for name in computing:
        cells = [
            cell(found[variant], figure, name, above, unit, digits)
            for variant in libraries
            for figure, unit, digits in FIGURES
        ]
        print(f"| `{name}` |", " | ".join(cells), "|")
        above = name
    before = list(built)[list(built).index(DETECTING) - 1]
    detecting = measure({name: built[name] for name in (before, DETECTING)}, rounds, "--language", "auto")
    print(
        f"\nA clip whose language is detected: {cell(detecting, 'clip', before, None, 's', 2)}, with `{DETECTING}`",
        end=" ",
    )
    print(f"{cell(detecting, 'clip', DETECTING, before, 's', 2)}. {origin()}")


if __name__ == "__main__":
    main()
