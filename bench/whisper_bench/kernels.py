"""`python -m whisper_bench.kernels`: what each kernel of kernels/kernels.txt gains.

Builds the package of true `small` dimensions without kernels and with one more each time, then measures all of them
interleaved, on two threads, for each CPU library that this processor runs of baseline, VNNI and its own. A gain is the
median of the ratios to the row above within each round. With `--all-but-one`, each package lacks one kernel and those
that build on it, and its ratio is that to all kernels: what it costs to do without. `encode-once` is shown by a clip
whose language is detected. Prints Markdown; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import sys

from whisper_bench import builds
from whisper_bench.interleaved import OnDemand, interleaved
from whisper_bench.locations import ROOT
from whisper_bench.provenance import origin
from whisper_bench.systems import THREADS, variants
from whisper_package.package import Package

LIST = ROOT / "kernels" / "kernels.txt"
MODEL = "small"
UPSTREAM, ALL = "upstream", "all"
FIGURES = (("encode", "s", 2), ("token", "ms", 1))
DETECTING = "encode-once"
# They change nothing of q5_1's figures: two are for other types, five for what is said, when, and for several requests.
UNMEASURED = ("layout", "bytes", "no-speech", "reuse", "align", "decoding", "together")

Measured = dict[str, dict[str, list[float]]]  # name of a package -> figure -> a value of each round


def known() -> dict[str, list[str]]:
    """Return the kernels' names, in the order of the list, with those that each builds on."""
    found = re.findall(r"^([a-z]\S*) +(\S+)", LIST.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [] if needs == "-" else needs.split(",") for name, needs in found}


def added() -> dict[str, list[str]]:
    """Return the kernels of each package by the one that was added last, from none on."""
    names = [name for name in known() if name not in UNMEASURED]
    return {UPSTREAM: [], **{name: names[:count] for count, name in enumerate(names, start=1)}}


def all_but_one() -> dict[str, list[str]]:
    """Return the kernels of each package by the one that is left out, and all of them."""
    needs = known()
    without = {name: [other for other in needs if name not in (other, *needs[other])] for name in needs}
    return {ALL: list(needs), **{name: rest for name, rest in without.items() if name not in UNMEASURED}}


def measure(built: dict[str, Package], rounds: int, *options: str) -> Measured:
    """Return every figure of these packages, interleaved."""
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


def cell(found: Measured, figure: str, name: str, reference: str | None, unit: str, digits: int) -> str:
    """Return a median, and its ratio to the reference's."""
    values = found[name][figure]
    text = f"{statistics.median(values):.{digits}f} {unit}"
    if reference:
        ratio = statistics.median(a / b for a, b in zip(values, found[reference][figure], strict=True))
        text += f" ({ratio:.2f})"
    return text


def table(found: dict[str, Measured], references: dict[str, str | None]) -> str:
    """Return a row for each package, with its ratios to another one's figures, and two columns for each CPU library."""
    lines = [
        " ".join(["| |", *(f"{figure}, {variant} |" for variant in found for figure, _, _ in FIGURES)]),
        "|---" * (1 + len(found) * len(FIGURES)) + "|",
    ]
    for name, reference in references.items():
        cells = [
            f"{cell(found[variant], figure, name, reference, unit, digits)} |"
            for variant in found
            for figure, unit, digits in FIGURES
        ]
        lines.append(" ".join([f"| `{name}` |", *cells]))
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--all-but-one", action="store_true", help="leave kernels out instead of adding them")
    arguments = parser.parse_args()
    chosen = all_but_one() if arguments.all_but_one else added()
    built = {name: Package.find(builds.true_size(MODEL, kernels=kernels), MODEL) for name, kernels in chosen.items()}
    first, *others = computing = [name for name in built if name != DETECTING]
    best, vnni = variants(built[first])
    found = {
        variant: measure({name: built[name] for name in computing}, arguments.rounds, "--variant", variant)
        for variant in dict.fromkeys(("baseline", vnni or best, best))
    }
    references = [first] * len(others) if arguments.all_but_one else computing
    print(table(found, {first: None, **dict(zip(others, references, strict=False))}))
    pair = [ALL, DETECTING] if arguments.all_but_one else [computing[-1], DETECTING]
    detecting = measure({name: built[name] for name in pair}, arguments.rounds, "--language", "auto")
    print("\nA clip whose language is detected:", end=" ")
    print(f"`{pair[0]}` {cell(detecting, 'clip', pair[0], None, 's', 2)},", end=" ")
    print(f"`{DETECTING}` {cell(detecting, 'clip', DETECTING, pair[0], 's', 2)}. {origin()}")


if __name__ == "__main__":
    main()
