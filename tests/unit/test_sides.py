"""Two sides' transcripts become one."""

from __future__ import annotations

from whisper_xeon.engine.sides import merge
from whisper_xeon.transcript import Segment, Transcript


def transcript(*spoken: tuple[float, float, str], language: str = "en", speech: float | None = None) -> Transcript:
    segments = tuple(
        Segment(number, start, end, text, (), -0.5, 0.0) for number, (start, end, text) in enumerate(spoken)
    )
    text = "".join(segment.text for segment in segments).strip()
    return Transcript(text, language, 0.9, 10.0, "transcribe", segments, speech)


def test_segments_are_in_the_order_of_their_starts_with_their_side():
    merged = merge(transcript((0, 2, " one"), (5, 6, " three")), transcript((3, 4, " two"), (8, 9, " four")))
    assert [(segment.id, segment.speaker, segment.text) for segment in merged.segments] == [
        (0, "left", " one"),
        (1, "right", " two"),
        (2, "left", " three"),
        (3, "right", " four"),
    ]
    assert merged.text == "one two three four"


def test_who_speaks_at_the_same_time_is_left_first():
    merged = merge(transcript((1, 3, " yes")), transcript((1, 2, " no")))
    assert [segment.speaker for segment in merged.segments] == ["left", "right"]


def test_the_language_is_that_of_the_side_that_speaks_for_longer():
    left, right = transcript((0, 1, " yes")), transcript((1, 9, " ein langer Satz"), language="de")
    assert (merge(left, right).language, merge(right, left).language) == ("de", "de")


def test_the_speech_of_both_sides_counts_where_it_was_looked_for():
    assert merge(transcript(speech=2.0), transcript(speech=3.5)).speech_seconds == 5.5
    assert merge(transcript(), transcript()).speech_seconds is None


def test_a_side_that_says_nothing_changes_nothing():
    spoken, nothing = transcript((0, 1, " yes")), transcript()
    assert merge(spoken, nothing).text == merge(nothing, spoken).text == "yes"
    assert merge(nothing, nothing).segments == ()
