"""Words out of tokens: where they begin and end in the text, and in time."""

from __future__ import annotations

import random

import pytest

from whisper_xeon.engine.words import Token, add_words
from whisper_xeon.transcript import Segment, Word


def tokens(*spoken: tuple[str | bytes, float, float]) -> list[Token]:
    """Return tokens of (text, start, end) in seconds, of falling probability."""
    return [
        Token(
            number, piece.encode() if isinstance(piece, str) else piece, 1 - number / 10, 0.0, *map(hundredths, times)
        )
        for number, (piece, *times) in enumerate(spoken)
    ]


def hundredths(seconds: float) -> int:
    return round(100 * seconds)


def segment(start: float, end: float) -> Segment:
    return Segment(0, start, end, "", (), 0.0, 0.0)


def words(*spoken: tuple[str | bytes, float, float], language: str = "en", start: float = 0, end: float = 10) -> list:
    (only,) = add_words([segment(start, end)], [tokens(*spoken)], language, 10)
    return [(word.text, word.start, word.end) for word in only.words]


def evenly(*pieces: str | bytes) -> list[tuple[str | bytes, float, float]]:
    """Give each token 0.2 s."""
    return [(piece, number / 5, (number + 1) / 5) for number, piece in enumerate(pieces)]


def texts(*pieces: str | bytes, language: str = "en") -> list[str]:
    return [text for text, _, _ in words(*evenly(*pieces), language=language)]


# What a word is.


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([" hel", "lo", " wor", "ld"], ["hello", "world"]),
        (["no", " space", " first"], ["no", "space", "first"]),
        ([" Mr", ".", " Smith", ","], ["Mr.", "Smith,"]),
        ([" 3", ".", "5", " e", "-", "mail"], ["3.5", "e-mail"]),
        ([" don", "'t", ' "', "Yes", '."'], ["don't", '"Yes."']),
        ([" ", "late", " space"], ["late", "space"]),
    ],
)
def test_words_end_at_spaces(pieces, expected):
    assert texts(*pieces) == expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["你", "好", "，", "世界"], ["你", "好，", "世界"]),
        (["好", "「", "你", "」", "。"], ["好", "「你」。"]),
        (["用", " S", "co", "oter", "40", "去"], ["用", "Scooter40", "去"]),
        (["世".encode()[:2], "世".encode()[2:], "界"], ["世", "界"]),
        (["か", "\u3099", "た"], ["か\u3099", "た"]),  # a mark on the character before
    ],
)
def test_words_are_characters_where_no_spaces_are(pieces, expected):
    assert texts(*pieces, language="ja") == expected


def test_a_word_has_the_mean_probability_of_its_tokens():
    (only,) = add_words([segment(0, 1)], [tokens(*evenly(" hel", "lo"))], "en", 10)
    assert only.words == (Word("hello", 0.0, 0.4, pytest.approx(0.95)),)


# When it is.


def test_a_word_lasts_from_its_first_token_to_its_last():
    assert words((" hel", 1.0, 1.2), ("lo", 1.2, 1.5), (" you", 1.6, 1.9)) == [("hello", 1.0, 1.5), ("you", 1.6, 1.9)]


def test_punctuation_takes_no_part_in_a_words_time():
    spoken = [(" (", 0.0, 1.0), ("so", 1.0, 1.2), (",", 1.2, 2.0), (" it", 2.0, 2.2), (")", 2.2, 3.0)]
    assert words(*spoken, start=1.0, end=2.2) == [("(so,", 1.0, 1.2), ("it)", 2.0, 2.2)]


def test_a_word_of_punctuation_alone_has_its_own_time():
    assert words((" so", 1.0, 1.2), (" ...", 1.2, 1.5), start=1.0) == [("so", 1.0, 1.2), ("...", 1.2, 1.5)]


def test_the_first_word_of_a_sentence_lasts_at_most_twice_the_median():
    spoken = [*evenly(" one", " two", " three", "."), (" Four", 0.8, 3.0), (" five", 3.0, 3.2)]
    assert words(*spoken)[3] == ("Four", 2.6, 3.0)


def test_a_long_word_within_a_sentence_is_left_alone():
    spoken = [*evenly(" one", " two", " three", ","), (" four", 0.8, 3.0), (" five", 3.0, 3.2)]
    assert words(*spoken)[3] == ("four", 0.8, 3.0)


def test_the_first_word_after_a_pause_lasts_at_most_twice_the_median():
    spoken = [(" one", 0.0, 3.0), (" two", 3.0, 3.2), (" three", 3.2, 3.4)]
    assert words(*spoken)[0] == ("one", 2.6, 3.0)


def test_a_word_after_a_pause_that_is_short_already_is_left_alone():
    spoken = [(" one", 1.0, 1.2), (" two", 2.0, 2.2), (" three", 2.2, 2.4)]
    assert words(*spoken, start=1.0)[0] == ("one", 1.0, 1.2)


def test_the_second_word_after_a_pause_lasts_at_most_twice_the_median_too():
    spoken = [(" one", 0.0, 1.0), (" two", 1.0, 3.0), (" three", 3.0, 3.2), (" four", 3.2, 3.4), (" five", 3.4, 3.6)]
    assert words(*spoken)[:2] == [("one", 2.2, 2.6), ("two", 2.6, 3.0)]


def test_a_median_of_more_than_700_ms_does_not_count():
    spoken = [(" one", 0.0, 3.0), (" two", 3.0, 4.0), (" three", 4.0, 5.0)]
    assert words(*spoken)[0] == ("one", 1.6, 3.0)


def test_a_last_word_that_reaches_far_over_its_segments_end_ends_there():
    far, little = ([*evenly(" one", " two"), (" three", 0.4, end)] for end in (2.0, 1.2))
    assert words(*far, end=0.8)[-1] == ("three", 0.4, 0.8)
    assert words(*little, end=0.8)[-1] == ("three", 0.4, 1.2)


def test_a_first_word_that_begins_far_before_its_segment_begins_there_or_lasts_the_median():
    spoken = [(" one", 0.0, 1.0), (" two", 1.0, 1.3), (" three", 1.3, 1.6)]
    assert words(*spoken, start=0.6)[0] == ("one", 0.6, 1.0)
    assert words(*spoken, start=0.8)[0] == ("one", 0.7, 1.0)
    assert words(*spoken, start=0.4)[0] == ("one", 0.0, 1.0)


def test_a_segment_begins_and_ends_with_its_words():
    made = add_words([segment(0, 2), segment(2, 4)], [tokens((" one", 0.3, 0.5)), tokens((" two", 2.2, 2.6))], "en", 10)
    assert [(each.start, each.end) for each in made] == [(0.3, 0.5), (2.2, 2.6)]


def test_words_stay_in_their_segments():
    made = add_words([segment(0, 1), segment(1, 2)], [tokens((" one", 0, 1)), tokens(("two", 1, 2))], "en", 10)
    assert [[word.text for word in each.words] for each in made] == [["one"], ["two"]]


def test_words_without_duration_get_some():
    spoken = [(" a", 1.0, 1.0), (" b", 1.0, 1.0), (" c", 1.0, 1.01), (" d", 1.01, 1.5)]
    assert words(*spoken, start=1.0) == [("a", 1.0, 1.02), ("b", 1.02, 1.04), ("c", 1.04, 1.06), ("d", 1.06, 1.5)]


def test_at_the_end_of_the_audio_they_get_it_from_what_is_before():
    assert words((" a", 9.0, 10.0), (" b", 10.0, 10.0), start=9.0)[-1] == ("b", 9.98, 10.0)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_the_tokens_say_words_last_follow_each_other_and_lie_in_their_segments(seed):
    chance = random.Random(seed)
    duration = chance.choice([1.0, 7.35, 30.0])
    spelled, segments = [], []
    for _ in range(chance.randint(1, 4)):
        pieces = chance.choices([" a", "b", ".", ",", " (", "世", " ", "'s"], k=chance.randint(1, 20))
        times = [[chance.uniform(-0.01, duration + 1) for _ in range(2)] for _ in pieces]
        spelled.append(tokens(*((piece, *sorted(pair)) for piece, pair in zip(pieces, times))))
        segments.append(segment(*sorted(chance.uniform(0, duration) for _ in range(2))))
    made = add_words(segments, spelled, chance.choice(["en", "zh"]), duration)
    for each in made:
        assert all(each.start <= word.start < word.end <= each.end for word in each.words)
    every = [word for each in made for word in each.words]
    assert all(before.end <= after.start for before, after in zip(every, every[1:]))
    assert not every or (every[0].start >= 0 and every[-1].end <= duration)
