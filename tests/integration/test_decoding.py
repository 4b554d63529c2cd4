"""How a window is searched, tried again and prompted: DecodeOptions on the real library and the fixture models.

The models know a few words, so a recording in another language than the one that is named makes them unsure: that is
where a search, a sample and a try differ.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from paths import APP
from recordings import samples
from sealed_packages import rewrite
from whisper_xeon import WhisperLibraryAdapter
from whisper_xeon.engine import UnsupportedOptionError
from whisper_xeon.engine.cli_adapter import WhisperCliAdapter
from whisper_xeon.engine.decoding import compression_ratio
from whisper_xeon.transcript import DecodeOptions, Transcript

UNSURE = [("de-00.wav", "en"), ("de-00.wav", "fr"), ("en-01.wav", "fr"), ("fr-01.wav", "vi"), ("vi-00.wav", "fr")]


@pytest.fixture(scope="module")
def small(artifacts_dir):
    with WhisperLibraryAdapter("small", artifacts_dir, audio_ctx="full") as adapter:
        yield adapter


@pytest.fixture(scope="module")
def medium(artifacts_dir):
    with WhisperLibraryAdapter("medium", artifacts_dir, audio_ctx="full") as adapter:
        yield adapter


def listen(adapter: WhisperLibraryAdapter, name: str, **options) -> Transcript:
    return adapter.transcribe_pcm(samples(name), DecodeOptions(**options))


def logprob(transcript: Transcript) -> float:
    (segment,) = transcript.segments
    return segment.avg_logprob


# The search. Which of the recordings it changes depends on the processor's rounding, so several are summed up.


def total(adapter: WhisperLibraryAdapter, **options) -> float:
    """Return the log probabilities of what is heard in the unsure recordings, added up."""
    return sum(logprob(listen(adapter, name, language=language, **options)) for name, language in UNSURE)


def test_beams_find_what_is_more_probable(small):
    assert total(small, beam_size=5) > total(small, beam_size=1) + 0.1


def test_patience_looks_further(medium):
    hasty, patient = (
        sum(logprob(listen(medium, name, beam_size=5, patience=patience)) for name in ("vi-00.wav", "en-07.wav"))
        for patience in (1.0, 4.0)
    )
    assert patient > hasty


def test_of_several_samples_the_most_probable_is_taken(small):
    assert total(small, temperature=1.0, best_of=8) > total(small, temperature=1.0) + 0.5


def test_clear_speech_is_heard_with_beams_too(small, exact_recordings):
    actual = {entry["file"]: listen(small, entry["file"], beam_size=8).text for entry in exact_recordings}
    assert actual == {entry["file"]: entry["text"] for entry in exact_recordings}


# Further tries.


def test_an_improbable_window_is_tried_again_and_the_most_probable_try_taken(small):
    temperatures = set()
    for name, language in UNSURE:
        first = listen(small, name, language=language)
        again = listen(small, name, language=language, logprob_threshold=-0.01, temperature_increment=0.2)
        assert logprob(again) >= logprob(first)
        temperatures.add(again.segments[0].temperature)
    assert max(temperatures) > 0


def test_a_window_that_repeats_itself_is_tried_again(small):
    healed = []
    for name, language in UNSURE:
        first = listen(small, name, language=language)
        threshold = compression_ratio(first.text.encode()) - 0.001
        options = {"compression_ratio_threshold": threshold, "logprob_threshold": -100.0}
        again = listen(small, name, language=language, temperature_increment=0.2, **options)
        if again.segments[0].temperature > 0:
            healed.append(compression_ratio(again.text.encode()) <= threshold)
    assert any(healed)


def test_without_an_increment_there_is_no_further_try(small):
    options = {"language": "fr", "logprob_threshold": -0.01, "temperature_increment": 0.0}
    assert listen(small, "de-00.wav", **options) == listen(small, "de-00.wav", language="fr")


def test_an_increment_that_is_too_small_is_a_tenth(small):
    """whisper.cpp lists the tries first, and with a step that does not add up until there is no memory left."""
    options = {"language": "en", "compression_ratio_threshold": 0}
    least = listen(small, "en-00.wav", temperature_increment=1e-8, **options)
    assert least == listen(small, "en-00.wav", temperature_increment=0.1, **options)


def test_text_with_a_time_in_front_and_none_after_it_is_kept(small):
    """A long window can end like that, and models that were trained with few times write nothing else."""
    times = range(50364, 51865)
    for at in (0, 10):
        kept = times[at]
        suppressed = (-1, *(token for token in times if token != kept))
        (segment,) = listen(small, "en-00.wav", language="en", vad=False, suppress_tokens=suppressed).segments
        assert segment.text.startswith(listen(small, "en-00.wav", language="en", vad=False).segments[0].text)
        assert segment.start == pytest.approx(0.02 * at)


def test_a_segment_has_the_temperature_that_was_asked_for(small):
    assert listen(small, "en-00.wav", temperature=0.5).segments[0].temperature == 0.5


def said_three_times(transcript: Transcript) -> list[str]:
    words = transcript.text.split()
    return [first for first, *others in zip(words, words[1:], words[2:], strict=False) if others == [first] * 2]


def test_what_repeats_itself_in_the_last_try_is_said_once(small):
    plain = listen(small, "long.wav", language="en")
    cut = listen(small, "long.wav", language="en", compression_ratio_threshold=0.1, temperature_increment=0.0)
    assert said_three_times(plain)
    assert not said_three_times(cut)
    assert set(cut.text.split()) == set(plain.text.split())


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("", 0.0), ("two blue yes", 12 / 20), (" two blue yes ", 12 / 20), ("ha " * 80, 239 / 14)],
)
def test_the_compression_ratio_is_openais(text, ratio):
    assert compression_ratio(text.encode()) == ratio


# Prompts and tokens.


WORDS = ("hello", "open", "eight", "blue")


def test_hot_words_stand_where_a_prompt_does(medium):
    plain = listen(medium, "en-00.wav", language="en")
    # Where the first window is the only one, nothing tells one from the other.
    assert any(
        listen(medium, "en-00.wav", language="en", prompt=word)
        == listen(medium, "en-00.wav", language="en", hotwords=word)
        != plain
        for word in WORDS
    )


def test_hot_words_are_shown_to_every_window_and_a_prompt_to_the_first(small):
    def last(**options: str) -> float:
        return listen(small, "long.wav", language="en", **options).segments[-1].avg_logprob

    plain = last()
    # A prompt may move the windows after its own, but not each prompt does.
    assert plain in [last(prompt=word) for word in WORDS]
    assert plain not in [last(hotwords=word) for word in WORDS]


def test_of_a_long_prompt_the_end_counts_and_of_long_hot_words_the_beginning(small):
    end = listen(small, "en-01.wav", language="en", prompt="hello " * 223)
    assert listen(small, "en-01.wav", language="en", prompt="open " * 100 + "hello " * 223) == end
    assert listen(small, "en-01.wav", language="en", hotwords="hello " * 223 + "open " * 100) == listen(
        small, "en-01.wav", language="en", hotwords="hello " * 223
    )


def test_the_text_of_a_window_is_shown_to_the_next_if_asked_for(medium):
    alone, conditioned = (
        listen(medium, "long.wav", language="en", condition_on_previous_text=on) for on in (False, True)
    )
    assert alone.segments[0] == conditioned.segments[0]
    assert alone.segments[-1].avg_logprob != conditioned.segments[-1].avg_logprob


def test_a_suppressed_token_is_never_chosen(small):
    plain = listen(small, "en-00.wav")
    token = plain.segments[0].tokens[1]
    assert token not in listen(small, "en-00.wav", suppress_tokens=(-1, token)).segments[0].tokens
    assert listen(small, "en-00.wav") == plain  # and not for longer than a request


def test_the_tokens_that_are_no_speech_are_openais(small):
    # openai-whisper 20250625, Tokenizer.non_speech_tokens of the multilingual vocabulary
    assert small._decoding._non_speech == (
        *(1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 359, 503, 522, 542),
        *(873, 893, 902, 918, 922, 931, 1350, 1853, 1982, 2460, 2627, 3246, 3253, 3268, 3536, 3846, 3961, 4183, 4667),
        *(6585, 6647, 7273, 9061, 9383, 10428, 10929, 11938, 12033, 12331, 12562, 13793, 14157, 14635, 15265, 15618),
        *(16553, 16604, 18362, 18956, 20075, 21675, 22520, 26130, 26161, 26435, 28279, 29464, 31650, 32302, 32470),
        *(36865, 42863, 47425, 49870, 50254),
    )


# Where there is less.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("de-00.wav", {"language": "fr", "beam_size": 5}),
        ("de-00.wav", {"language": "fr", "temperature": 1.0, "best_of": 8}),
        ("de-00.wav", {"language": "fr", "logprob_threshold": -0.01, "temperature_increment": 0.2}),
        ("en-00.wav", {"language": "en", "prompt": "open"}),
        ("en-00.wav", {"language": "en", "hotwords": "open"}),
        ("long.wav", {"language": "en", "condition_on_previous_text": True}),
    ],
)
def test_whisper_cli_decodes_as_the_library_does(small, artifacts_dir, name, options):
    with WhisperCliAdapter("small", artifacts_dir, audio_ctx="full") as cli:
        ours, theirs = (adapter.transcribe_pcm(samples(name), DecodeOptions(**options)) for adapter in (cli, small))
    assert [(s.start, s.end, s.text) for s in ours.segments] == [(s.start, s.end, s.text) for s in theirs.segments]


def test_whisper_cli_says_which_tokens_it_can_suppress(artifacts_dir):
    with (
        WhisperCliAdapter("small", artifacts_dir) as cli,
        pytest.raises(UnsupportedOptionError, match="suppress_tokens"),
    ):
        cli.transcribe_pcm(samples("en-00.wav"), DecodeOptions(suppress_tokens=(50,)))


def test_a_package_without_the_kernel_decodes_with_what_whisper_cpp_has(package_copy):
    def older(manifest):
        patches = manifest["whisper_cpp"]["patches"]
        patches.remove(next(patch for patch in patches if patch["name"] == "decoding"))

    rewrite(package_copy, older)
    code = (
        "import sys\n"
        "from recordings import samples\n"
        "from whisper_xeon import WhisperLibraryAdapter\n"
        "from whisper_xeon.engine import UnsupportedOptionError\n"
        "from whisper_xeon.transcript import DecodeOptions\n"
        "with WhisperLibraryAdapter('small', sys.argv[1]) as adapter:\n"
        "    for options in ({}, {'hotwords': 'hello'}, {'beam_size': 5}, {'suppress_tokens': (50,)}):\n"
        "        try:\n"
        "            print(adapter.transcribe_pcm(samples('en-00.wav'), DecodeOptions(**options)).text)\n"
        "        except UnsupportedOptionError as error:\n"
        "            print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{APP}:{APP.parent / 'tests' / 'support'}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(package_copy.parent)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    plain, hotwords, beams, error = done.stdout.splitlines()
    assert plain == beams == "five eight right eight down hello"
    assert hotwords != plain
    assert error.startswith("this package cannot suppress tokens of your choice: leave suppress_tokens out")
