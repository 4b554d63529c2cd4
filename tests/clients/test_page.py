"""The page at /, in Chromium with real audio: sent, dropped, recorded, rejected, and where a key is missing."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_programs import MADE, WORDS, run_json, words
from running_service import Service, running_service

KEY = "a-key-of-the-page-0123456789"
PAUSE_SECONDS = 7


@pytest.fixture(scope="module")
def keyed_service(real_artifacts_dir, tmp_path_factory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"{KEY}\n", encoding="ascii")
    path.chmod(0o600)
    with running_service(real_artifacts_dir, WHISPER_MODEL_SIZE="base", WHISPER_API_KEY_FILE=str(path)) as running:
        yield running


@pytest.fixture(scope="module")
def twice(clip, tmp_path_factory) -> Path:
    """The clip, a pause and the clip again, so that a segment begins far behind the start."""
    path = tmp_path_factory.mktemp("page") / "call of Monday.wav"
    with wave.open(str(clip)) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        frames = source.readframes(source.getnframes())
        target.writeframes(frames + bytes(2 * source.getframerate() * PAUSE_SECONDS) + frames)
    return path


@pytest.fixture(scope="module")
def long(clip, tmp_path_factory) -> Path:
    """The clip five times: several windows."""
    path = tmp_path_factory.mktemp("page") / "long.wav"
    with wave.open(str(clip)) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getnframes()) * 5)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def seen(service, keyed_service, twice, long, node, directory) -> dict[str, Any]:
    """What a browser saw: page.mjs says what it did."""
    script = MADE / "node" / "page.mjs"
    arguments = service.url, keyed_service.url, KEY, twice, long, "/usr/bin/chromium", directory
    return run_json(node, script, *arguments, timeout=300)


def test_a_file_is_transcribed_chosen_or_dropped(seen):
    assert words(seen["chosen"]) == words(seen["dropped"]) == 2 * WORDS


def test_text_arrives_before_the_end(seen):
    first = seen["arriving"][0]
    assert first
    assert seen["arrived"].startswith(first)
    assert len(first) < len(seen["arrived"])


def test_the_microphone_is_transcribed(seen):
    assert words(seen["recorded"])[-10:] == WORDS[-10:]


def test_a_segment_plays_from_its_start_by_keyboard_and_is_marked(seen):
    paused, at = seen["playing"]
    assert not paused
    assert at > PAUSE_SECONDS + 10
    assert words(seen["current"]) == WORDS[-len(words(seen["current"])) :]


def test_model_and_queue_are_in_sight(seen):
    assert seen["service"].startswith("Model base · ")
    assert seen["service"].endswith(", 0 waiting")


def test_a_rejected_file_gets_the_services_reason(seen):
    assert "cannot be decoded as audio" in seen["rejected"]


def test_a_missing_key_is_asked_for_and_a_right_one_taken(seen):
    assert seen["keyMissing"] == "The service needs an API key."
    assert words(seen["keyed"]) == 2 * WORDS


def test_over_plain_http_it_says_why_it_cannot_record(seen):
    disabled, why = seen["noMicrophone"]
    assert disabled
    assert why.startswith("Recording needs HTTPS or localhost")


@pytest.mark.parametrize("written", ["text", "srt", "vtt", "tsv"])
def test_what_it_downloads_is_what_the_service_writes(seen, service, twice, directory, written):
    fields = ("language", "en"), ("response_format", written)
    answer = service.post_form("/v1/audio/transcriptions", ("file", twice), *fields)
    assert (directory / seen["downloads"][written]).read_bytes() == answer.body
    assert seen["downloads"][written].startswith("call of Monday.")


def test_it_is_accessible_in_every_state(seen):
    assert len(seen["axe"]) == 8
    assert {state: found for state, found in seen["axe"].items() if found} == {}
    assert not seen["overflows"]


def test_its_policy_lets_it_do_all_of_this(seen):
    assert "errors" not in seen
    assert [line for line in seen.get("console", ()) if "status of 4" not in line] == []
