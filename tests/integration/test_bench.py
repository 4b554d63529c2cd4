"""whisper_bench: every command measures what it says, for a round or two on the fixture. Figures are not judged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from bench_command import run_bench
from whisper_bench import report, tune
from whisper_bench.locations import BENCH_DIR
from whisper_bench.provenance import commit
from whisper_bench.results import Results
from whisper_bench.sections import memory_per_thread


def test_library_prints_a_figure_for_each_part(small_package):
    output = run_bench("whisper_bench.library", small_package.directory, "--threads", 1, "--rounds", 2).stdout
    head, *figures = output.splitlines()
    assert any(f"variant {variant['name']}, 1 thread," in head for variant in small_package.manifest["variants"])
    assert [line.split(":")[0] for line in figures] == ["encode", "decode", "token", "clip"]
    assert all(re.fullmatch(r"\w+: [\d.]+ m?s \([\d.]+–[\d.]+\)", line) for line in figures)


@pytest.fixture(scope="module")
def quick(artifacts_dir, tmp_path_factory):
    """Directory with the results of a quick run of everything but the baselines."""
    directory = tmp_path_factory.mktemp("bench")
    run_bench("whisper_bench", "--quick", "--fixture", artifacts_dir, "--output", directory)
    return directory


def test_every_section_is_measured_and_reported(quick):
    sections = json.loads((quick / "results.json").read_text("utf-8"))
    figures = {name for section in sections.values() for name in section["figures"]}
    text = (quick / "RESULTS.md").read_text("utf-8")
    assert {"small: encode", "small: later", "small: 8 clients", "small: behind", "small: memory, 4"} <= figures
    assert "overhead: round trip less whisper_full" in figures
    assert text.count("| ours |") >= 13
    assert "not measured" in text  # without baselines, no goal that compares with one is reported as met


def test_results_name_the_command_that_measured_them(quick, artifacts_dir):
    sections = json.loads((quick / "results.json").read_text("utf-8"))
    command = f"python -m whisper_bench --quick --fixture {artifacts_dir} --output {quick}"
    assert all(section["origin"].endswith(f"; made with `{command}`.") for section in sections.values())


def test_all_systems_must_produce_the_same_text(quick, small_package):
    texts = json.loads((quick / "results.json").read_text("utf-8"))["requests"]["texts"]["small"]
    assert texts == dict.fromkeys(("ours", "ours, audio_ctx auto", "whisper-cli"), small_package.selftest_text)


def test_plots_are_drawn_for_what_was_measured(quick):
    assert {path.stem for path in (quick / "plots").iterdir()} == {"encode", "token", "request", "clients", "memory"}
    assert all(path.read_text("utf-8").startswith("<svg ") for path in (quick / "plots").iterdir())


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


def test_tune_chooses_the_most_clips_per_minute_of_what_is_fast_enough():
    measured = {(1, 2): (1.0, 60.0), (2, 1): (1.8, 66.0), (4, 1): (2.5, 70.0)}
    assert tune.choose(measured, 2) == (2, 1)
    assert tune.choose(measured, 1.5) == (1, 2)


def test_tune_shares_all_cores():
    assert tune.candidates(4) == [(4, 1), (2, 2), (1, 4)]


def test_tune_writes_variables_for_ansible(artifacts_dir, tmp_path):
    run_bench("whisper_bench.tune", artifacts_dir, "--seconds", 1, "--output", tmp_path / "host.yml")
    variables = yaml.safe_load((tmp_path / "host.yml").read_text("utf-8"))["machine_settings"]
    assert set(variables) == {"WHISPER_ENGINES", "WHISPER_THREADS"}
    assert tune.problem_with(tmp_path / "host.yml") is None  # its own file: it may be overwritten


def test_tune_overwrites_a_file_that_it_wrote_before_it_was_a_package(tmp_path):
    (tmp_path / "host.yml").write_text("# Written by bench/tune.py: small; a machine\nmachine_settings:\n", "utf-8")
    assert tune.problem_with(tmp_path / "host.yml") is None


def rejected(tmp_path, output) -> str:
    """What tune says when it ends without measuring anything."""
    ended = run_bench("whisper_bench.tune", tmp_path, "--output", output, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


def test_tune_leaves_a_file_of_somebody_else_alone(tmp_path):
    (tmp_path / "host.yml").write_text("whisper_service_model: medium\n", "utf-8")
    assert rejected(tmp_path, tmp_path / "host.yml") == (
        f"tune: --output {tmp_path}/host.yml: make tune did not write this file and would overwrite it; "
        "name another one\n"
    )
    assert (tmp_path / "host.yml").read_text("utf-8") == "whisper_service_model: medium\n"


def test_tune_needs_the_directory_of_its_file_before_it_measures(tmp_path):
    assert rejected(tmp_path, tmp_path / "none" / "tuned.yml") == (
        f"tune: --output {tmp_path}/none/tuned.yml: the directory {tmp_path}/none does not exist; create it first\n"
    )


def test_tune_makes_no_directory_hide_the_variables_of_a_host(tmp_path):
    (tmp_path / "host_vars" / "xeon.example.org").mkdir(parents=True)
    (tmp_path / "host_vars" / "xeon.example.org.yml").write_text("whisper_service_model: medium\n", "utf-8")
    said = rejected(tmp_path, tmp_path / "host_vars" / "xeon.example.org" / "tuned.yml")
    assert f"instead of {tmp_path}/host_vars/xeon.example.org.yml; move that file into it first" in said
    assert said.count("\n") == 1


def test_tune_writes_no_file_that_a_directory_hides(tmp_path):
    (tmp_path / "host_vars" / "xeon").mkdir(parents=True)
    said = rejected(tmp_path, tmp_path / "host_vars" / "xeon.yml")
    assert f"Ansible reads the directory {tmp_path}/host_vars/xeon instead; name a file in it" in said


def test_a_model_of_true_dimensions_is_made_quantized_and_run(build_context, tmp_path):
    options = ["tiny.en", "--context", build_context, "--output", tmp_path / "models"]
    output = run_bench("whisper_bench.models", *options).stdout
    found = json.loads((tmp_path / "models.json").read_text("utf-8"))["tiny.en"]
    # As published, f16 and q5_1, except for the words of the vocabulary.
    assert (round(found["f16_mb"]), round(found["quantized_mb"])) == (78, 32)
    assert min(found.values()) > 0
    assert re.fullmatch(r"\| `tiny\.en` \|( \d+ MB \|){2}( [\d.]+ s \|){2}( \d+ MB \|){3}", output.splitlines()[2])
    assert output in (tmp_path / "models.md").read_text("utf-8")
