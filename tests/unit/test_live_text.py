"""The text of a request as it grows, also where its worker is lost in the middle."""

from __future__ import annotations

import pytest

from whisper_xeon.engine.live_text import LiveText
from whisper_xeon.engine.outcome import TextChanged
from whisper_xeon.transcript import Transcript


@pytest.fixture
def read() -> list[str]:
    return []


@pytest.fixture
def live(read) -> LiveText:
    live = LiveText(lambda language, text: read.append(text))
    live.begin()
    return live


def transcript(text: str) -> Transcript:
    return Transcript(text, "en", None, 1.0, "transcribe", ())


def test_the_parts_are_the_text(live, read):
    live.add("en", [" Ask", " what you"])
    live.add("en", [" can do.", " "])
    live.finish(transcript("Ask what you can do. Now."))
    assert read == ["Ask what you", " can do.", " Now."]


def test_another_attempt_passes_on_only_what_goes_beyond(live, read):
    live.add("en", [" one two"])
    live.begin()
    live.add("en", [" one"])
    live.add("en", [" two three"])
    live.finish(transcript("one two three"))
    assert read == ["one two", " three"]


def test_what_was_passed_on_is_never_taken_back(live):
    live.add("en", [" one two"])
    live.begin()
    with pytest.raises(TextChanged):
        live.add("en", [" one too"])


@pytest.mark.parametrize("text", ["one", "two", "one too many"])
def test_the_whole_text_begins_with_what_was_passed_on(live, text):
    live.add("en", [" one two"])
    with pytest.raises(TextChanged):
        live.finish(transcript(text))


def test_without_text_nobody_is_told(live, read):
    live.add("en", [" "])
    live.finish(transcript(""))
    assert read == []
