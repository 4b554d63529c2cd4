"""How `make bench-words` counts, and which recordings the repository carries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paths import ROOT
from whisper_bench.words import corpus, scoring
from whisper_bench.words.corpus import CARRIED, Clip
from whisper_bench.words.scoring import Errors, simple


def clip(text: str, language: str = "en", file: str = "clip.wav") -> Clip:
    return Clip(file, Path(file), language, text, 5.0, "read")


def errors(text: str, heard: str, language: str = "en") -> Errors:
    return scoring.errors([clip(text, language)], {"clip.wav": {"text": heard}}, simple)["clip.wav"]


def test_case_punctuation_and_apostrophes_do_not_count():
    assert errors("I'm here – now.", " im here, NOW") == Errors(said=3)


def test_insertions_deletions_and_substitutions_are_told_apart():
    assert errors("one two three four five six", "one too three five six seven") == Errors(6, 1, 1, 1)


def test_chinese_is_counted_in_characters_and_spaces_do_not_count():
    assert errors("今天 天气", "今天天汽", "zh") == Errors(said=4, substituted=1)


def test_a_difference_is_zero_between_equals_and_has_its_sign():
    one = {str(number): Errors(10, deleted=number % 3) for number in range(30)}
    other = {file: Errors(10) for file in one}
    same = scoring.difference(one, one)
    assert (same.points, same.low, same.high) == (0, 0, 0)
    more = scoring.difference(one, other)
    assert more.points == pytest.approx(10)
    assert 0 < more.low < more.points < more.high
    assert scoring.difference(other, one).high == pytest.approx(-more.low)
    assert scoring.difference(one, other, "inserted").points == 0


@pytest.mark.parametrize(
    ("heard", "lost"),
    [
        ("one two three four five six", False),
        ("one five six", False),  # three words in a row
        ("one six", True),
        ("", True),
    ],
)
def test_a_sentence_is_lost_with_four_words_in_a_row(heard, lost):
    text = "one two three four five six"
    assert scoring.lost_sentence(clip(text), text, heard) == lost


def test_what_was_not_heard_before_is_not_lost():
    assert not scoring.lost_sentence(clip("one two three four five"), "one", "one")


def test_a_short_clip_is_lost_as_a_whole():
    assert scoring.lost_sentence(clip("two people"), "Two people.", "")
    assert not scoring.lost_sentence(clip("two people"), "Two people.", "people")


def test_every_carried_recording_has_a_licence_of_its_own_and_is_attributed():
    entries = json.loads((CARRIED / "refs.json").read_text(encoding="utf-8"))
    attribution = (CARRIED / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert {entry["file"] for entry in entries} == {path.name for path in (CARRIED / "clips").iterdir()}
    assert not [entry["file"] for entry in entries if "(repo)" in entry["licence"]]
    assert not [entry["file"] for entry in entries if f"`{entry['file']}`" not in attribution]
    assert len(corpus.load(CARRIED)) == len(entries)


def test_starts_set_by_hand_are_of_words_that_the_recordings_have():
    by_hand = json.loads((ROOT / "bench" / "whisper_bench" / "words" / "by_hand.json").read_text(encoding="utf-8"))
    texts = {each.file: (simple(each.text, "en").split(), each.seconds) for each in corpus.load(CARRIED)}
    for file, words in by_hand.items():
        said, seconds = texts[file]
        assert all(number < len(said) and 0 < start < seconds for number, start in words), file
    assert sum(map(len, by_hand.values())) == 20
