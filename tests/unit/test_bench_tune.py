"""whisper_bench.tune: what it tries and chooses, and the files that it does not write to."""

from __future__ import annotations

from bench_command import run_bench
from whisper_bench import tune


def test_tune_chooses_the_most_clips_per_minute_of_what_is_fast_enough():
    measured = {(1, 2): (1.0, 60.0), (2, 1): (1.8, 66.0), (4, 1): (2.5, 70.0)}
    assert tune.choose(measured, 2) == (2, 1)
    assert tune.choose(measured, 1.5) == (1, 2)


def test_tune_shares_all_cores():
    assert tune.candidates(4) == [(4, 1), (2, 2), (1, 4)]


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
