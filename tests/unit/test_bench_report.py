"""whisper_bench: how figures are kept and compared, and what RESULTS.md and the plots make of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

from whisper_bench import report
from whisper_bench.locations import BENCH_DIR
from whisper_bench.provenance import commit
from whisper_bench.results import Results
from whisper_bench.sections import memory_per_thread


def results_of(directory, sections: dict[str, dict]) -> Results:
    """A results.json in `directory` with these sections."""
    every = {"origin": "a machine", "commit": "e7cf1912", "notes": {}, "texts": {}, "figures": {}}
    kept = {name: {**every, **section} for name, section in sections.items()}
    (directory / "results.json").write_text(json.dumps(kept), "utf-8")
    return Results(directory / "results.json")


def reported(directory, sections: dict[str, dict]) -> str:
    """RESULTS.md of a results.json with these sections."""
    report.write(results_of(directory, sections), directory)
    return (directory / "RESULTS.md").read_text("utf-8")


def test_ratios_are_of_the_same_rounds_if_both_have_all(tmp_path):
    seconds = {"ours": [8, 1, 2], "ours, 2 engines": [16, 1, 1], "whisper-server": [100]}
    text = reported(tmp_path, {"behind": {"figures": {"small: behind": seconds}}})
    assert "|  | ours, 2 engines | 1.00 s | 1.00–16.00 | 1.00 |" in text
    assert "|  | whisper-server | 100.00 s | once | ~0.02 |" in text  # not 0.08, as the first round has it


def test_ours_comes_first_in_sections_that_are_kept_from_an_earlier_run(tmp_path):
    seconds = {"faster-whisper": [3, 3], "ours": [1, 2], "upstream": [5, 5]}  # as results.json sorts them
    text = reported(tmp_path, {"library": {"figures": {"small: encode": seconds}}})
    rows = [line.split(" | ")[1] for line in text.splitlines() if re.search(r" \d\.\d\d s \|", line)]
    assert rows == ["ours", "upstream", "faster-whisper"]
    plot = (tmp_path / "plots" / "encode.svg").read_text("utf-8")
    assert re.findall(r'text-anchor="end">([^<]+)<', plot) == rows


def test_the_committed_report_is_that_of_the_committed_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "WORK_DIR", tmp_path)  # without what wer may have measured on this machine
    for name in ("results.json", "RESULTS.md"):
        shutil.copy(BENCH_DIR / name, tmp_path)
    report.write(Results(tmp_path / "results.json"), tmp_path)
    written = {path.relative_to(tmp_path): path.read_text("utf-8") for path in tmp_path.rglob("*.*")}
    stale = [str(path) for path, text in written.items() if text != (BENCH_DIR / path).read_text("utf-8")]
    assert stale == [], "write them again: PYTHONPATH=app:bench python -m whisper_bench.report"
    assert {path.name for path in written} >= {"RESULTS.md", "encode.svg"}


def test_memory_per_thread_is_measured_against_upstream(tmp_path):
    peaks = {
        "small: memory, 1": {"ours": [400, 401], "upstream": [380, 380]},
        "small: memory, 1, 8 threads": {"ours": [470, 471], "upstream": [387, 394]},
    }
    results = Results(tmp_path / "results.json")
    results.begin("memory")
    for figure, found in peaks.items():
        for name, values in found.items():
            for value in values:
                results.add(figure, name, value)
    memory_per_thread(results, "small")
    results.save()
    figures = json.loads((tmp_path / "results.json").read_text("utf-8"))["memory"]["figures"]
    assert figures["small: memory per thread"] == {"ours": [10, 10], "upstream": [1, 2]}
    text = reported(tmp_path, {"memory": {"figures": figures}})
    assert "| memory per thread beyond upstream, MB | ≤ 16 | 8.50 | met |" in text
    assert "|  | upstream | 1.5 MB | 1.0–2.0 |  |" in text  # a ratio to almost zero says nothing


def test_the_duration_of_a_whole_run_is_reported(tmp_path):
    sections = {"library": {"run": "today", "seconds": 100}, "memory": {"run": "today", "seconds": 50}}
    text = reported(tmp_path, sections)
    assert "| library | e7cf1912 | today | 1 min 40 s | a machine |" in text
    assert "| all in one run | | today | 2 min 30 s | |" in text
    sections["memory"]["run"] = "yesterday"
    assert "all in one run" not in reported(tmp_path, sections)


def test_a_commit_is_not_changed_by_what_a_run_writes(tmp_path):
    git = ["git", "-C", tmp_path, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    (tmp_path / "bench").mkdir()
    for name in ("requirements.txt", "results.json"):
        (tmp_path / "bench" / name).write_text("as committed", "utf-8")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "test"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "bench" / "results.json").write_text("measured", "utf-8")
    clean = commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{8}", clean)
    (tmp_path / "bench" / "requirements.txt").write_text("changed", "utf-8")
    assert commit(tmp_path) == f"{clean}-dirty"
