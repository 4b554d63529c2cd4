"""Filters of role `artifact_build`: which models a build is of, what its context gets, and its Dockerfile."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from collection_module import load_module

filters = load_module("artifact_build", "filter")

PINNED = {
    "small": {
        "sources": [{"url": "https://hub.example.org/ggml-small.bin", "sha256": "1" * 64}],
        "notice": "MIT",
        "selftest": {"audio": "samples/jfk.wav", "language": "en", "text": "ask not"},
    }
}
PART = {"name": "whisper-small", "version": "1.0.0", "sha256": "3" * 64}
FETCHED = {
    "small": {
        "path": "/cache/small.bin",
        "sha256": "2" * 64,
        "changed": True,
        "parts": [PART],
        "alignment_heads": [[1, 0]],
    }
}


def wanted(**override) -> dict:
    return filters.artifact_build_wanted(["small"], PINNED, {"small": override} if override else {})["small"]


class TestWanted:
    def test_a_model_is_what_is_pinned(self):
        assert wanted() == PINNED["small"]

    def test_only_the_models_of_the_build_are_wanted(self):
        assert filters.artifact_build_wanted([], PINNED, {"small": {"notice": "mine"}}) == {}

    def test_a_local_file_takes_the_place_of_the_sources_and_of_their_notice(self):
        found = wanted(path="/srv/own.bin")
        assert found["sources"] == [{"path": "/srv/own.bin"}]
        assert "whoever built this package knows" in found["notice"]

    def test_the_notice_of_a_local_file_is_the_one_that_is_given(self):
        assert wanted(path="/srv/own.bin", notice="mine")["notice"] == "mine"

    def test_a_part_of_the_selftest_leaves_the_other_parts(self):
        assert wanted(selftest={"text": "hello"})["selftest"] == {**PINNED["small"]["selftest"], "text": "hello"}


SELFTEST = {"audio": "/srv/call.wav", "language": "de", "text": "guten Tag"}
OWN = {"path": "/srv/calls", "selftest": SELFTEST}


class TestModelsOfOnesOwn:
    def test_all_that_it_is_made_of_is_in_its_override(self):
        found = filters.artifact_build_wanted(["calls-de"], PINNED, {"Calls-DE": OWN})["calls-de"]
        assert found["sources"] == [{"path": "/srv/calls"}]
        assert found["selftest"] == SELFTEST
        assert "whoever built this package knows" in found["notice"]

    def test_an_override_has_any_name_that_means_its_model(self):
        assert (
            filters.artifact_build_wanted(["small"], PINNED, {"SMALL": {"notice": "mine"}})["small"]["notice"] == "mine"
        )

    @pytest.mark.parametrize(
        ("models", "overrides"),
        [
            (["small"], {}),
            (["SMALL", "turbo", "Large"], {}),
            (["calls-de"], {"calls-de": OWN}),
            (["Calls-DE"], {"calls-de": OWN}),
            (["small"], {"calls-de": OWN}),
            (["small"], {"small-de": OWN}),
            (["medium"], {"medium-de": OWN}),
            (["small"], {"medium": {"notice": "mine"}}),
            (["small"], {"turbo": {"path": "/srv/turbo.pt"}}),
            (["calls"], {"calls": {"sources": [{"path": "/srv/calls"}], "notice": "mine", "selftest": SELFTEST}}),
        ],
    )
    def test_nothing_is_wrong_with_what_is_released_or_declared(self, models, overrides):
        assert filters.artifact_build_model_problems(models, overrides) == []

    @pytest.mark.parametrize(
        ("models", "overrides", "problem"),
        [
            (["meduim"], {}, "artifact_build_models names meduim (did you mean medium?), which is neither a released"),
            (["calls"], {"call": OWN}, "artifact_build_models names calls (did you mean call?), which is neither"),
            (
                ["calls"],
                {},
                "a model of your own is declared in artifact_build_model_overrides, by its name",
            ),
            (["../x"], {}, "artifact_build_models: '../x' is not a model's name"),
            ([2024], {}, "artifact_build_models: '2024' is not a model's name"),
            (["latest"], {"latest": OWN}, "artifact_build_model_overrides: 'latest' is reserved"),
            (["small"], {"smal": OWN}, "names smal, which is not built: did you mean small?"),
            (["medium"], {"meduim": OWN}, "names meduim, which is not built: did you mean medium?"),
            (["turbo"], {"turbo": {}, "large-v3-turbo": {}}, "names large-v3-turbo twice, once as large-v3-turbo"),
            (
                ["calls"],
                {"calls": {"path": "/srv/calls"}},
                "lacks selftest.audio, selftest.language, selftest.text",
            ),
            (
                ["calls"],
                {"calls": {"selftest": SELFTEST}},
                "lacks path (or sources and notice): a model of your own",
            ),
            (["calls"], {"calls": {"sources": [], "selftest": SELFTEST}}, "calls lacks path (or sources and notice)"),
            (["calls"], {"calls": "/srv/calls"}, "artifact_build_model_overrides.calls is not a dictionary"),
            (["small"], {"small": "/srv/small"}, "artifact_build_model_overrides.small is not a dictionary"),
            (["calls"], ["calls"], "artifact_build_model_overrides is not a dictionary"),
        ],
    )
    def test_what_is_wrong_is_told_in_one_sentence_with_the_remedy(self, models, overrides, problem):
        found = filters.artifact_build_model_problems(models, overrides)
        assert problem in "; ".join(found)
        assert len(found) <= 2


class TestStaged:
    def test_weights_and_clip_of_each_model_are_staged(self):
        staged = filters.artifact_build_staged({"small": wanted()}, FETCHED, "/cache/whisper.cpp")
        assert staged["files"] == {
            "models/small.bin": "/cache/small.bin",
            "selftest/small.wav": "/cache/whisper.cpp/samples/jfk.wav",
        }
        assert staged["sha256"] == {"models/small.bin": "2" * 64}

    def test_a_clip_with_an_absolute_path_is_taken_from_there(self):
        own = {"small": wanted(selftest={"audio": "/srv/own.wav"})}
        assert filters.artifact_build_staged(own, FETCHED, "/tree")["files"]["selftest/small.wav"] == "/srv/own.wav"

    def test_what_is_not_fetched_yet_has_no_source(self):
        nothing = {"small": {"path": "", "sha256": "", "parts": [], "alignment_heads": []}}
        staged = filters.artifact_build_staged({"small": wanted()}, nothing, "")
        assert staged["files"] == {"models/small.bin": "", "selftest/small.wav": ""}

    def test_settings_name_what_goes_into_the_package_and_no_path(self):
        staged = filters.artifact_build_staged({"small": wanted()}, FETCHED, "/tree")
        assert staged["settings"]["small"] == {
            "source_sha256": "2" * 64,
            "parts": [PART],
            "alignment_heads": [[1, 0]],
            "notice": "MIT",
            "selftest": {"language": "en", "text": "ask not"},
        }


class TestDockerfile:
    TEXT = 'ARG BASE=debian\nFROM ${BASE}\nARG FLAGS=""\nRUN echo ARG BASE=no\n'

    def test_arguments_get_other_defaults(self):
        text = filters.dockerfile_arguments(self.TEXT, {"BASE": r"own\1:2", "FLAGS": ["-DA=1", "-DB=2"]})
        assert text == 'ARG BASE=own\\1:2\nFROM ${BASE}\nARG FLAGS="-DA=1 -DB=2"\nRUN echo ARG BASE=no\n'

    def test_an_empty_list_is_an_empty_argument(self):
        assert filters.dockerfile_arguments(self.TEXT, {"FLAGS": []}) == self.TEXT

    def test_an_argument_that_the_dockerfile_does_not_have_is_an_error(self):
        with pytest.raises(AnsibleFilterError, match="no line ARG GONE="):
            filters.dockerfile_arguments(self.TEXT, {"GONE": "x"})
