"""bench/compare.py: what `make compare` prints, on the fixture and for one round."""

from __future__ import annotations

import subprocess
import sys

from paths import ROOT


def test_compare_counts_one_model_load_for_the_library_and_one_a_request_for_whisper_cli(artifacts_dir, tmp_path):
    options = ["--fixture", artifacts_dir, "--rounds", "1", "--true-rounds", "0", "--output", tmp_path / "table.md"]
    command = [sys.executable, "bench/compare.py", *options]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout
    assert output == (tmp_path / "table.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("| ")]
    assert rows[0][0:2] == ["", "adapter"]
    assert [(row[1], row[-1]) for row in rows[1:]] == [
        ("library", "1 for 5 requests"),
        ("cli", "5 for 5 requests"),
    ]
