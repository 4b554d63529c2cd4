"""The drop-in's files are the original's, byte for byte, for what that made of ten clips and for odd segments."""

from __future__ import annotations

import io
import json

import pytest

from paths import FIXTURES
from whisper.utils import WriteJSON, WriteSRT, WriteTSV, WriteTXT, WriteVTT, format_timestamp, get_writer

RECORDED = json.loads((FIXTURES / "openai_whisper" / "writers.json").read_text("utf-8"))
AUDIO = "somewhere/clip.x.wav"


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["case"])
def test_files_are_those_of_the_original(recorded, tmp_path):
    for expected in recorded["written"]:
        get_writer("all", tmp_path)(recorded["result"], AUDIO, **expected["options"])
        for suffix, text in expected["files"].items():
            made = (tmp_path / f"clip.x.{suffix}").read_bytes()
            assert made == text.encode("utf-8"), (expected["options"], suffix)


def test_options_may_be_a_dictionary_as_well(tmp_path):
    (recorded,) = (one for one in RECORDED if one["case"] == "words")
    (expected,) = (one for one in recorded["written"] if one["options"] == {"max_line_width": 20, "max_line_count": 2})
    get_writer("srt", tmp_path)(recorded["result"], AUDIO, expected["options"])
    assert [path.name for path in tmp_path.iterdir()] == ["clip.x.srt"]
    assert (tmp_path / "clip.x.srt").read_text("utf-8") == expected["files"]["srt"]


@pytest.mark.parametrize("writer", [WriteTXT, WriteVTT, WriteSRT, WriteTSV, WriteJSON])
def test_each_format_has_a_writer_of_its_own_that_takes_open_files(writer, tmp_path):
    (recorded,) = (one for one in RECORDED if one["case"] == "words")
    expected = recorded["written"][0]["files"]
    writer(tmp_path)(recorded["result"], AUDIO)
    (made,) = tmp_path.iterdir()
    stream = io.StringIO()
    writer(tmp_path).write_result(recorded["result"], file=stream)
    assert stream.getvalue() == made.read_text("utf-8") == expected[made.suffix[1:]]


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0, "00:00.000"),
        (59.9996, "01:00.000"),
        (3599.9994, "59:59.999"),
        (3600, "01:00:00.000"),
        (360000, "100:00:00.000"),
    ],
)
def test_hours_are_left_out_while_there_are_none(seconds, clock):
    assert format_timestamp(seconds) == clock


def test_a_format_that_there_is_not_is_named(tmp_path):
    with pytest.raises(ValueError, match="use txt, vtt, srt, tsv, json or all, not 'docx'"):
        get_writer("docx", tmp_path)
