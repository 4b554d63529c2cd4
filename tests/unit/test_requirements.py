"""What comes from the Python index is what somebody pinned: versions, the digests of wheels, and nothing to build."""

from __future__ import annotations

import re

import pytest

from paths import ROOT

PINNED = ("requirements", "bench/requirements", "bench/words-requirements", "tests/clients/requirements")
FILES = (*PINNED, "tests/clients/litellm/requirements")


def packages(text: str) -> dict[str, str]:
    """Return the lines of each package, by its name."""
    lines = re.findall(r"^([A-Za-z0-9][\w.-]*)((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower(): rest for name, rest in lines}


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_one_version_and_the_digests_of_its_wheels(name):
    pinned = packages((ROOT / f"{name}.txt").read_text(encoding="utf-8"))
    unpinned = [each for each, line in pinned.items() if not re.match(r"(\[[\w,-]+\])?==[^\s*]+ ", line)]
    unchecked = [each for each, line in pinned.items() if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line)]
    assert (unpinned, unchecked) == ([], [])


@pytest.mark.parametrize("name", FILES)
def test_everything_that_is_asked_for_is_pinned(name):
    asked = re.findall(r"^([A-Za-z0-9][\w.-]*)", (ROOT / f"{name}.in").read_text(encoding="utf-8"), re.MULTILINE)
    pinned = packages((ROOT / f"{name}.txt").read_text(encoding="utf-8"))
    assert {re.sub(r"[._-]+", "-", each).lower() for each in asked} <= pinned.keys()


def test_nothing_is_installed_without_its_digest_or_from_source():
    programs = [*(ROOT / "scripts").glob("*.sh"), *(ROOT / "bench").rglob("*.py"), ROOT / ".ci" / "run"]
    installing = {
        path.relative_to(ROOT).as_posix(): text
        for path in programs
        if re.search(
            r'-m",? "?pip",? "?install', text := path.read_text(encoding="utf-8").replace("-m pip", '-m", "pip"')
        )
    }
    assert installing.keys() == {"scripts/setup.sh", "scripts/go_install.sh", "bench/whisper_bench/baselines.py"}
    for text in installing.values():
        assert "--require-hashes" in text
        assert "--only-binary" in text
