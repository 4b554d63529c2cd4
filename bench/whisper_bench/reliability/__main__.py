"""Measures what the service and its releases withstand; keeps it in reliability.json and writes RELIABILITY.md."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from types import ModuleType
from typing import Any

from whisper_bench.locations import BENCH_DIR
from whisper_bench.provenance import commit, duration, machine
from whisper_bench.reliability import ROWS

KEPT = BENCH_DIR / "reliability.json"
REPORT = BENCH_DIR / "RELIABILITY.md"
DEFAULT_SECONDS = 60.0

INTRODUCTION = """\
# What it withstands

Written by `make bench-reliability`; one row alone: `make bench-reliability BENCH_ARGS='--row NAME'`. Each row says on
which machine and commit it was measured.
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m whisper_bench.reliability", description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; may be given repeatedly")
    parser.add_argument("--seconds", type=float, help="how long each row takes, instead of its own default")
    parser.add_argument("--report", action="store_true", help="measure nothing: write RELIABILITY.md again")
    arguments = parser.parse_args()
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for name in () if arguments.report else arguments.row or ROWS:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        kept[name] = _measured(_module(name), arguments.seconds)
        # After each row: what was measured is not lost to one that fails later.
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    REPORT.write_text(_report(kept), encoding="utf-8")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"whisper_bench.reliability.{name}")


def _measured(row: ModuleType, seconds: float | None) -> dict[str, Any]:
    begun = time.monotonic()
    result = row.measure(seconds or getattr(row, "SECONDS", DEFAULT_SECONDS))
    return {
        **asdict(result),
        "machine": machine(),
        "commit": commit(),
        "on": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - begun),
    }


def _report(kept: dict[str, dict[str, Any]]) -> str:
    lines = [INTRODUCTION, "| row | what is done | before | goal | measured | |", "|---|---|---|---|---|---|"]
    details = ["", "| row | measured on | commit | took | notes |", "|---|---|---|---|---|"]
    for name in ROWS:
        row, found = _module(name), kept.get(name)
        if found is None:
            lines.append(f"| `{name}` | {row.TITLE} | {row.TODAY} | {row.GOAL} | not measured | |")
            continue
        verdict = "met" if found["met"] else "**fell short**"
        lines.append(f"| `{name}` | {row.TITLE} | {row.TODAY} | {row.GOAL} | {found['measured']} | {verdict} |")
        where, took = f"{found['on']}, {found['machine']}", duration(found["seconds"])
        details.append(f"| `{name}` | {where} | {found['commit']} | {took} | {found['notes']} |")
    return "\n".join([*lines, *details]) + "\n"


if __name__ == "__main__":
    main()
