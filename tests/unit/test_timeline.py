"""Times of a recording out of which silence was cut, on random recordings: laws that hold for all of them."""

from __future__ import annotations

import itertools
import random

import pytest

from whisper_xeon.engine.timeline import LEAST, Speech, Stretch, Timeline, apart, restored
from whisper_xeon.transcript import Segment, Transcript, Word

SEEDS = range(25)


def stretches(chance: random.Random, most: int = 8) -> list[Stretch]:
    """Return stretches in order within a minute."""
    times = sorted(chance.sample(range(60_000), 2 * chance.randint(1, most)))
    return [Stretch(start / 1000, end / 1000) for start, end in zip(times[::2], times[1::2])]


def instants(chance: random.Random, parts: list[Stretch]) -> list[float]:
    """Return times of the joined parts in order, the joints among them."""
    ends = list(itertools.accumulate(part.end - part.start for part in parts))
    return sorted([0.0, *ends, *(chance.uniform(0, ends[-1]) for _ in range(30))])


@pytest.mark.parametrize("seed", SEEDS)
def test_times_keep_their_order(seed):
    chance = random.Random(seed)
    parts = stretches(chance)
    timeline, times = Timeline(parts), instants(chance, parts)
    for function in (timeline.begin, timeline.finish):
        mapped = [function(time) for time in times]
        assert mapped == sorted(mapped)
    assert all(timeline.finish(time) <= timeline.begin(time) for time in times)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_way_back_undoes_the_way_there(seed):
    chance = random.Random(seed)
    parts = stretches(chance)
    timeline = Timeline(parts)
    for time in instants(chance, parts):
        assert timeline.joined(timeline.begin(time)) == pytest.approx(time, abs=1e-9)
        assert timeline.joined(timeline.finish(time)) == pytest.approx(time, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_time_lies_in_what_was_cut(seed):
    chance = random.Random(seed)
    parts = stretches(chance)
    timeline = Timeline(parts)
    for time in instants(chance, parts):
        for mapped in (timeline.begin(time), timeline.finish(time)):
            assert any(part.start <= mapped <= part.end for part in parts)


def test_at_a_joint_one_ends_before_the_cut_and_the_next_begins_after_it():
    timeline = Timeline([Stretch(10, 12), Stretch(20, 25)])
    assert (timeline.finish(2), timeline.begin(2)) == (12, 20)
    assert timeline.joined(15) == 2


def test_times_outside_are_brought_inside():
    timeline = Timeline([Stretch(10, 12), Stretch(20, 25)])
    assert (timeline.begin(-1), timeline.finish(99)) == (10, 25)


def test_a_recording_that_was_not_cut_keeps_its_times():
    timeline = Timeline([Stretch(0, 30)])
    assert [timeline.begin(time) for time in (0, 1.23, 30)] == [0, 1.23, 30]


@pytest.mark.parametrize("seed", SEEDS)
def test_trimming_leaves_speech_at_both_ends_and_does_nothing_twice(seed):
    chance = random.Random(seed)
    spoken = stretches(chance)
    speech = Speech(spoken)
    for _ in range(30):
        start, end = sorted(chance.uniform(0, 60) for _ in range(2))
        trimmed = speech.trimmed(start, end)
        if trimmed is None:
            assert not any(start < each.end and each.start < end for each in spoken)
        else:
            assert start <= trimmed.start < trimmed.end <= end
            assert any(each.start <= trimmed.start < each.end for each in spoken)
            assert any(each.start < trimmed.end <= each.end for each in spoken)
            assert speech.trimmed(*trimmed) == trimmed


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_of_speech_is_closer_than_the_nearest(seed):
    chance = random.Random(seed)
    spoken = stretches(chance)
    edges = [edge for each in spoken for edge in each]
    for _ in range(30):
        time = chance.uniform(0, 60)
        inside = any(each.start <= time <= each.end for each in spoken)
        assert Speech(spoken).nearest(time) == (time if inside else min(edges, key=lambda edge: abs(edge - time)))


@pytest.mark.parametrize("least", [LEAST, 0.001])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_set_apart_has_a_duration_and_no_overlap(seed, least):
    chance = random.Random(seed)
    count = 40
    whole = Stretch(1, 1 + count * least * chance.uniform(1, 4))
    starts = sorted(chance.choice([whole.start, whole.end, chance.uniform(*whole)]) for _ in range(count))
    times = [Stretch(start, start + chance.choice([0, 0, 0.01, 2])) for start in starts]
    found = apart(times, whole)
    assert all(each.end - each.start > 0.99 * least for each in found)
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    assert whole.start <= found[0].start
    assert found[-1].end <= whole.end
    assert list(itertools.chain(*apart(found, whole))) == pytest.approx(list(itertools.chain(*found)))


def test_what_is_apart_already_stays_as_it_is():
    times = [Stretch(0, 1), Stretch(1, 1.02), Stretch(4, 9)]
    assert apart(times, Stretch(0, 9)) == times


def segment(start: float, end: float, *words: tuple[float, float]) -> Segment:
    spelled = tuple(Word("word", *times, 0.9) for times in words)
    return Segment(0, start, end, " text", (1,), -0.1, 0.0, spelled)


def transcript(*segments: Segment) -> Transcript:
    return Transcript("text", "en", 0.9, 10.0, "transcribe", segments)


def test_a_segment_begins_and_ends_with_speech():
    heard = transcript(segment(0.0, 3.0))
    (found,) = restored(heard, Timeline([Stretch(0, 10)]), Speech([Stretch(1.5, 2.0), Stretch(2.1, 2.6)]), 10).segments
    assert (found.start, found.end) == (1.5, 2.6)


def test_a_segment_after_a_pause_begins_after_it():
    heard = transcript(segment(0.0, 2.0), segment(2.0, 6.0))
    timeline = Timeline([Stretch(10, 12), Stretch(30, 34)])
    first, second = restored(heard, timeline, Speech([Stretch(10.4, 11.6), Stretch(30.4, 33.6)]), 40).segments
    assert (first.start, first.end, second.start, second.end) == (10.4, 11.6, 30.4, 33.6)


def test_a_segment_that_whisper_alone_heard_keeps_its_times():
    heard = transcript(segment(4.0, 5.0, (4.1, 4.9)))
    (found,) = restored(heard, Timeline([Stretch(0, 10)]), Speech([Stretch(1, 2)]), 10).segments
    assert (found.start, found.end, found.words[0].start, found.words[0].end) == (4.0, 5.0, 4.1, 4.9)


def test_a_word_outside_speech_goes_to_the_nearest_speech():
    heard = transcript(segment(0.0, 5.0, (0.2, 0.5), (2.0, 2.4), (2.6, 2.9)))
    speech = Speech([Stretch(1.0, 2.5), Stretch(3.5, 4.5)])
    (found,) = restored(heard, Timeline([Stretch(0, 10)]), speech, 10).segments
    assert [(word.start, word.end) for word in found.words] == [(1.0, 1.02), (2.0, 2.4), (2.5, 2.52)]


def test_the_duration_is_that_of_the_recording():
    assert restored(transcript(), Timeline([Stretch(1, 2)]), Speech([Stretch(1, 2)]), 61.5).duration == 61.5
