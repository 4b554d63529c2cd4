"""whisper_bench: every command measures what it says, for a round or two on the fixture. Figures are not judged."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from bench_command import run_bench
from whisper_bench import tune


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
    assert texts == dict.fromkeys(("ours", "ours, audio_ctx full", "whisper-cli"), small_package.selftest_text)


def test_plots_are_drawn_for_what_was_measured(quick):
    assert {path.stem for path in (quick / "plots").iterdir()} == {"encode", "token", "request", "clients", "memory"}
    assert all(path.read_text("utf-8").startswith("<svg ") for path in (quick / "plots").iterdir())


def test_tune_writes_variables_for_ansible(artifacts_dir, tmp_path):
    run_bench("whisper_bench.tune", artifacts_dir, "--seconds", 1, "--output", tmp_path / "host.yml")
    variables = yaml.safe_load((tmp_path / "host.yml").read_text("utf-8"))["machine_settings"]
    assert set(variables) == {"WHISPER_ENGINES", "WHISPER_THREADS"}
    assert tune.problem_with(tmp_path / "host.yml") is None  # its own file: it may be overwritten


def test_a_model_of_true_dimensions_is_made_quantized_and_run(build_context, tmp_path):
    options = ["tiny.en", "--context", build_context, "--output", tmp_path / "models"]
    output = run_bench("whisper_bench.models", *options).stdout
    found = json.loads((tmp_path / "models.json").read_text("utf-8"))["tiny.en"]
    # As published, f16 and q5_1, except for the words of the vocabulary.
    assert (round(found["f16_mb"]), round(found["quantized_mb"])) == (78, 32)
    assert min(found.values()) > 0
    assert re.fullmatch(r"\| `tiny\.en` \|( \d+ MB \|){2}( [\d.]+ s \|){2}( \d+ MB \|){3}", output.splitlines()[2])
    assert output in (tmp_path / "models.md").read_text("utf-8")
