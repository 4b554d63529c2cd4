"""A transcript in each format: shapes of OpenAI, valid subtitles and tables."""

from __future__ import annotations

import json

import pytest

from whisper_xeon.formats import FORMATS, Shape, openai_whisper_json, render
from whisper_xeon.transcript import Segment, TokenLogprob, Transcript, Word


def segment(number: int, start: float, end: float, text: str, *words: Word, **more) -> Segment:
    return Segment(number, start, end, text, (1, 2), -0.25, 0.125, words, **more)


def transcript(*segments: Segment) -> Transcript:
    text = "".join(one.text for one in segments).strip()
    return Transcript(text, "en", 0.987654, 8.47, "transcribe", segments)


HELLO = transcript(
    segment(0, 0.44, 2.52, " five eight", Word("five", 0.44, 1.0, 0.9), Word("eight", 1.0, 2.52, 0.8)),
    segment(1, 2.52, 3.9996, " hello", Word("hello", 2.52, 3.9996, 0.7)),
)


def rendered(response_format: str, value: Transcript = HELLO, **shape) -> str:
    return render(value, response_format, Shape(**shape))[0].decode()


def test_json_holds_the_text_and_the_seconds_used():
    assert json.loads(rendered("json")) == {
        "text": "five eight hello",
        "usage": {"type": "duration", "seconds": 9},
    }


def test_text_is_one_line():
    assert rendered("text") == "five eight hello\n"


def test_verbose_json_has_openais_fields():
    hello = transcript(segment(0, 0.44, 2.52, " five eight", temperature=0.2))
    body = json.loads(rendered("verbose_json", hello, segments=True))
    assert body["segments"][0] == {
        "id": 0,
        "seek": 44,
        "start": 0.44,
        "end": 2.52,
        "text": " five eight",
        "tokens": [1, 2],
        "temperature": 0.2,
        "avg_logprob": -0.25,
        "probability": 0.7788,
        "compression_ratio": pytest.approx(11 / 19, abs=1e-6),
        "no_speech_prob": 0.125,
    }
    del body["segments"]
    assert body == {
        "task": "transcribe",
        "language": "english",
        "duration": 8.47,
        "text": "five eight",
        "language_probability": 0.9877,
        "usage": {"type": "duration", "seconds": 9},
    }


def test_verbose_json_lists_words_when_asked_for():
    body = json.loads(rendered("verbose_json", words=True))
    assert body["words"][1] == {"word": "eight", "start": 1.0, "end": 2.52, "probability": 0.8}
    assert "segments" not in body


def test_verbose_json_may_have_both_granularities():
    body = json.loads(rendered("verbose_json", words=True, segments=True))
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
    assert json.loads(rendered("verbose_json", silence, segments=True))["segments"] == []
    assert json.loads(rendered("diarized_json", silence))["segments"] == []
    assert rendered("srt", silence) == ""
    assert rendered("vtt", silence) == "WEBVTT\n"
    assert rendered("tsv", silence) == "start\tend\ttext\n"


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
        ("tsv", "text/tab-separated-values; charset=utf-8"),
        ("diarized_json", "application/json"),
    ],
)
def test_each_format_has_its_content_type(response_format, content_type):
    assert render(HELLO, response_format, Shape())[1] == content_type


@pytest.mark.parametrize("response_format", FORMATS)
def test_a_lone_surrogate_breaks_no_answer(response_format):
    rendered(response_format, transcript(segment(0, 0, 1, " a\ud800b")), segments=True)


def test_the_texts_of_the_segments_joined_are_the_text():
    body = json.loads(rendered("verbose_json", segments=True))
    assert "".join(one["text"] for one in body["segments"]).strip() == body["text"] == "five eight hello"


def test_json_has_words_or_segments_when_asked_for():
    assert json.loads(rendered("json", words=True)).keys() == {"text", "words", "usage"}
    assert json.loads(rendered("json", segments=True)).keys() == {"text", "segments", "usage"}


def test_logprobs_have_each_token_with_its_bytes():
    halves = (TokenLogprob((32, 0xC3), -0.5), TokenLogprob((0xA9,), -0.25))
    body = json.loads(rendered("json", transcript(segment(0, 0, 1, " é", token_logprobs=halves)), logprobs=True))
    assert body["logprobs"] == [
        {"token": " \ufffd", "logprob": -0.5, "bytes": [32, 0xC3]},
        {"token": "\ufffd", "logprob": -0.25, "bytes": [0xA9]},
    ]
    assert bytes(byte for token in body["logprobs"] for byte in token["bytes"]).decode() == " é"


def test_words_may_be_in_their_segments():
    body = json.loads(rendered("verbose_json", segments=True, words=True, words_in_segments=True))
    assert [len(one["words"]) for one in body["segments"]] == [2, 1]
    assert "words" not in body


def test_openai_whispers_json_names_the_language_by_its_code():
    body = json.loads(openai_whisper_json(HELLO, Shape(segments=True)))
    assert (body["language"], body["text"], len(body["segments"])) == ("en", "five eight hello", 2)


def test_tsv_is_a_table_of_milliseconds():
    table = rendered("tsv", transcript(segment(0, 0.44, 2.52, " a\tb\nc"), segment(1, 5.0, 4.0, " d")))
    assert table == "start\tend\ttext\n440\t2520\ta b c\n5000\t5000\td\n"


SIDES = transcript(segment(0, 0, 1, " hello", speaker="left"), segment(1, 1, 2, " yes", speaker="right"))


def test_diarized_json_has_openais_segments_with_their_speaker():
    body = json.loads(rendered("diarized_json", SIDES))
    assert body["segments"][1] == {
        "type": "transcript.text.segment",
        "id": "seg_001",
        "start": 1.0,
        "end": 2.0,
        "text": " yes",
        "speaker": "right",
    }
    assert body["text"] == "hello yes"


def test_captions_say_which_side_speaks():
    assert rendered("srt", SIDES).splitlines()[2] == "[left]: hello"
    assert rendered("vtt", SIDES).splitlines()[3] == "<v left>hello"


def test_a_transcript_is_the_same_after_it_was_json():
    given = transcript(segment(0, 0, 1, " é", Word("é", 0, 1, 0.5), token_logprobs=(TokenLogprob((32,), -0.5),)))
    assert Transcript.from_dict(json.loads(json.dumps(given.to_dict()))) == given
