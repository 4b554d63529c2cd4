"""`make bench`: how fast this project is beside what else people run, on one machine in one run.

Every figure is measured in interleaved rounds, so that whatever the machine does meanwhile affects every system alike;
a ratio is the median of the ratios within each round if both systems took part in all of them. Sections can be measured
one at a time (`--section`): results.json keeps what was measured before. Run it on a machine that does nothing else.

RESULTS.md, results.json and plots/ are written to bench/; `--quick` only tries everything, and writes elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from whisper_bench import builds, report, sections
from whisper_bench.locations import BENCH_DIR, WORK_DIR
from whisper_bench.provenance import duration
from whisper_bench.results import SECTIONS, Results
from whisper_bench.systems import Systems


def main() -> None:
    """Command line."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m whisper_bench", description=__doc__.splitlines()[0])
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; may be given repeatedly")
    parser.add_argument("--quick", action="store_true", help="one short round of all but medium, on the fixture")
    parser.add_argument(
        "--fixture",
        type=Path,
        metavar="DIR",
        help="with --quick: directory with whisper_small_xeon/, instead of a build; leaves out the baselines",
    )
    parser.add_argument("--rounds", type=int, help=f"rounds of everything (default: {sections.Scale.rounds})")
    parser.add_argument(
        "--output", type=Path, help="directory for the results (default: bench; with --quick, .build/bench/quick)"
    )
    arguments = parser.parse_args()
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    output = arguments.output or (WORK_DIR / "quick" if arguments.quick else BENCH_DIR)
    scale = sections.QUICK if arguments.quick else sections.Scale()
    scale.rounds = arguments.rounds or scale.rounds
    chosen = [name for name in arguments.section or SECTIONS if name != "medium" or not arguments.quick]
    build = builds.fixture if arguments.quick else builds.true_size
    results = Results(output / "results.json")
    print("building what is missing", file=sys.stderr, flush=True)
    if arguments.fixture:
        small = Systems.without_baselines(arguments.fixture, "small")
    else:
        small = Systems.build("small", build)
    medium = Systems.build("medium", build) if "medium" in chosen else None
    fixture = small
    if "overhead" in chosen and not arguments.quick:
        fixture = Systems.without_baselines(builds.fixture("small"), "small")
    built = time.monotonic()
    for section in chosen:
        print(section, file=sys.stderr, flush=True)
        results.begin(section)
        if section == "library":
            sections.library(results, "small", small, scale)
        elif section == "medium":
            sections.library(results, "medium", medium, scale)
        elif section == "requests":
            sections.requests(results, "small", small, scale)
        elif section == "behind":
            sections.behind(results, "small", small, scale)
        elif section == "memory":
            sections.memory(results, "small", small, scale)
        elif section == "overhead":
            sections.overhead(results, fixture, scale)
        results.save()
    report.write(results, output)
    ended = time.monotonic()
    print(f"the bench took {duration(ended - begun)}, {duration(built - begun)} of it to build", file=sys.stderr)


if __name__ == "__main__":
    main()
