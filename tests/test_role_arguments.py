"""Each role's meta/argument_specs.yml is its reference: it agrees with the role's defaults and with the packages."""

from __future__ import annotations

import re

import pytest
import yaml

from conftest import ROOT
from whisper_xeon.package import MODEL_CONFIGS

ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
ALL_ROLES = sorted(path.parent for path in ROOT.glob("roles/*/tasks"))


def load(path):
    return (yaml.safe_load(path.read_text("utf-8")) or {}) if path.exists() else {}


def options(role) -> dict[str, dict]:
    """Return the options of all entry points of a role."""
    entries = load(role / "meta" / "argument_specs.yml")["argument_specs"].values()
    return {name: option for entry in entries for name, option in entry.get("options", {}).items()}


def identify(role) -> str:
    return role.name


@pytest.mark.parametrize("role", ALL_ROLES, ids=identify)
def test_role_says_what_it_takes(role):
    assert role in ROLES


@pytest.mark.parametrize("role", ALL_ROLES, ids=identify)
def test_role_has_a_readme(role):
    assert (role / "README.md").exists()


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_every_default_is_an_option(role):
    assert set(load(role / "defaults" / "main.yml")) - set(options(role)) == set()


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_every_option_is_required_or_has_a_default(role):
    given = set(load(role / "defaults" / "main.yml"))
    missing = {name for name, option in options(role).items() if not option.get("required")} - given
    assert missing == set()


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_no_required_option_has_a_default(role):
    given = set(load(role / "defaults" / "main.yml"))
    assert {name for name, option in options(role).items() if option.get("required")} & given == set()


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_plain_defaults_are_the_same_in_both_places(role):
    given = load(role / "defaults" / "main.yml")
    different = {
        name: (option["default"], given[name])
        for name, option in options(role).items()
        if "default" in option and "{{" not in f"{given[name]}{option['default']}" and given[name] != option["default"]
    }
    assert different == {}


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_every_option_is_described(role):
    assert [name for name, option in options(role).items() if not option.get("description")] == []


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_public_variables_carry_the_name_of_the_role(role):
    assert [name for name in options(role) if not name.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=identify)
def test_no_secret_has_a_default(role):
    given = load(role / "defaults" / "main.yml")
    secret = re.compile(r"(password|secret_key|secret)$")
    assert {name: value for name, value in given.items() if secret.search(name) and value} == {}


def test_models_of_the_service_are_those_that_a_package_can_hold():
    role = ROOT / "roles" / "whisper_service"
    known = list(MODEL_CONFIGS)
    assert options(role)["whisper_service_model"]["choices"] == known
    assert load(role / "vars" / "main.yml")["__whisper_service_models"] == known
