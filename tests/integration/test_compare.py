"""whisper_bench.compare: what `make compare` prints, on the fixture and for one round."""

from __future__ import annotations

from bench_command import run_bench


def test_compare_counts_one_model_load_for_the_library_and_one_a_request_for_whisper_cli(artifacts_dir, tmp_path):
    options = ["--fixture", artifacts_dir, "--rounds", "1", "--true-rounds", "0", "--output", tmp_path / "table.md"]
    output = run_bench("whisper_bench.compare", *options).stdout
    assert output == (tmp_path / "table.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("| ")]
    assert rows[0][0:2] == ["", "adapter"]
    assert [(row[1], row[-1]) for row in rows[1:]] == [
        ("library", "1 for 5 requests"),
        ("cli", "5 for 5 requests"),
    ]
