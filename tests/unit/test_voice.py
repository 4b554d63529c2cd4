"""What follows from the probabilities of speech: parts, what is kept of a recording, and what is no speech."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from whisper_xeon.engine.voice import FRAME, Span, find_speech, is_credible, kept_parts, likeliest, without_sounds
from whisper_xeon.transcript import DecodeOptions, Segment, Transcript

SECOND = 16000
OPTIONS = DecodeOptions(vad_min_silence_ms=2000)


def frames(*levels: tuple[float, int]) -> list[float]:
    """Return probabilities: each one for a number of frames."""
    return [level for level, count in levels for _ in range(count)]


def found(*levels: tuple[float, int], **options) -> list[tuple[int, int]]:
    """Return the parts in frames, without the one that each has before and after it."""
    spans = find_speech(frames(*levels), replace(OPTIONS, **options))
    return [(span.start // FRAME + 1, span.end // FRAME - 1) for span in spans]


def test_speech_lasts_from_where_it_is_heard_to_where_it_is_gone():
    assert found((0.01, 20), (0.3, 2), (0.99, 20), (0.15, 5), (0.02, 20)) == [(20, 47)]


def test_a_soft_sound_belongs_to_the_speech_around_it():
    assert found((0.0, 9), (0.99, 20), (0.02, 3), (0.99, 20), (0.0, 9)) == [(9, 52)]


def test_soft_speech_counts_in_a_recording_that_has_clear_speech():
    assert found((0.0, 9), (0.3, 20), (0.0, 90), (0.99, 20), (0.0, 9)) == [(9, 29), (119, 139)]


@pytest.mark.parametrize("level", [0.49, 0.94])
def test_without_a_clear_moment_nothing_is_certain(level):
    assert found((0.0, 9), (level, 200), (0.0, 9)) == []


def test_what_is_shorter_than_speech_is_noise():
    assert found((0.0, 9), (0.99, 7), (0.0, 9)) == []
    assert found((0.0, 9), (0.99, 7), (0.0, 9), vad_min_speech_ms=200) == [(9, 16)]


def test_a_lower_threshold_finds_more():
    assert found((0.0, 9), (0.94, 20), (0.0, 9), vad_threshold=0.2) == [(9, 29)]


def test_silence_is_kept_up_to_its_length():
    speech = [Span(0, SECOND), Span(60800, 4 * SECOND)]  # 2.8 s: 2 s would go
    assert kept_parts(speech, 4 * SECOND, OPTIONS) == [(0, 4 * SECOND)]


def test_of_longer_silence_the_padding_is_kept():
    speech = [Span(0, SECOND), Span(60801, 5 * SECOND)]
    assert kept_parts(speech, 5 * SECOND, OPTIONS) == [(0, 22400), (54401, 5 * SECOND)]


def test_silence_at_both_ends_counts_too():
    assert kept_parts([Span(3 * SECOND, 4 * SECOND)], 7 * SECOND, OPTIONS) == [(41600, 70400)]
    assert kept_parts([Span(2 * SECOND, 4 * SECOND)], 6 * SECOND, OPTIONS) == [(0, 6 * SECOND)]


@pytest.mark.parametrize("seed", range(50))
def test_parts_hold_all_speech_and_never_meet(seed):
    chance = random.Random(seed)
    count = chance.randint(SECOND, 90 * SECOND)
    edges = sorted(chance.sample(range(count + 1), 2 * chance.randint(1, 12)))
    speech = [Span(start, end) for start, end in zip(edges[::2], edges[1::2])]
    options = replace(
        OPTIONS, vad_min_silence_ms=chance.choice([0, 100, 2000]), vad_speech_pad_ms=chance.choice([0, 400, 3000])
    )
    parts = kept_parts(speech, count, options)
    assert parts[0].start >= 0
    assert parts[-1].end <= count
    for before, after in zip(parts, parts[1:]):
        assert after.start - before.end > 16 * options.vad_min_silence_ms
    assert all(any(part.start <= each.start < each.end <= part.end for part in parts) for each in speech)


def test_where_speech_never_is_there_is_no_likeliest_place():
    assert likeliest([]) is None
    assert likeliest(frames((0.04, 100))) is None


def test_the_likeliest_place_is_the_30_seconds_with_most_of_it():
    levels = frames((0.0, 2000), (0.3, 900), (0.0, 2000))
    span = likeliest(levels)
    assert span.start <= 2000 * FRAME
    assert span.end >= 2900 * FRAME
    assert span.end - span.start == 937 * FRAME


def test_a_short_recording_is_one_place():
    assert likeliest(frames((0.1, 100))) == (0, 937 * FRAME)


def transcript(*texts: str, logprob: float = -0.3, silence: float = 0.1) -> Transcript:
    segments = tuple(
        Segment(number, number, number + 1, text, (7, 8), logprob, silence) for number, text in enumerate(texts)
    )
    return Transcript("".join(texts).strip(), "en", 0.9, len(texts), "transcribe", segments)


@pytest.mark.parametrize(
    "text",
    [
        " [BLANK_AUDIO]",
        " (upbeat music)",
        " *sighs*",
        " ♪",
        " ♪ (music) ♪",
        " ...",
        " （音乐）",
        ' ["The End"]',
        " - [door] [bell]",
    ],
)
def test_the_name_of_a_sound_is_no_speech(text):
    left = without_sounds(transcript(" Hello.", text, " You."))
    assert left.text == "Hello. You."
    assert [segment.id for segment in left.segments] == [0, 1]


@pytest.mark.parametrize("text", [" (laughs) All right.", " ♪ You are my sunshine ♪", " 5", " 你好", " *sighs* Well"])
def test_words_are_speech(text):
    spoken = transcript(text)
    assert without_sounds(spoken) is spoken


def test_whisper_is_believed_when_it_is_sure():
    assert is_credible(transcript(" Yes."), OPTIONS)
    assert not is_credible(transcript(" Yes.", logprob=-1.2), OPTIONS)
    assert not is_credible(transcript(" Yes.", silence=0.6), OPTIONS)
    assert not is_credible(transcript(), OPTIONS)
    assert is_credible(transcript(" Yes.", silence=0.6), replace(OPTIONS, no_speech_threshold=0.7))
