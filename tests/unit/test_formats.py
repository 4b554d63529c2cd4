"""A transcript in each format: shapes of OpenAI, valid subtitles."""

from __future__ import annotations

import json

import pytest

from whisper_xeon.formats import render
from whisper_xeon.transcript import Segment, Transcript, Word


def segment(number: int, start: float, end: float, text: str, *words: Word) -> Segment:
    return Segment(number, start, end, text, (1, 2), -0.25, 0.125, words)


def transcript(*segments: Segment) -> Transcript:
    text = " ".join(one.text for one in segments)
    return Transcript(text, "en", 0.987654, 8.47, "transcribe", segments)


HELLO = transcript(
    segment(0, 0.44, 2.52, "five eight", Word("five", 0.44, 1.0, 0.9), Word("eight", 1.0, 2.52, 0.8)),
    segment(1, 2.52, 3.9996, "hello", Word("hello", 2.52, 3.9996, 0.7)),
)


def rendered(response_format: str, value: Transcript = HELLO, **options) -> str:
    return render(value, response_format, **options)[0].decode()


def test_json_holds_the_text_and_the_seconds_used():
    assert json.loads(rendered("json")) == {
        "text": "five eight hello",
        "usage": {"type": "duration", "seconds": 9},
    }


def test_text_is_one_line():
    assert rendered("text") == "five eight hello\n"


def test_verbose_json_has_openais_fields():
    body = json.loads(rendered("verbose_json", temperature=0.2))
    assert body["segments"][0] == {
        "id": 0,
        "seek": 44,
        "start": 0.44,
        "end": 2.52,
        "text": "five eight",
        "tokens": [1, 2],
        "temperature": 0.2,
        "avg_logprob": -0.25,
        "compression_ratio": pytest.approx(10 / 18),
        "no_speech_prob": 0.125,
    }
    del body["segments"]
    assert body == {
        "task": "transcribe",
        "language": "english",
        "duration": 8.47,
        "text": "five eight hello",
        "language_probability": 0.9877,
        "usage": {"type": "duration", "seconds": 9},
    }


def test_verbose_json_lists_words_when_asked_for():
    body = json.loads(rendered("verbose_json", granularities=["word"]))
    assert body["words"][1] == {"word": "eight", "start": 1.0, "end": 2.52, "probability": 0.8}
    assert "segments" not in body


def test_verbose_json_may_have_both_granularities():
    body = json.loads(rendered("verbose_json", granularities=["word", "segment"]))
    assert (len(body["words"]), len(body["segments"])) == (3, 2)


def test_srt_numbers_its_cues_and_rounds_to_milliseconds():
    assert rendered("srt") == (
        "1\n00:00:00,440 --> 00:00:02,520\nfive eight\n\n2\n00:00:02,520 --> 00:00:04,000\nhello\n"
    )


def test_vtt_begins_with_its_signature():
    assert rendered("vtt") == (
        "WEBVTT\n\n00:00:00.440 --> 00:00:02.520\nfive eight\n\n00:00:02.520 --> 00:00:04.000\nhello\n"
    )


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0, "00:00:00,000"),
        (59.9995, "00:01:00,000"),
        (3599.9999, "01:00:00,000"),
        (3661.001, "01:01:01,001"),
        (360000.5, "100:00:00,500"),
        (-0.01, "00:00:00,000"),
    ],
)
def test_clocks_carry_over_and_grow_beyond_99_hours(seconds, clock):
    assert rendered("srt", transcript(segment(0, seconds, seconds, "x"))).splitlines()[1].startswith(clock + " --> ")


def test_a_cue_never_ends_before_it_starts():
    assert "00:00:05,000 --> 00:00:05,000" in rendered("srt", transcript(segment(0, 5.0, 4.0, "x")))


def test_text_cannot_break_out_of_an_srt_cue():
    cue = rendered("srt", transcript(segment(0, 0, 1, "a\n\n2\n00:00:00,000 --> 00:00:01,000\nb")))
    assert cue == "1\n00:00:00,000 --> 00:00:01,000\na 2 00:00:00,000 -> 00:00:01,000 b\n"


def test_markup_is_escaped_in_vtt():
    assert "a &lt;b&gt; &amp; --&gt; c" in rendered("vtt", transcript(segment(0, 0, 1, "a <b> & --> c")))


def test_segments_without_text_make_no_cue():
    assert rendered("srt", transcript(segment(0, 0, 1, " "), segment(1, 1, 2, "x"))).startswith("1\n00:00:01,000")


def test_silence_is_an_empty_transcript_in_every_format():
    silence = transcript()
    assert json.loads(rendered("json", silence))["text"] == ""
    assert rendered("text", silence) == "\n"
    assert json.loads(rendered("verbose_json", silence))["segments"] == []
    assert rendered("srt", silence) == ""
    assert rendered("vtt", silence) == "WEBVTT\n"


def test_texts_of_all_languages_stay_as_they_are():
    assert rendered("text", transcript(segment(0, 0, 1, "xin chào 你好"))) == "xin chào 你好\n"


@pytest.mark.parametrize(
    ("response_format", "content_type"),
    [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("srt", "application/x-subrip; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
    ],
)
def test_each_format_has_its_content_type(response_format, content_type):
    assert render(HELLO, response_format)[1] == content_type
