"""Filters of role `whisper_service`: what a deploy reports, in the words of the person who reads it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from collection_module import load_module
from sealed_packages import hollow_package

filters = load_module("whisper_service", "filter").FilterModule().filters()

SERVING = {
    "status": {
        "state": "serving",
        "model": "small",
        "release_id": "0123456789abcdef",
        "signed": "2026-11-27",
        "signed_days": 0,
        "cpu_variant": "icelake",
        "ready_at": "10:00",
        "memory_mb": 412,
        "requests": 12,
        "errors": 0,
    }
}
UNREACHABLE = {"unreachable": True, "msg": "timed\n  out"}
LIMITS = {"memory_max": "8M", "cpu_affinity": "", "start_timeout": 300}


def by_host(*arguments):
    return filters["whisper_service_by_host"](["b", "a"], {"a": {"port": 1}, "b": {}}, "port", *arguments)


def test_hosts_without_a_variable_are_left_out():
    assert by_host() == {"a": 1}


def test_hosts_without_a_variable_have_the_default_in_the_order_of_the_hosts():
    assert list(by_host(2).items()) == [("b", 2), ("a", 1)]


def model_problems(hostvars, start="/work"):
    return filters["whisper_service_model_problems"](list(hostvars), hostvars, start)


def copying(model, directory):
    return {
        "whisper_service_model": model,
        "whisper_service_transport": "copy",
        "whisper_service_artifact_dir": directory,
    }


def test_a_model_may_be_named_in_any_case_and_be_ones_own():
    names = ("small", "MEDIUM", "turbo", "Support-Calls-DE")
    assert model_problems({name: {"whisper_service_model": name} for name in names}) == []


def test_hosts_with_the_same_problem_are_named_together():
    wrong = {"whisper_service_model": "../small"}
    none, bad = model_problems({"a": {}, "b": wrong, "c": wrong})
    assert none == "whisper_service_model is not set (for a)"
    assert bad.startswith("'../small' is not a model's name: ")
    assert bad.endswith(" (for b, c)")


def test_a_model_of_a_directory_must_be_in_it(tmp_path):
    hollow_package(tmp_path / "dist", "small")
    assert model_problems({"a": copying("SMALL", "dist")}, str(tmp_path)) == []
    assert model_problems({"a": copying("smal", "dist")}, str(tmp_path)) == [
        f'there is no model "smal" in {tmp_path}/dist, which has small (did you mean small?) (for a)'
    ]


def test_a_directory_without_packages_or_of_one_package_is_not_judged(tmp_path):
    package = hollow_package(tmp_path / "dist", "small")
    assert model_problems({"a": copying("medium", str(tmp_path)), "b": copying("medium", str(package.directory))}) == []


@pytest.mark.parametrize(("value", "model"), [("TURBO", "large-v3-turbo"), ("Calls-DE", "calls-de")])
def test_a_variable_means_one_model(value, model):
    assert load_module("model_name", "filter").FilterModule().filters()["model_name"](value) == model


@pytest.mark.parametrize("value", ["../small", False, None, 2024, ["small"], ""])
def test_a_variable_that_cannot_name_a_model_is_an_error_in_one_sentence(value):
    with pytest.raises(AnsibleFilterError, match=r"is not a model's name|is reserved"):
        load_module("model_name", "filter").model_name(value)


def test_table_has_one_host_per_line_and_a_dash_for_what_is_unknown():
    results = {"a": SERVING, "bb": {"status": {"state": "not deployed"}}, "c": UNREACHABLE}
    assert filters["whisper_service_table"](results).splitlines() == [
        "host  model  release       signed      variant  ready since  memory  requests  errors  state",
        "a     small  0123456789ab  2026-11-27  icelake  10:00        412 MB        12       0  serving",
        "bb    -      -             -           -        -                 -         -       -  not deployed",
        "c     -      -             -           -        -                 -         -       -  unreachable: timed out",
    ]


def test_a_host_that_does_not_serve_or_did_not_answer_is_named():
    results = {"a": SERVING, "b": {"status": {"state": "failed (failed)"}}, "c": UNREACHABLE, "d": {}}
    assert filters["whisper_service_not_serving"](results) == ["b", "c", "d"]


def test_a_host_whose_release_was_signed_too_long_ago_is_named_with_the_date():
    old = {"status": {**SERVING["status"], "signed": "2026-08-01", "signed_days": 91}}
    results = {"a": SERVING, "b": old, "c": UNREACHABLE, "d": {"status": {"state": "not deployed"}}}
    assert filters["whisper_service_signed_long_ago"](results, 90) == ["b (2026-08-01)"]
    assert filters["whisper_service_signed_long_ago"](results, 91) == []


def test_problems_of_all_checks_come_together_with_the_reason_of_a_check_that_failed():
    results = [{"problems": ["one", "two"]}, {"problems": []}, UNREACHABLE, {"msg": "no\n Python"}]
    expected = ["one", "two", "unreachable: timed out", "no Python"]
    assert filters["whisper_service_problems"](results) == expected


def test_each_problem_is_a_line_with_its_host():
    lines = filters["whisper_service_problem_lines"]({"a": ["one", "two"], "b": [], "c": ["three"]})
    assert lines == "a: one\na: two\nc: three"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"msg": "disk full"}, "disk full"),
        ({"msg": "no such unit", "status": {"ActiveState": "inactive"}}, "no such unit"),
        ({"status": {"state": "failed (failed)"}}, "failed (failed)"),
        ({}, "no reason was given"),
        (
            {
                "msg": "One or more items failed",
                "results": [
                    {"failed": False},
                    {"failed": True, "msg": "not found", "ansible_loop_var": "file", "file": {"path": "model.bin"}},
                ],
            },
            "model.bin not found",
        ),
        ({"results": [{"failed": True, "msg": "no such unit", "item": "a.service"}]}, "no such unit"),
        ({"results": [{"failed": False}], "msg": "interrupted"}, "interrupted"),
    ],
    ids=["message", "systemd's message", "state", "nothing", "file of a loop", "item of a loop", "no failed item"],
)
def test_reason_of_a_failed_task(result, expected):
    assert filters["whisper_service_reason"](result) == expected


def test_directives_are_arguments_of_systemd_run_empty_values_included():
    directives = [{"directive": "DynamicUser", "value": "yes"}, {"directive": "CapabilityBoundingSet", "value": ""}]
    assert filters["whisper_service_properties"](directives) == [
        "--property=DynamicUser=yes",
        "--property=CapabilityBoundingSet=",
    ]


def self_test_failure(status: int, stderr: str = "", stdout: str = "", **limits) -> str:
    result = {"rc": status, "stderr": stderr, "stdout": stdout}
    return filters["whisper_service_self_test_failure"](result, **{**LIMITS, **limits})


def test_a_candidate_that_said_something_is_quoted():
    assert self_test_failure(1, "wrong words", "heard: one").splitlines() == [
        "the candidate did not pass its self-test (exit status 1):",
        "wrong words",
        "heard: one",
    ]


def test_settings_that_are_rejected_are_told_from_a_self_test_that_failed():
    assert self_test_failure(2, "WHISPER_QUEUE").startswith("the candidate does not start with these settings")


@pytest.mark.parametrize(("affinity", "shown"), [("4000", "(4000)"), ("", "(not set)")])
def test_a_limit_that_systemd_cannot_apply_is_named_with_its_variable(affinity, shown):
    assert f"CPUAFFINITY is whisper_service_cpu_affinity {shown}" in self_test_failure(217, cpu_affinity=affinity)


@pytest.mark.parametrize(
    ("memory_max", "shown"),
    [("8M", "whisper_service_memory_max is 8M"), ("", "whisper_service_memory_max is not set")],
)
def test_a_candidate_that_was_killed_is_told_with_the_limits_that_may_be_why(memory_max, shown):
    failure = self_test_failure(255, memory_max=memory_max)
    assert f"did it run out of memory ({shown})" in failure
    assert "whisper_service_start_timeout (300 s)" in failure
