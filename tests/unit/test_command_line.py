"""What the command finds to do, where transcripts go, and what it answers to wrong usage."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from running_service import free_port
from whisper_command import __main__ as command
from whisper_command.errors import UsageError
from whisper_command.progress import Progress
from whisper_command.remote import transcript_of
from whisper_command.work import tasks


def made(directory: Path, *names: str) -> list[Path]:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"sound")
    return [directory / name for name in names]


def targets(found) -> list[str]:
    return [str(target) for task in found for target in task.targets.values()]


def test_a_directory_means_the_recordings_below_it_in_order(tmp_path):
    made(tmp_path, "b.WAV", "a.mp3", "sub/c.opus", "notes.txt", ".hidden.wav", ".cache/d.wav")
    found = tasks([tmp_path], ["txt"], None)
    assert [task.source.relative_to(tmp_path).as_posix() for task in found] == ["a.mp3", "b.WAV", "sub/c.opus"]


def test_a_file_that_is_named_is_taken_whatever_its_suffix_and_once(tmp_path):
    (file,) = made(tmp_path, "call")
    assert [task.source for task in tasks([file, file], ["txt"], None)] == [file]


def test_transcripts_go_beside_the_recordings_or_to_the_same_place_elsewhere(tmp_path):
    made(tmp_path / "in", "a.mp3", "sub/c.opus")
    assert targets(tasks([tmp_path / "in"], ["txt", "srt"], None)) == [
        str(tmp_path / "in" / name) for name in ("a.txt", "a.srt", "sub/c.txt", "sub/c.srt")
    ]
    assert targets(tasks([tmp_path / "in"], ["txt"], tmp_path / "out")) == [
        str(tmp_path / "out" / name) for name in ("a.txt", "sub/c.txt")
    ]


def test_recordings_that_would_share_a_transcript_keep_their_suffixes(tmp_path):
    made(tmp_path, "a.mp3", "a.wav", "b.wav")
    names = [Path(target).name for target in targets(tasks([tmp_path], ["txt"], None))]
    assert names == ["a.mp3.txt", "a.wav.txt", "b.txt"]


def test_a_file_is_done_when_no_transcript_is_missing_or_older(tmp_path):
    (file,) = made(tmp_path, "a.wav")
    (task,) = tasks([file], ["txt", "srt"], None)
    assert not task.done
    task.write({"txt": b"one", "srt": b"two"})
    assert task.done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.srt", "a.txt", "a.wav"]
    os.utime(file, (2**33, 2**33))
    assert not task.done


def test_a_transcript_that_cannot_be_written_leaves_nothing(tmp_path):
    (file,) = made(tmp_path, "a.wav")
    (task,) = tasks([file], ["txt"], None)
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match=r"a\.txt"):
        task.write({"txt": b"one"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.wav"]


def test_two_recordings_never_get_one_transcript(tmp_path):
    made(tmp_path, "mon/call.wav", "tue/call.wav")
    with pytest.raises(UsageError, match=r"mon/call\.wav and .*tue/call\.wav would both become .*call\.wav\.txt"):
        tasks([tmp_path / "mon", tmp_path / "tue"], ["txt"], tmp_path / "out")
    assert len(tasks([tmp_path], ["txt"], tmp_path / "out")) == 2


def test_a_link_that_leads_nowhere_is_left_out(tmp_path):
    (file,) = made(tmp_path, "a.wav")
    (tmp_path / "b.wav").symlink_to("nowhere")
    assert [task.source for task in tasks([tmp_path], ["txt"], None)] == [file]


def test_words_go_to_the_segments_that_they_make_up():
    def segment(number: int, start: float, end: float, text: str, speaker: str) -> dict:
        rest = {"tokens": [], "avg_logprob": -0.1, "no_speech_prob": 0.1, "temperature": 0.0}
        return {"id": number, "start": start, "end": end, "text": text, "speaker": speaker, **rest}

    spoken = [("one", 0.0, 0.5), ("two", 0.5, 2.0), ("three", 1.0, 2.0)]
    answer = {
        "text": "one two three",
        "language": "english",
        "duration": 2.0,
        "task": "transcribe",
        # The sides of a call overlap.
        "segments": [segment(0, 0.0, 2.0, " one two", "left"), segment(1, 1.0, 2.0, " three", "right")],
        "words": [{"word": word, "start": start, "end": end, "probability": 0.9} for word, start, end in spoken],
    }
    found = transcript_of(answer)
    assert [[word.text for word in one.words] for one in found.segments] == [["one", "two"], ["three"]]
    assert (found.language, found.segments[1].speaker) == ("en", "right")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"call\.wav does not exist"):
        tasks([tmp_path / "call.wav"], ["txt"], None)
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        tasks([tmp_path / ("x" * 5000)], ["txt"], None)
    with pytest.raises(UsageError, match="no recording in what was named"):
        tasks([tmp_path], ["txt"], None)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--server", "ftp://stt.example"], 2, "is not the address of a service"),
        (["--server", "http://user:word@stt.example"], 2, "is not the address of a service"),
        (["--server", "http://h:abc"], 2, "is not the address of a service"),
        (["--server", "http://[::1"], 2, "is not the address of a service"),
        (["--server", "h:99999"], 2, "is not the address of a service"),
        (["--server", f"127.0.0.1:{free_port()}"], 3, "no service answers at"),
        (["--server", "http://127.0.0.1:1", "--model", "base"], 2, "--model is for a model of one's own"),
        (["--server", "http://127.0.0.1:1", "--key-file", "/nowhere/key"], 2, "/nowhere/key cannot be read"),
        (
            ["--server", "http://127.0.0.1:1", "--key-file", "/dev/zero"],
            2,
            "/dev/zero cannot be read: not a regular file",
        ),
        (["--language", "Klingon"], 2, "knows no language 'Klingon'"),
        (["--model", "base", "--artifacts-dir", "/nowhere"], 2, "WHISPER_ARTIFACTS_DIR"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, monkeypatch, arguments, status, said):
    monkeypatch.delenv("WHISPER_XEON_SERVER", raising=False)
    (file,) = made(tmp_path, "a.wav")
    assert command.main(["transcribe", str(file), "--quiet", *arguments]) == status
    written = capsys.readouterr().err
    assert said in written
    assert written.count("\n") == 1


def test_a_terminal_has_one_line_and_problems_above_it():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    output = Terminal()
    progress = Progress(2, 200, quiet=False, output=output)
    progress.finished("a.wav", 100, "the file is empty")
    progress.end()
    assert "whisper-xeon: a.wav: the file is empty\n" in output.getvalue()
    assert "1 of 2 files, less than a minute left" in output.getvalue()
    assert output.getvalue().count("\n") == 1
    assert output.getvalue().endswith("\r\x1b[K")
