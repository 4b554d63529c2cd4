"""Module `whisper_service_host_check`: what makes a host unfit, in words that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collection_module import load_module

host_check = load_module("whisper_service_host_check")

BASELINE = {"name": "baseline", "cpu_flags": ["avx", "avx2", "fma"]}
WIDE = {"name": "icelake", "cpu_flags": ["avx", "avx2", "avx512f", "avx512_vnni", "fma"]}


def test_a_processor_that_one_variant_supports_is_fit():
    assert host_check.processor_problems({"avx", "avx2", "fma"}, [WIDE, BASELINE]) == []


def test_a_processor_that_no_variant_supports_is_told_the_least_that_it_lacks():
    assert host_check.processor_problems({"avx"}, [WIDE, BASELINE]) == [
        "the processor lacks avx2, fma: the package needs a newer one"
    ]


def test_versions_are_compared_as_numbers():
    assert host_check.library_problems("glibc", "2.9", "2.34") == [
        "glibc is 2.9, the package needs 2.34: use a newer Debian"
    ]


def test_an_equal_version_is_fit():
    assert host_check.library_problems("glibc", "2.34", "2.34") == []


def test_a_library_that_is_not_there_is_a_problem():
    assert host_check.library_problems("libstdc++", "", "3.4.29") == [
        "libstdc++ is missing, the package needs 3.4.29: use a newer Debian"
    ]


def test_too_little_room_names_both_figures():
    assert host_check.space_problems("the memory", 400, 500) == [
        "the memory has 400 MB free, 500 MB are needed: make room"
    ]


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_a_number_that_is_no_port_is_refused_with_the_range(port):
    assert host_check.port_problems("", port, "none.socket") == [
        f"whisper_service_port is {port}: set a number from 1 to 65535"
    ]


@pytest.mark.parametrize("limit", ["1M", "568.9M", "595000000", "0.5G", "0%"])
def test_a_limit_below_the_weights_is_refused_with_what_one_engine_needs(limit):
    (problem,) = host_check.limit_problems(limit, 597_000_000, 1050)
    assert problem.startswith(f"whisper_service_memory_max is {limit}, but the weights alone take 597 MB")
    assert "at least 1450M" in problem


@pytest.mark.parametrize("limit", ["", "infinity", "597000000", "570M", "4G", "1T", "100%", "1G 500M", "much"])
def test_a_limit_with_room_for_the_weights_and_one_that_systemd_has_to_judge_pass(limit):
    assert host_check.limit_problems(limit, 597_000_000, 1050) == []


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path):
    assert host_check.disk_free_mb(tmp_path / "a" / "b") == host_check.disk_free_mb(tmp_path)


def test_flags_are_read_from_this_machine():
    assert "sse2" in host_check.cpu_flags()


def test_packages_that_dpkg_does_not_know_are_missing():
    assert host_check.packages_missing(["libc6", "no-such-package"]) == ["no-such-package"]


@pytest.fixture
def confirmed(tmp_path):
    """The root of a host that confirmed a release of `small` from channel `stable`."""
    entry = {"serial": "20260601000000", "key": "A" * 60, "release_id": "6cb04b80" * 8}
    (tmp_path / "serials.json").write_text(json.dumps({"stable": {"small": entry}}))
    return tmp_path


def signed(serial: str) -> dict[str, str]:
    return {"serial": serial, "key": "A" * 60}


def test_a_release_older_than_what_was_confirmed_of_its_channel_is_refused_with_both_serials(confirmed):
    (problem,) = host_check.serial_problems(confirmed, "small", "stable", signed("20260101000000"), ["A" * 60])
    assert "signed 20260101000000" in problem
    assert "20260601000000 (6cb04b806cb0) from it: somebody put an old channel back" in problem


@pytest.mark.parametrize(
    ("model", "channel", "serial", "trusted"),
    [
        ("small", "stable", "20260601000000", "A" * 60),  # the same
        ("small", "stable", "20260602000000", "A" * 60),
        ("small", "", "20260101000000", "A" * 60),  # named
        ("small", "staging", "20260101000000", "A" * 60),
        ("medium", "stable", "20260101000000", "A" * 60),
        ("small", "stable", "20260101000000", "B" * 60),  # the key that was confirmed is trusted no more
    ],
)
def test_any_other_release_is_fit(confirmed, model, channel, serial, trusted):
    assert host_check.serial_problems(confirmed, model, channel, signed(serial), [trusted]) == []


def test_without_a_package_there_is_nothing_to_compare(confirmed):
    assert host_check.serial_problems(confirmed, "small", "stable", {}, ["A" * 60]) == []


def test_a_host_that_has_confirmed_nothing_takes_any(tmp_path):
    assert host_check.serial_problems(tmp_path, "small", "stable", signed("20200101000000"), ["A" * 60]) == []


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ("opt/whisper", "set the whole path"),
        ("", "set the whole path"),
        ("/home/x/whisper", "hides /home"),
        ("/run/whisper", "hides /run"),
        ("/etc/passwd", "is not a directory"),
    ],
)
def test_a_root_in_which_nothing_can_serve_is_a_problem(root, says):
    (problem,) = host_check.root_problems(Path(root))
    assert says in problem


@pytest.mark.parametrize("root", ["/", "/opt", "/opt/whisper-xeon", "/srv/homes/x"])
def test_a_root_that_others_use_too_is_none(root):
    assert host_check.root_problems(Path(root)) == []
