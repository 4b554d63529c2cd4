"""Filters of role `whisper_service`: what a deploy reports, in the words of the person who reads it."""

from __future__ import annotations

import pytest

from collection_module import load_module

filters = load_module("whisper_service", "filter").FilterModule().filters()

SERVING = {
    "status": {
        "state": "serving",
        "model": "small",
        "release_id": "0123456789abcdef",
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


def test_table_has_one_host_per_line_and_a_dash_for_what_is_unknown():
    results = {"a": SERVING, "bb": {"status": {"state": "not deployed"}}, "c": UNREACHABLE}
    assert filters["whisper_service_table"](results).splitlines() == [
        "host  model  release       variant  ready since  memory  requests  errors  state",
        "a     small  0123456789ab  icelake  10:00        412 MB        12       0  serving",
        "bb    -      -             -        -                 -         -       -  not deployed",
        "c     -      -             -        -                 -         -       -  unreachable: timed out",
    ]


def test_a_host_that_does_not_serve_or_did_not_answer_is_named():
    results = {"a": SERVING, "b": {"status": {"state": "failed (failed)"}}, "c": UNREACHABLE, "d": {}}
    assert filters["whisper_service_not_serving"](results) == ["b", "c", "d"]


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
