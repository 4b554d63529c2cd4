"""bench/: every command measures what it says, on the fixture and for a round or two. Figures are not judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from paths import ROOT


def run(*command) -> str:
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True).stdout


def test_library_prints_a_figure_for_each_part(small_package):
    output = run("bench/library.py", small_package.directory, "--threads", "1", "--rounds", "2")
    head, *figures = output.splitlines()
    assert any(f"variant {variant['name']}, 1 threads" in head for variant in small_package.manifest["variants"])
    assert [line.split(":")[0] for line in figures] == ["encode", "decode", "token", "clip"]
    assert all(re.fullmatch(r"\w+: [\d.]+ m?s \([\d.]+–[\d.]+\)", line) for line in figures)


def evaluated(module: str, expression: str) -> str:
    """The value of an expression in a module of bench/, whose modules have names that tests/ has too."""
    return run("-c", f"import sys; sys.path.insert(0, 'bench'); from {module} import *; print({expression})").strip()


def refused(*command) -> str:
    """What a command says that ends without doing anything."""
    command = [sys.executable, *command]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


@pytest.fixture(scope="module")
def quick(artifacts_dir, tmp_path_factory):
    """Folder with the results of a quick run of everything but the rivals."""
    folder = tmp_path_factory.mktemp("bench")
    run("bench/bench.py", "--quick", "--fixture", artifacts_dir, "--output", folder)
    return folder


def test_every_section_is_measured_and_reported(quick):
    sections = json.loads((quick / "results.json").read_text("utf-8"))
    figures = {name for section in sections.values() for name in section["figures"]}
    report = (quick / "RESULTS.md").read_text("utf-8")
    assert {"small: encode", "small: later", "small: 8 clients", "small: behind", "small: memory, 4"} <= figures
    assert "overhead: round trip less whisper_full" in figures
    assert report.count("| ours |") >= 13
    assert "not measured" in report  # nothing to compare with: no goal is called met that was not seen


def test_all_contestants_have_to_hear_the_same(quick, small_package):
    texts = json.loads((quick / "results.json").read_text("utf-8"))["requests"]["texts"]["small"]
    assert texts == dict.fromkeys(("ours", "ours, audio_ctx auto", "whisper-cli"), small_package.selftest_text)


def test_plots_are_drawn_for_what_was_measured(quick):
    assert {path.stem for path in (quick / "plots").iterdir()} == {"encode", "token", "request", "clients", "memory"}
    assert all(path.read_text("utf-8").startswith("<svg ") for path in (quick / "plots").iterdir())


def reported(folder, sections: dict[str, dict]) -> str:
    """RESULTS.md of a results.json with these sections."""
    every = {"origin": "a machine", "commit": "e7cf1912", "notes": {}, "texts": {}, "figures": {}}
    kept = {name: {**every, **section} for name, section in sections.items()}
    (folder / "results.json").write_text(json.dumps(kept), "utf-8")
    path = f"Path({str(folder)!r})"
    evaluated("report", f"write(Results({path} / 'results.json', {list(sections)}), {path})")
    return (folder / "RESULTS.md").read_text("utf-8")


def test_ratios_are_of_the_same_rounds_where_both_have_all(tmp_path):
    seconds = {"ours": [8, 1, 2], "ours, 2 engines": [16, 1, 1], "whisper-server": [100]}
    report = reported(tmp_path, {"behind": {"figures": {"small: behind": seconds}}})
    assert "|  | ours, 2 engines | 1.00 s | 1.00–16.00 | 1.00 |" in report
    assert "|  | whisper-server | 100.00 s | once | ~0.02 |" in report  # not 0.08, as the first round has it


def test_memory_of_a_thread_is_measured_against_upstream(tmp_path):
    peaks = {
        "small: memory, 1": {"ours": [400, 401], "upstream": [380, 380]},
        "small: memory, 1, 8 threads": {"ours": [470, 471], "upstream": [387, 394]},
    }
    path = tmp_path / "results.json"
    sections = f"(r := Results(Path({str(path)!r}), ['memory'])).begin('memory')"
    added = f"[r.add(figure, name, v) for figure, found in {peaks}.items() for name, vs in found.items() for v in vs]"
    evaluated("bench", f"[{sections}, {added}, memory_of_a_thread(r, 'small'), r.save()]")
    figures = json.loads(path.read_text("utf-8"))["memory"]["figures"]
    assert figures["small: memory, a thread"] == {"ours": [10, 10], "upstream": [1, 2]}
    report = reported(tmp_path, {"memory": {"figures": figures}})
    assert "| memory of a thread beyond upstream's, MB | ≤ 16 | 8.50 | met |" in report
    assert "|  | upstream | 1.5 MB | 1.0–2.0 |  |" in report  # a ratio to next to nothing says nothing


def test_the_time_of_a_whole_run_is_told(tmp_path):
    sections = {"library": {"run": "today", "seconds": 100}, "memory": {"run": "today", "seconds": 50}}
    report = reported(tmp_path, sections)
    assert "| library | e7cf1912 | today | 1 min 40 s | a machine |" in report
    assert "| all in one run | | today | 2 min 30 s | |" in report
    sections["memory"]["run"] = "yesterday"
    assert "all in one run" not in reported(tmp_path, sections)


def test_a_commit_is_not_changed_by_what_a_run_writes(tmp_path):
    git = ["git", "-C", tmp_path, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    commit = f"setattr(packages, 'ROOT', Path({str(tmp_path)!r})) or commit()"
    (tmp_path / "bench").mkdir()
    for name in ("bench.py", "results.json"):
        (tmp_path / "bench" / name).write_text("as committed", "utf-8")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "test"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "bench" / "results.json").write_text("measured", "utf-8")
    clean = evaluated("results", commit)
    assert re.fullmatch(r"[0-9a-f]{8}", clean)
    (tmp_path / "bench" / "bench.py").write_text("changed", "utf-8")
    assert evaluated("results", commit) == f"{clean}-dirty"


def test_tune_takes_the_most_clips_a_minute_of_what_is_quick_enough():
    measured = {(1, 2): (1.0, 60.0), (2, 1): (1.8, 66.0), (4, 1): (2.5, 70.0)}
    assert evaluated("tune", f"choose({measured}, 2)") == "(2, 1)"
    assert evaluated("tune", f"choose({measured}, 1.5)") == "(1, 2)"


def test_tune_shares_all_cores():
    assert evaluated("tune", "candidates(4)") == "[(4, 1), (2, 2), (1, 4)]"


def test_tune_writes_variables_for_ansible(artifacts_dir, tmp_path):
    run("bench/tune.py", artifacts_dir, "--seconds", "1", "--output", tmp_path / "host.yml")
    variables = yaml.safe_load((tmp_path / "host.yml").read_text("utf-8"))["machine_settings"]
    assert set(variables) == {"WHISPER_ENGINES", "WHISPER_THREADS"}
    assert evaluated("tune", f"refusal(Path({str(tmp_path / 'host.yml')!r}))") == "None"  # its own file: it may go


def test_tune_leaves_a_file_of_somebody_else_alone(tmp_path):
    (tmp_path / "host.yml").write_text("whisper_model: medium\n", "utf-8")
    said = refused("bench/tune.py", tmp_path, "--output", tmp_path / "host.yml")
    assert (
        said
        == f"tune: --output {tmp_path}/host.yml: this file was not written by tune.py and would be lost; name another\n"
    )
    assert (tmp_path / "host.yml").read_text("utf-8") == "whisper_model: medium\n"


def test_tune_wants_the_folder_of_its_file_before_it_measures(tmp_path):
    said = refused("bench/tune.py", tmp_path, "--output", tmp_path / "none" / "tuned.yml")
    assert said == f"tune: --output {tmp_path}/none/tuned.yml: there is no folder {tmp_path}/none; make it first\n"


def test_tune_makes_no_folder_hide_the_variables_of_a_host(tmp_path):
    (tmp_path / "host_vars" / "xeon.example.org").mkdir(parents=True)
    (tmp_path / "host_vars" / "xeon.example.org.yml").write_text("whisper_model: medium\n", "utf-8")
    said = refused("bench/tune.py", tmp_path, "--output", tmp_path / "host_vars" / "xeon.example.org" / "tuned.yml")
    assert f"instead of {tmp_path}/host_vars/xeon.example.org.yml; move that file in there first" in said
    assert said.count("\n") == 1


def test_tune_writes_no_file_that_a_folder_hides(tmp_path):
    (tmp_path / "host_vars" / "xeon").mkdir(parents=True)
    said = refused("bench/tune.py", tmp_path, "--output", tmp_path / "host_vars" / "xeon.yml")
    assert f"Ansible reads the folder {tmp_path}/host_vars/xeon instead; name a file in it" in said


def test_a_model_of_true_dimensions_is_made_quantized_and_run(build_context, tmp_path):
    options = ["tiny.en", "--context", build_context, "--output", tmp_path / "models"]
    output = run("bench/models.py", *options)
    found = json.loads((tmp_path / "models.json").read_text("utf-8"))["tiny.en"]
    # As published, f16 and q5_1, but for the words of the vocabulary.
    assert (round(found["f16_mb"]), round(found["quantized_mb"])) == (78, 32)
    assert min(found.values()) > 0
    assert re.fullmatch(r"\| `tiny\.en` \|( \d+ MB \|){2}( [\d.]+ s \|){2}( \d+ MB \|){3}", output.splitlines()[2])
    assert output in (tmp_path / "models.md").read_text("utf-8")
