"""Each role's meta/argument_specs.yml is its reference: it agrees with the role's defaults and with the packages."""

from __future__ import annotations

import re

import pytest
import yaml

from paths import ROOT
from whisper_package.models import ALIASES, MODEL_CONFIGS, model_name

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
def test_an_option_of_several_entry_points_is_one(role):
    entries = load(role / "meta" / "argument_specs.yml")["argument_specs"].values()
    described = [item for entry in entries for item in entry.get("options", {}).items()]
    assert [name for name, option in described if option != options(role)[name]] == []


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


# Both have a list of their own, because they are read where no Python is; whisper_package.models is the one to change.


def test_every_released_model_is_pinned():
    assert list(load(ROOT / "versions.yml")["models"]) == list(MODEL_CONFIGS)


def test_every_name_of_a_released_model_has_a_limit():
    limits = load(ROOT / "limits.yml")["services"]
    assert limits.pop("of-the-model") == {"extends": {"service": "${WHISPER_MODEL_SIZE:-small}"}}
    names = [*MODEL_CONFIGS, *ALIASES]
    assert list(limits) == [*names, *map(str.upper, names)]
    assert {name: limits[model_name(name)] for name in limits} == limits


@pytest.mark.parametrize("model", MODEL_CONFIGS)
def test_every_model_is_pinned_to_a_file_of_its_name(model):
    sources = [source for source in load(ROOT / "versions.yml")["models"][model]["sources"] if "url" in source]
    assert sources
    for source in sources:
        assert re.fullmatch(rf"https://\S+/resolve/[0-9a-f]{{40}}/ggml-{re.escape(model)}\.bin", source["url"])
        assert re.fullmatch(r"[0-9a-f]{64}", source["sha256"])


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_the_second_way_to_a_model_is_pinned_in_all_its_parts(model):
    _, source = load(ROOT / "versions.yml")["models"][model]["sources"]
    digests = [source["ggml_sha256"], *(part["sha256"] for part in source["wheels"])]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    assert len(set(digests)) == len(source["wheels"]) + 1


def test_no_two_models_are_the_same_file():
    digests = [model["sources"][0]["sha256"] for model in load(ROOT / "versions.yml")["models"].values()]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("model", MODEL_CONFIGS)
def test_a_container_may_use_what_three_engines_with_an_hour_of_audio_each_take(model):
    memory_limit = load(ROOT / "limits.yml")["services"][model]["mem_limit"]
    gibibytes = int(re.fullmatch(r"\$\{WHISPER_MEMORY_LIMIT:-(\d+)g\}", memory_limit).group(1))
    audio_mb = 3 * 300 + 2450
    assert gibibytes * 2**30 / 1e6 >= MODEL_CONFIGS[model]["ram_mb"] + audio_mb
