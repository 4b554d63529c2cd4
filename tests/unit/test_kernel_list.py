"""kernels.txt is the list of all kernels: the role builds them by default, and the README says what each gains."""

from __future__ import annotations

import re

import yaml

from paths import ROOT

KERNELS = dict(re.findall(r"^([a-z]\S*) +(\S+)", (ROOT / "kernels" / "kernels.txt").read_text("utf-8"), re.MULTILINE))


def test_each_kernel_is_a_default_of_the_role():
    defaults = (ROOT / "roles" / "artifact_build" / "defaults" / "main.yml").read_text("utf-8")
    assert yaml.safe_load(defaults)["artifact_build_kernels"] == list(KERNELS)


def test_each_kernel_builds_on_kernels_before_it():
    names = list(KERNELS)
    for name, needs in KERNELS.items():
        assert set(needs.split(",")) <= {"-", *names[: names.index(name)]}


def test_the_readme_has_a_row_for_each_kernel():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "kernels" / "README.md").read_text("utf-8"), re.MULTILINE)
    assert rows[: len(KERNELS)] == list(KERNELS)
