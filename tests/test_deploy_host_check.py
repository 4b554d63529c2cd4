"""Module `whisper_host_check`: what makes a host unfit, in words that say what to do."""

from __future__ import annotations

from role_module import load_module

host_check = load_module("whisper_host_check")

BASELINE = {"name": "baseline", "cpu_flags": ["avx", "avx2", "fma"]}
WIDE = {"name": "icelake", "cpu_flags": ["avx", "avx2", "avx512f", "avx512_vnni", "fma"]}


def test_a_processor_that_one_variant_supports_is_fit():
    assert host_check.processor_problems({"avx", "avx2", "fma"}, [WIDE, BASELINE]) == []


def test_a_processor_that_no_variant_supports_is_told_the_least_that_it_lacks():
    assert host_check.processor_problems({"avx"}, [WIDE, BASELINE]) == [
        "the processor lacks avx2, fma: this package needs a newer one"
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


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path):
    assert host_check.disk_free_mb(tmp_path / "a" / "b") == host_check.disk_free_mb(tmp_path)


def test_flags_are_read_from_this_machine():
    assert "sse2" in host_check.cpu_flags()


def test_packages_that_dpkg_does_not_know_are_missing():
    assert host_check.packages_missing(["libc6", "no-such-package"]) == ["no-such-package"]
