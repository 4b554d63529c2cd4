"""What clients write into fields, and what it means: every spelling of the well-known ones, and what is rejected."""

from __future__ import annotations

import json

import pytest

from whisper_xeon.transcript import DecodeOptions
from whisper_xeon.web.api_table import ENDPOINTS
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.fields import Asked, json_fields, merge, query_fields, read_fields

ENDPOINT = {endpoint.name: endpoint for endpoint in ENDPOINTS}


def asked(*fields: tuple[str, str], endpoint: str = "transcriptions", strict: bool = False) -> Asked:
    """Return what a form of these fields asks for."""
    values = merge(*({name: [value]} for name, value in fields))
    return read_fields(values, ENDPOINT[endpoint], strict=strict)


def options(*fields: tuple[str, str], endpoint: str = "transcriptions", base: DecodeOptions | None = None):
    return asked(*fields, endpoint=endpoint).decode_options(base or DecodeOptions(), ENDPOINT[endpoint].always)


def refusal(*fields: tuple[str, str], endpoint: str = "transcriptions", strict: bool = False) -> HttpError:
    with pytest.raises(HttpError) as caught:
        asked(*fields, endpoint=endpoint, strict=strict)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("name", "value", "option", "meaning"),
    [
        ("language", "de", "language", "de"),
        ("language", "German", "language", "de"),
        ("language", "zh_TW", "language", "zh"),
        ("lang", "EN-us", "language", "en"),
        ("task", "translate", "task", "translate"),
        ("prompt", "five, eight", "prompt", "five, eight"),
        ("initial_prompt", "five, eight", "prompt", "five, eight"),
        ("initialPrompt", "five, eight", "prompt", "five, eight"),
        ("hotwords", "Xeon", "hotwords", "Xeon"),
        ("temperature", "0.2", "temperature", 0.2),
        ("temperature", "1", "temperature", 1.0),
        ("temperature", "2e-1", "temperature", 0.2),
        ("temperature", "0,5", "temperature", 0.5),
        ("logprob_threshold", "-0,5", "logprob_threshold", -0.5),
        ("translate", "true", "task", "translate"),
        ("translate", "false", "task", "transcribe"),
        ("temperature_inc", "0.2", "temperature_increment", 0.2),
        ("temperature_increment_on_fallback", ".2", "temperature_increment", 0.2),
        ("beam_size", "5", "beam_size", 5),
        ("beam-size", "5.0", "beam_size", 5),
        ("beamSize", "8", "beam_size", 8),
        ("beam_size", "-1", "beam_size", 1),
        ("best_of", "2", "best_of", 2),
        ("patience", "1.5", "patience", 1.5),
        ("condition_on_previous_text", "True", "condition_on_previous_text", True),
        ("suppress_tokens", "-1", "suppress_tokens", (-1,)),
        ("suppress_tokens", "1, 2,50257", "suppress_tokens", (1, 2, 50257)),
        ("suppress_tokens", "[-1, 5]", "suppress_tokens", (-1, 5)),
        ("suppress_tokens", "[]", "suppress_tokens", ()),
        ("compression_ratio_threshold", "2", "compression_ratio_threshold", 2.0),
        ("logprob_threshold", "-0.5", "logprob_threshold", -0.5),
        ("log_prob_threshold", "-0.5", "logprob_threshold", -0.5),
        ("logprob_thold", "-0.5", "logprob_threshold", -0.5),
        ("no_speech_threshold", "0.3", "no_speech_threshold", 0.3),
        ("no_speech_thold", "0.3", "no_speech_threshold", 0.3),
        ("word_timestamps", "1", "word_timestamps", True),
        ("vad", "false", "vad", False),
        ("vad_filter", "off", "vad", False),
        ("vad_threshold", "0.35", "vad_threshold", 0.35),
        ("vad_min_silence_duration_ms", "100", "vad_min_silence_ms", 100),
        ("vad_speech_pad_ms", "30", "vad_speech_pad_ms", 30),
        ("vad_parameters", '{"min_silence_duration_ms": 500}', "vad_min_silence_ms", 500),
        ("vad_parameters[speech_pad_ms]", "60", "vad_speech_pad_ms", 60),
        ("diarize", "channel", "diarize", "channel"),
        ("diarize", "false", "diarize", ""),
    ],
)
def test_a_field_sets_the_option_of_its_name(name, value, option, meaning):
    assert getattr(options((name, value)), option) == meaning


@pytest.mark.parametrize("nothing", ["", " ", "null", "undefined", "None", "NULL"])
@pytest.mark.parametrize(
    "name",
    ["language", "temperature", "prompt", "beam_size", "vad", "response_format", "timestamp_granularities[]", "stream",
     "chunking_strategy", "suppress_tokens", "include[]", "model", "diarize"],
)  # fmt: skip
def test_what_stands_for_nothing_means_left_out(name, nothing):
    base = DecodeOptions(language="vi", beam_size=3, vad=False)
    assert options((name, nothing), base=base) == base
    assert asked((name, nothing)) == Asked({})


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "segment"), ("timestamp_granularities", "word")],
        [("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
        [("timestamp_granularities", "word,segment")],
        [("timestamp_granularities", "segment, word")],
        [("timestamp_granularities[]", '["word", "segment"]')],
        [("timestampGranularities", "words,segments")],
        [("timestamp_granularities", "['word', 'segment']")],
        [("timestamp_granularities[]", '["word"]'), ("timestamp_granularities[]", "['segment']")],
        [("timestamp_granularities", '["word"]'), ("timestamp_granularities", "segment,word")],
        [("timestamp_granularities[]", "word"), ("timestamp_granularities", "Segment")],
    ],
)
@pytest.mark.parametrize("response_format", ["json", "srt", "verbose_json", ""])
def test_granularities_come_in_every_spelling_and_with_any_format(fields, response_format):
    assert asked(*fields, ("response_format", response_format)).granularities == ("segment", "word")


@pytest.mark.parametrize(
    "fields",
    [
        [("include[]", "logprobs")],
        [("include", "logprobs")],
        [("include[0]", "logprobs")],
        [("include", '["logprobs"]')],
    ],
)
def test_logprobs_may_be_included(fields):
    assert asked(*fields).include == ("logprobs",)


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy", '{"type": "server_vad", "threshold": 0.6, "silence_duration_ms": 300}')],
        [("chunking_strategy", '{"threshold": 0.6, "silence_duration_ms": 300, "prefix_padding_ms": null}')],
        [
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[threshold]", "0.6"),
            ("chunking_strategy[silence_duration_ms]", "300"),
        ],
    ],
)
def test_a_chunking_strategy_sets_the_voice_detection(fields):
    chosen = options(*fields, base=DecodeOptions(vad=False))
    assert (chosen.vad, chosen.vad_threshold, chosen.vad_min_silence_ms) == (True, 0.6, 300)


@pytest.mark.parametrize("value", ["auto", "server_vad", '{"type": "server_vad"}', '{"type": "auto"}'])
def test_a_chunking_strategy_without_numbers_switches_the_voice_detection_on(value):
    assert options(("chunking_strategy", value), base=DecodeOptions(vad=False)) == DecodeOptions(vad=True)


@pytest.mark.parametrize(
    ("fields", "option", "meaning"),
    [
        ([("translate", "true"), ("task", "transcribe")], "task", "transcribe"),
        ([("no_context", "true")], "condition_on_previous_text", False),
        ([("no_context", "false")], "condition_on_previous_text", True),
        ([("suppress_nst", "false")], "suppress_tokens", ()),
        ([("suppress_non_speech", "true")], "suppress_tokens", (-1,)),
        ([("detect_language", "true")], "language", None),
        ([("diarize", "true")], "diarize", "channel"),
        ([("beam_size", "-1"), ("best_of", "2")], "best_of", 2),
    ],
)
def test_whisper_cpps_fields_say_what_they_say_there(fields, option, meaning):
    base = DecodeOptions(language="vi", condition_on_previous_text=True)
    assert getattr(options(*fields, endpoint="inference", base=base), option) == meaning


@pytest.mark.parametrize(
    ("output", "response_format"),
    [("txt", "text"), ("TXT", "text"), ("vtt", "vtt"), ("srt", "srt"), ("tsv", "tsv"), ("json", "json")],
)
def test_the_web_services_output_is_a_format(output, response_format):
    assert asked(("output", output), endpoint="asr").response_format == response_format


@pytest.mark.parametrize(("value", "encode"), [("false", False), ("0", False), ("true", True), ("", True)])
@pytest.mark.parametrize("endpoint", ["asr", "detect_language"])
def test_the_web_services_encode_says_whether_the_file_has_a_header(endpoint, value, encode):
    assert asked(("encode", value), endpoint=endpoint).encode == encode


def test_elsewhere_encode_has_no_effect():
    assert asked(("encode", "false")).encode


def test_an_endpoint_that_translates_does_whatever_is_asked():
    assert options(("task", "transcribe"), endpoint="translations").task == "translate"
    assert options(("translate", "false"), endpoint="translations").task == "translate"


def test_auto_detects_even_where_the_operator_set_a_language():
    assert options(("language", "auto"), base=DecodeOptions(language="vi")).language is None


def test_a_prompt_that_is_too_long_keeps_its_end():
    assert options(("prompt", "x" * 9000 + "end")).prompt == "x" * 4093 + "end"


def test_control_characters_of_a_text_become_spaces():
    assert options(("prompt", "a\0b\tc\nd\x1be")).prompt == "a b\tc\nd e"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("language", "klingon", "a language by code, name or locale, such as de, German or de-DE, or auto"),
        ("response_format", "xml", "one of json, text, verbose_json, srt, vtt, tsv, diarized_json"),
        ("temperature", "warm", "a number from 0 to 1"),
        ("temperature", "1.1", "a number from 0 to 1"),
        ("temperature", "nan", "a number from 0 to 1"),
        ("temperature", "1_0", "a number from 0 to 1"),
        ("temperature", "0,5,1", "a number from 0 to 1"),
        ("beam_size", "1,000", "a whole number from 1 to 8"),
        ("temperature", "1e-9999", "a number from 0 to 1"),
        ("beam_size", "9", "a whole number from 1 to 8"),
        ("beam_size", "2.5", "a whole number from 1 to 8"),
        ("beam_size", "0", "a whole number from 1 to 8"),
        ("best_of", "inf", "a whole number from 1 to 8"),
        ("vad", "maybe", "true or false"),
        ("timestamp_granularities[]", "letter", "segment or word"),
        ("timestamp_granularities[]", "[1", "segment or word"),
        ("timestamp_granularities[]", "[" * 9000, "segment or word"),
        ("include[]", "everything", "logprobs"),
        ("suppress_tokens", "a", "a list of at most 512 numbers"),
        ("suppress_tokens", "-2", "a list of at most 512 numbers"),
        ("suppress_tokens", "1," * 600, "a list of at most 512 numbers"),
        ("suppress_tokens", "[[1]]", "a list of at most 512 numbers"),
        ("chunking_strategy", "loud", "auto or a JSON object of type, threshold"),
        ("chunking_strategy", '["auto"]', "auto or a JSON object of type, threshold"),
        ("chunking_strategy", '{"type": "client_vad"}', "auto or a JSON object of type, threshold"),
        ("chunking_strategy", '{"threshold": "loud"}', "auto or a JSON object of type, threshold"),
        ("chunking_strategy[threshold]", "loud", "auto or a JSON object of type, threshold"),
        ("chunking_strategy", '{"threshold": 2}', "auto or a JSON object of type, threshold"),
        ("chunking_strategy", '{"a":' * 5000, "auto or a JSON object of type, threshold"),
    ],
)
def test_a_value_at_fault_is_named_with_what_is_allowed(name, value, allowed):
    error = refusal((name, value))
    assert (error.code, error.param) == ("invalid_value", name)
    assert f"it must be {allowed}" in error.message


@pytest.mark.parametrize(
    ("name", "value", "endpoint", "instead"),
    [
        ("diarize", "true", "transcriptions", "use diarize=channel"),
        ("diarize", "speaker", "inference", "use diarize=channel"),
        ("diarize", "true", "asr", "use diarize=channel"),
    ],
)
def test_what_is_not_available_is_refused_by_name(name, value, endpoint, instead):
    error = refusal((name, value), endpoint=endpoint)
    assert (error.code, error.param) == ("unsupported_value", name)
    assert instead in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("stream", "false"), ("stream", "False"), ("user", "me"), ("api-version", "2024-06-01"), ("encode", "true")],
)
def test_what_clients_send_by_themselves_is_accepted_silently(name, value):
    assert asked((name, value), strict=True) == Asked({})


STREAMING = ["gpt-4o-transcribe", "GPT-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15"]


@pytest.mark.parametrize("response_format", ["", "json", "verbose_json", "diarized_json"])
@pytest.mark.parametrize("model", ["small", "default", "openai/whisper-large-v3", *STREAMING])
@pytest.mark.parametrize("endpoint", ["transcriptions", "translations", "transcribe", "inference"])
def test_json_streams_where_a_model_is_named(model, endpoint, response_format):
    fields = ("stream", "true"), ("model", model), ("response_format", response_format)
    found = asked(*fields, endpoint=endpoint, strict=True)
    assert (found.stream, found.ignored) == (True, ())


@pytest.mark.parametrize(
    ("endpoint", "model", "response_format"),
    [
        ("transcriptions", "", "json"),
        ("transcriptions", "whisper-1", "json"),
        ("inference", "Whisper-1", "verbose_json"),
        ("transcriptions", "small", "text"),
        ("transcribe", "small", "srt"),
        ("asr", "small", ""),
        ("detect_language", "small", ""),
    ],
)
def test_a_stream_is_passed_over_and_named_where_nobody_waits_for_it(endpoint, model, response_format):
    """As OpenAI does for whisper-1."""
    fields = ("stream", "true"), ("model", model), ("response_format", response_format)
    found = asked(*fields, endpoint=endpoint)
    assert not found.stream
    assert "stream" in found.ignored


@pytest.mark.parametrize("model", STREAMING)
@pytest.mark.parametrize(("endpoint", "response_format"), [("transcriptions", "srt"), ("asr", "")])
def test_a_client_that_waits_for_events_is_told_where_there_are_none(model, endpoint, response_format):
    error = refusal(("Stream", "1"), ("model", model), ("response_format", response_format), endpoint=endpoint)
    assert (error.code, error.param) == ("unsupported_value", "Stream")
    assert "leave stream out" in error.message


def test_what_has_an_effect_elsewhere_only_is_accepted_and_named():
    assert asked(("length_penalty", "1"), ("user", "me"), strict=True).ignored == ("length_penalty",)


def test_what_is_not_known_is_accepted_and_named():
    assert asked(("langauge", "en"), ("foo[bar]", "x")).ignored == ("langauge", "foo[bar]")


@pytest.mark.parametrize(
    ("name", "hint"), [("langauge", "did you mean language?"), ("qwertz", "allowed are file, model, language")]
)
def test_what_is_not_known_may_be_rejected_with_the_closest_name(name, hint):
    error = refusal((name, "en"), strict=True)
    assert (error.code, error.param) == ("unknown_field", name)
    assert hint in error.message


def test_a_field_with_two_values_is_refused_by_name():
    assert refusal(("language", "en"), ("language", "de")).param == "language"
    assert refusal(("prompt", "a"), ("initial_prompt", "b")).param == "prompt"


def test_a_field_with_one_value_twice_has_that_value():
    assert options(("language", "en"), ("language", "en"), ("language", "")).language == "en"


def test_a_query_is_utf_8_with_or_without_escapes():
    assert query_fields("prompt=caf%C3%A9+au&language=&a%5Bb%5D=c") == {
        "prompt": ["café au"],
        "language": [""],
        "a[b]": ["c"],
    }


@pytest.mark.parametrize("query", ["prompt=%E9", "&".join(f"f{n}=x" for n in range(130))])
def test_a_malformed_query_is_refused(query):
    with pytest.raises(HttpError) as caught:
        query_fields(query)
    assert (caught.value.status, caught.value.code) == (400, "invalid_query")


def test_json_has_every_type_of_value():
    body = {"a": "é", "b": True, "c": None, "d": 0.5, "e": ["x", 1], "f": {"g": {"h": 1}}}
    assert json_fields(b"\xef\xbb\xbf" + json.dumps(body).encode(), "") == {
        "a": ["é"],
        "b": ["true"],
        "d": ["0.5"],
        "e": ['["x", 1]'],
        "f": ['{"g": {"h": 1}}'],
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"{'a': 1}", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": "\xff"}',
     b'{"a":' * 9000, b'{"a":' + b"[" * 9000, b'{"a": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_json_object_is_refused_with_what_to_send(body):
    with pytest.raises(HttpError) as caught:
        json_fields(body, "send a file")
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert "send a file" in caught.value.message
