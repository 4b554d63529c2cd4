"""Every thing has one name: roles and app name nothing of inventories and playbooks, and no old name is left."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import jinja2
import pytest
import yaml

from paths import ROOT

sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from renamed_variables import RENAMED

# What inventories and playbooks know, and roles, plugins, app, docker and kernels must not.
GROUPS = re.compile(r"\bwhisper_(?:hosts|builder)\b|\b(?:groups?|hosts:?)\W{1,3}whisper_store\b")
WORDS_OF_A_RUN = ("model", "release")
OPTION = re.compile(rf"-e (?:{'|'.join(WORDS_OF_A_RUN)})=")

# Words that are names of other things as well: of arguments in Python, of files on a disk.
COMMON_WORDS = {"artifact_dir", "artifact_transport"}
# Code that makes a name of its parts has the beginning only.
OLD_BEGINNINGS = ("whisper_store_", "artifact_publish_")
OLD_NAMES = re.compile(rf"\b(?:(?:{'|'.join(set(RENAMED) - COMMON_WORDS)})\b|{'|'.join(OLD_BEGINNINGS)})")
# Where old names are meant.
RENAMING = (
    "plugins/module_utils/renamed_variables.py",
    "scripts/rename_variables.py",
    "tests/fixtures/old_inventory/",
    "tests/roles/test_renamed_variables.py",
    "tests/unit/test_names.py",
    "tests/roles/test_rename_variables.py",
)


def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\n") if (ROOT / name).is_file()]


def lines(*patterns: str) -> Iterator[tuple[str, str]]:
    """Return `file:line` and the text of every line of text files."""
    for name in tracked(*patterns):
        try:
            text = (ROOT / name).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{name}:{number}", line


@pytest.mark.parametrize("room", ["roles", "plugins", "app", "docker", "kernels"])
@pytest.mark.parametrize("pattern", [GROUPS, OPTION], ids=["group", "option of a run"])
def test_room_names_nothing_of_inventories_and_playbooks(room, pattern):
    assert [place for place, line in lines(room) if pattern.search(line)] == []


def expressions(node: object, key: str = "") -> Iterator[str]:
    """Return every string of a file of tasks or variables that Ansible evaluates, as a template."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from expressions(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value, key)
    elif isinstance(node, str):
        bare = key in ("when", "that", "until", "changed_when", "failed_when")
        yield f"{{{{ {node} }}}}" if bare else node


def variables_read(template: str) -> set[str]:
    # Nothing is rendered.
    names = list(jinja2.Environment().parse(template).find_all(jinja2.nodes.Name))  # noqa: S701
    return {name.name for name in names if name.ctx == "load"} - {name.name for name in names if name.ctx == "store"}


ROLE_FILES = [name for name in tracked("roles") if name.endswith((".yml", ".j2")) and "/meta/" not in name]


def variables_of(name: str) -> set[str]:
    text = (ROOT / name).read_text("utf-8")
    templates = expressions(yaml.safe_load(text)) if name.endswith(".yml") else [text]
    return {variable for template in templates for variable in variables_read(template)}


@pytest.mark.parametrize("name", ROLE_FILES)
def test_role_reads_no_variable_of_a_playbook(name):
    assert variables_of(name) & {*WORDS_OF_A_RUN, *RENAMED} == set()


@pytest.mark.parametrize("name", ROLE_FILES)
def test_loops_of_a_role_say_what_they_are_over(name):
    assert "item" not in variables_of(name)


def test_scan_finds_what_a_role_reads():
    tasks = [{"when": "a.model and b | default(c)", "vars": {"x": "{{ d if model is defined }}{% set e = 1 %}{{ e }}"}}]
    assert set().union(*map(variables_read, expressions(tasks))) == {"a", "b", "c", "d", "model"}


@pytest.mark.parametrize(
    "line", ["{{ whisper_model }}", 'name.startswith("whisper_store_")', "f'artifact_publish_{x}'"]
)
def test_scan_finds_old_names_and_their_beginnings(line):
    assert OLD_NAMES.search(line)


def test_no_old_name_is_left():
    rooms = (
        "roles",
        "plugins",
        "app",
        "docker",
        "kernels",
        "playbooks",
        "inventory",
        "molecule",
        "bench",
        "scripts",
        "tests",
    )
    assert [place for place, line in lines(*rooms) if OLD_NAMES.search(line) and not place.startswith(RENAMING)] == []


@pytest.mark.parametrize("name", sorted(set(RENAMED.values())))
def test_new_name_is_a_variable_of_a_role(name):
    specs = [yaml.safe_load(path.read_text("utf-8")) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    entries = [entry for spec in specs for entry in spec["argument_specs"].values()]
    assert name in {option for entry in entries for option in entry.get("options", {})}


def test_no_yaml_file_begins_with_dashes():
    begins = {name: (ROOT / name).read_text("utf-8").lstrip().startswith("---") for name in tracked("*.yml", "*.yaml")}
    assert [name for name, dashes in begins.items() if dashes] == []
