"""How much of its window a short clip gets, and when that was too little. With real networks: test_real_words.py."""

import pytest

from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.engine.context import first_try, is_doubtful, positions
from whisper_xeon.transcript import DecodeOptions, Segment, Transcript


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.1, 512), (8.2, 512), (8.3, 768), (11, 768), (13.4, 1024), (23.6, 1280), (23.7, 0), (30, 0), (600, 0)],
)
def test_a_clip_gets_two_seconds_more_and_then_no_position_that_attention_would_take_for_sound(seconds, expected):
    assert positions(round(seconds * SAMPLE_RATE), 1500) == expected


def test_an_encoder_that_has_less_gets_no_more_than_it_has():
    assert positions(SAMPLE_RATE, 600) == 512
    assert positions(SAMPLE_RATE, 512) == 0


def transcript(*texts: str, logprob: float = -0.2, silent: float = 0.1) -> Transcript:
    segments = [Segment(0, 0.0, 1.0, text, (1, 2, 3), logprob, silent) for text in texts]
    return Transcript("", "en", 0.9, 5.0, "transcribe", ()).with_segments(segments)


def test_what_is_said_for_certain_is_not_decoded_again():
    assert not is_doubtful(transcript(" Ask not what your country", " can do for you."), DecodeOptions())


def test_what_is_improbable_is_doubtful_and_nothing_too():
    assert is_doubtful(transcript(" Ask not", logprob=-0.75), DecodeOptions())
    assert is_doubtful(transcript(), DecodeOptions())


def test_text_in_what_is_probably_silence_is_doubtful():
    assert is_doubtful(transcript(" .", silent=0.95), DecodeOptions())


def test_a_caller_may_doubt_more_but_not_less():
    assert is_doubtful(transcript(" Ask not"), DecodeOptions(logprob_threshold=-0.1))
    assert is_doubtful(transcript(" Ask not", logprob=-0.75), DecodeOptions(logprob_threshold=-5))


def test_what_repeats_itself_is_doubtful_by_the_callers_measure():
    again_and_again = transcript(" and so" * 20)
    assert is_doubtful(again_and_again, DecodeOptions())
    assert not is_doubtful(again_and_again, DecodeOptions(compression_ratio_threshold=100))


def test_the_first_try_is_the_only_one_with_less_than_a_window_and_is_not_mended():
    asked = DecodeOptions(language="de", beam_size=5, compression_ratio_threshold=2.4)
    tried = first_try(asked)
    assert (tried.language, tried.beam_size, tried.temperature_increment) == ("de", 5, 0.0)
    assert tried.compression_ratio_threshold > 1000
