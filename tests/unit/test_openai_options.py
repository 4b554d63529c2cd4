"""Every option of the original has its name and default here, and means what it means there or is refused by name."""

from __future__ import annotations

import json

import pytest

from paths import FIXTURES
from whisper import command
from whisper.options import TEMPERATURES, Refused, plan
from whisper_xeon.languages import LANGUAGES

ORIGINAL = json.loads((FIXTURES / "openai_whisper" / "options.json").read_text("utf-8"))


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        command.main(["clip.wav", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def decoded(**options):
    return plan(**options).decode


def test_options_and_defaults_are_those_of_the_original():
    own = {" ".join(one.option_strings): one.default for one in command._parser()._actions[1:] if one.option_strings}
    assert own.pop("--device") == "auto"
    assert own == {name: default for name, default in ORIGINAL.items() if name != "--device"}


def test_the_defaults_of_the_command_reach_the_engine():
    asked = plan(
        temperature=command._temperatures(0, 0.2),
        best_of=5,
        beam_size=5,
        patience=None,
        length_penalty=None,
        suppress_tokens="-1",
    )
    decode = asked.decode
    assert (decode.beam_size, decode.best_of, decode.patience, decode.vad) == (5, 5, 1.0, False)
    assert (decode.temperature, asked.tuning.temperature_step, asked.tuning.length_penalty) == (0.0, 0.2, None)
    assert (decode.condition_on_previous_text, decode.suppress_tokens) == (True, (-1,))
    assert asked.clips == ((0.0, None),)


@pytest.mark.parametrize("spelling", ["German", "german", "de", "DE", "de-DE", "deu"])
def test_languages_are_taken_in_any_spelling(spelling):
    assert decoded(language=spelling).language == "de"


def test_every_language_of_whisper_is_taken_by_its_code_and_by_its_name():
    for code, name in LANGUAGES.items():
        assert decoded(language=code).language == decoded(language=name.title()).language == code


@pytest.mark.parametrize("nothing", [None, "None", "auto", ""])
def test_no_language_has_it_detected(nothing):
    assert decoded(language=nothing).language is None


@pytest.mark.parametrize(
    ("first", "step", "tries"),
    [
        (0, 0.2, TEMPERATURES),
        (0.4, 0.2, (0.4, 0.6, 0.8, 1.0)),
        (0.5, None, (0.5,)),
        (0, 0.7, (0.0, 0.7)),
        (1, 0.2, (1,)),
    ],
)
def test_tries_are_those_of_the_original(first, step, tries):
    assert command._temperatures(first, step) == pytest.approx(tries)
    asked = plan(temperature=command._temperatures(first, step))
    assert (asked.decode.temperature, asked.tuning.temperature_step) == (
        pytest.approx(tries[0]),
        pytest.approx(step if len(tries) > 1 else 0),
    )


@pytest.mark.parametrize(
    ("text", "clips"),
    [
        ("0", ((0, None),)),
        ("", ((0, None),)),
        ("1.5", ((1.5, None),)),
        ("0,2,3.5,5", ((0, 2), (3.5, 5))),
        ([0, 2, 4], ((0, 2), (4, None))),
    ],
)
def test_clips_are_pairs_of_seconds_and_the_last_reaches_to_the_end(text, clips):
    assert plan(clip_timestamps=text).clips == clips


def test_a_prompt_goes_before_the_first_window_or_before_each():
    first, each = decoded(initial_prompt=" Kraków "), decoded(initial_prompt="Kraków", carry_initial_prompt=True)
    assert (first.prompt, first.hotwords, each.prompt, each.hotwords) == ("Kraków", "", "", "Kraków")


@pytest.mark.parametrize(
    ("given", "tokens"), [("-1", (-1,)), ("", ()), (None, ()), ("-1,50,7", (-1, 50, 7)), ([5], (5,))]
)
def test_tokens_to_suppress(given, tokens):
    assert decoded(suppress_tokens=given).suppress_tokens == tokens


def test_a_threshold_of_none_is_never_reached():
    decode = decoded(compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None)
    assert decode.compression_ratio_threshold > 1e6
    assert decode.logprob_threshold < -1e6
    assert decode.no_speech_threshold > 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hallucination_silence_threshold", "2"),
        ("--prepend_punctuations", "«"),
        ("--append_punctuations", "»"),
        ("--logprob_threshold", "None"),
        ("--temperature_increment_on_fallback", "0"),
        ("--temperature", "1.5"),
        ("--beam_size", "9"),
        ("--best_of", "0"),
        ("--patience", "0"),
        ("--length_penalty", "2"),
        ("--suppress_tokens", "the"),
        ("--suppress_tokens", "70000"),
        ("--clip_timestamps", "5,3"),
        ("--clip_timestamps", "nan"),
        ("--language", "Klingon"),
        ("--device", "toaster"),
        ("--highlight_words", "True"),
        ("--max_line_width", "20"),
        ("--verbose", "yes"),
        ("--output_format", "docx"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name_before_anything_is_loaded(capsys, arguments):
    assert arguments[0] in refused(capsys, *arguments)


@pytest.mark.parametrize("name", ["sample_len", "prefix"])
def test_so_are_arguments_that_the_command_has_not(name):
    with pytest.raises(Refused, match=f"^{name}: .*leave it out"):
        plan(**{name: 1})


def test_arguments_that_there_are_not_are_type_errors():
    with pytest.raises(TypeError, match="beam_sice"):
        plan(beam_sice=5)


def test_tries_must_rise_evenly_as_far_as_one():
    for tries in ((0.0, 0.1, 0.5), (0.0, 0.2), (0.0, 0.6, 1.2), (0.5, 0.2)):
        with pytest.raises(Refused, match="temperature"):
            plan(temperature=tries)
