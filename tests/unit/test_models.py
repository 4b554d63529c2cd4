"""Names of models: what a name may be, what means the same, and which size a model has."""

from __future__ import annotations

import os

import pytest

from whisper_package.errors import PackageError
from whisper_package.models import (
    ALIASES,
    DIMENSIONS,
    MODEL_CONFIGS,
    NAME_LENGTH,
    did_you_mean,
    model_name,
    model_of,
    package_directory,
    size_of,
)

LONGEST = "a" * NAME_LENGTH
OWN = ("support-calls-de", "whisper-large-v3-german", "distil_medium.en", "v2", "small-de", LONGEST)


@pytest.mark.parametrize("model", [*MODEL_CONFIGS, *OWN])
def test_a_model_has_one_name_in_any_case(model):
    for text in (model, model.upper(), model.title()):
        assert model_name(text) == model


@pytest.mark.parametrize(
    ("alias", "model"),
    [("turbo", "large-v3-turbo"), ("TURBO", "large-v3-turbo"), ("large", "large-v3"), ("Large", "large-v3")],
)
def test_other_names_are_those_of_openais_tool(alias, model):
    assert model_name(alias) == model


def test_large_v1_is_a_model_of_its_own():
    assert model_name("large-v1") == "large-v1"


def test_every_alias_means_a_released_model_and_is_none():
    assert set(ALIASES.values()) <= set(MODEL_CONFIGS)
    assert not set(ALIASES) & set(MODEL_CONFIGS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "..",
        "../x",
        "a/../b",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a b",
        " medium",
        "medium\n",
        "a\0b",
        "-rf",
        "--help",
        ".hidden",
        "_a",
        "a-",
        "a.",
        "a..b",
        "a-.b",
        "$(id)",
        "${HOME}",
        "{{ model }}",
        "a:b",
        "a%2fb",
        "a,b",
        "*",
        "2024",
        "1e3",
        "größe",
        "模型",
        "\u212aalls",
        "med\u0131um",
        "a\u200bb",
        LONGEST + "a",
        "a" * 300,
    ],
)
def test_what_could_mean_another_path_key_or_option_is_no_name(text):
    with pytest.raises(PackageError, match="is not a model's name: a name begins with a letter") as caught:
        model_name(text)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["latest", "LATEST", "stable", "all", "none", "auto", "whisper-1", "no", "True"])
def test_words_that_mean_something_else_are_reserved(text):
    with pytest.raises(PackageError, match=f"'{text}' is reserved"):
        model_name(text)


@pytest.mark.parametrize("model", [*MODEL_CONFIGS, *OWN])
def test_the_directory_of_a_package_and_its_model_belong_to_each_other(model):
    directory = package_directory(model.upper())
    assert directory == f"whisper_{model}_xeon"
    assert model_of(directory) == model


@pytest.mark.parametrize(
    "directory", ["", "whisper__xeon", "whisper_Small_xeon", "whisper_turbo_xeon", "whisper_small_xeon.old", "dist"]
)
def test_other_directories_are_none_of_a_package(directory):
    assert model_of(directory) == ""


def test_the_longest_name_leaves_room_for_all_that_is_added_to_it():
    # The longest is the directory of a download: .<package>.<release id>.part
    assert len(f".{package_directory(LONGEST)}.{'0' * 64}.part") < os.pathconf("/", "PC_NAME_MAX")


def test_the_closest_name_is_a_hint_and_a_known_one_needs_none():
    assert did_you_mean("meduim", []) == did_you_mean("meduim", ["small", "medium"]) == " (did you mean medium?)"
    assert did_you_mean("suport-calls-de", ["support-calls-de"]) == " (did you mean support-calls-de?)"
    assert did_you_mean("meduim", ["small"]) == did_you_mean("trubo", ["small"]) == ""
    assert did_you_mean("medium", ["small"]) == did_you_mean("support-calls-de", ["small"]) == ""


def test_every_released_model_has_dimensions():
    assert set(DIMENSIONS) == set(MODEL_CONFIGS)


@pytest.mark.parametrize("model", MODEL_CONFIGS)
def test_a_released_model_has_the_memory_of_its_own_size(model):
    width, _, encoder, decoder = DIMENSIONS[model]
    assert MODEL_CONFIGS[size_of(width, encoder, decoder)]["ram_mb"] == MODEL_CONFIGS[model]["ram_mb"]


@pytest.mark.parametrize(
    ("dimensions", "size"),
    [
        ((128, 2, 2), "tiny"),  # the fixtures
        ((768, 12, 4), "small"),  # distil-small.en
        ((1024, 24, 2), "large-v3-turbo"),  # distil-medium.en: medium takes more
        ((1280, 32, 2), "large-v3-turbo"),  # distil-large-v3
        ((1280, 32, 5), "large-v1"),
        ((2048, 64, 64), "large-v1"),
    ],
)
def test_another_model_counts_as_the_smallest_that_is_no_smaller(dimensions, size):
    assert size_of(*dimensions) == size
