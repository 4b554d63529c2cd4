"""whisper_bench.memory: its mix of requests is answered as it must be, and `make memory` prints what is left behind."""

from __future__ import annotations

import re

from bench_command import run_bench

MB = r"\d+\.\d MB"


def test_memory_after_the_tenth_and_the_last_request_is_compared(artifacts_dir, tmp_path):
    options = ["--fixture", artifacts_dir, "--drift-only", "--requests", "11", "--output", tmp_path / "table.md"]
    output = run_bench("whisper_bench.memory", *options).stdout
    assert output == (tmp_path / "table.md").read_text("utf-8")
    head, line, row = output.splitlines()[:3]
    assert head == "|  | after request 10 | after request 11 | drift | goal |"
    assert line == "|---|---|---|---|---|"
    assert re.fullmatch(
        rf"\| fixture, mixed requests \| {MB} \| {MB} \| [+-]\d+\.\d % \| below 2 %: (met|MISSED) \|", row
    )
