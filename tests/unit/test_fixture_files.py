"""The fixture models and recordings are what their card and their references say."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import struct
import wave
from pathlib import Path

import jiwer
import pytest

from paths import FIXTURES, RECORDINGS
from vocabulary import translate

CARD = (FIXTURES / "README.md").read_text("utf-8")
REFERENCES = json.loads((RECORDINGS / "refs.json").read_text("utf-8"))
LONG = json.loads((RECORDINGS / "long.json").read_text("utf-8"))
MODELS = ("small", "medium")

each_model = pytest.mark.parametrize("model", MODELS)
each_recording = pytest.mark.parametrize("recording", REFERENCES["recordings"], ids=lambda entry: entry["file"])
each_wav = pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.wav")), ids=lambda path: path.name)


def unpacked(model: str) -> bytes:
    return lzma.decompress((FIXTURES / "models" / f"ggml-fixture-{model}.bin.xz").read_bytes())


def seconds(path: Path) -> float:
    with wave.open(str(path)) as stream:
        return stream.getnframes() / stream.getframerate()


@each_model
def test_the_card_states_the_sha256_of_the_unpacked_model(model):
    stated = re.search(rf"`ggml-fixture-{model}\.bin` \| `([0-9a-f]{{64}})`", CARD)
    assert hashlib.sha256(unpacked(model)).hexdigest() == stated.group(1)


@each_model
def test_a_model_has_the_dimensions_that_the_card_states(model):
    stated = re.search(r"`n_vocab` to `ftype` \| ([0-9 ]+) \|", CARD)
    assert struct.unpack_from("<11i", unpacked(model), 4) == tuple(int(number) for number in stated.group(1).split())


@each_wav
def test_a_recording_is_16_khz_mono_16_bit(path):
    with wave.open(str(path)) as stream:
        assert (stream.getframerate(), stream.getnchannels(), stream.getsampwidth()) == (16000, 1, 2)


def test_every_recording_is_described():
    described = {entry["file"] for entry in REFERENCES["recordings"]} | {"long.wav", "silence.wav", "noise.wav"}
    assert {path.name for path in RECORDINGS.glob("*.wav")} == described


@each_recording
def test_a_reference_states_the_length_of_its_recording(recording):
    assert seconds(RECORDINGS / recording["file"]) == pytest.approx(recording["seconds"], abs=0.01)


@each_recording
def test_a_reference_translates_word_by_word(recording):
    assert translate(recording["language"], recording["text"].split()) == recording["english"].split()


@each_recording
def test_exact_means_that_both_models_give_the_text(recording):
    assert recording["exact"] == all(recording[model] == recording["text"] for model in MODELS)


@each_recording
def test_exact_translation_means_that_both_models_give_the_english(recording):
    assert recording["exact_translation"] == all(
        recording[f"{model}_translated"] == recording["english"] for model in MODELS
    )


@each_recording
@each_model
def test_both_models_know_the_language(recording, model):
    assert recording[f"{model}_lang"] == recording["language"]


@each_recording
@each_model
def test_the_first_segment_lies_within_the_recording(recording, model):
    start, end = recording[f"{model}_ms"]
    assert 0 <= start < end <= recording["seconds"] * 1000


@each_model
def test_the_word_error_rate_is_that_of_the_recordings(model):
    recordings = REFERENCES["recordings"]
    rate = jiwer.wer([entry["text"] for entry in recordings], [entry[model] for entry in recordings])
    assert round(rate, 3) == REFERENCES["word_error_rate"][model]


@each_model
def test_the_card_states_the_word_error_rate(model):
    assert f"{model} {REFERENCES['word_error_rate'][model]:.1%}".replace("%", " %") in CARD


def test_the_card_states_the_word_error_rate_of_the_long_recording():
    said = " ".join(phrase["text"] for phrase in LONG["phrases"])
    rates = [jiwer.wer(said, " ".join(segment["text"] for segment in LONG[model])) for model in MODELS]
    assert "the word error rate is {:.0%} (small) and {:.0%} (medium)".format(*rates).replace("%", " %") in CARD


def test_the_long_recording_is_longer_than_two_windows():
    assert seconds(RECORDINGS / "long.wav") == LONG["seconds"] > 60


def test_the_phrases_of_the_long_recording_follow_each_other():
    times = [time for phrase in LONG["phrases"] for time in (phrase["start"], phrase["end"])]
    assert [0, *times, LONG["seconds"]] == sorted([0, *times, LONG["seconds"]])


def test_silence_is_silent():
    with wave.open(str(RECORDINGS / "silence.wav")) as stream:
        assert not any(stream.readframes(stream.getnframes()))
