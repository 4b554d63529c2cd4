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
