"""Files named in settings: a FIFO, a device, a directory or a huge file is one line, and nobody waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paths import APP
from whisper_package.small_files import MOST, read_small, text_of


@pytest.fixture
def strange(tmp_path) -> dict[str, str]:
    """What somebody may name in the place of a file, by what it is."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(b"x" * (8 * MOST))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    return {
        **{name: str(tmp_path / name) for name in ("fifo", "huge", "binary", "missing")},
        "directory": str(tmp_path),
        "endless": "/dev/zero",
        "long": "/" + "a" * 5000,
    }


WHY = {
    "fifo": "not a regular file",
    "endless": "not a regular file",
    "directory": "not a regular file",
    "huge": "larger than 256 kB",
    "binary": "not UTF-8 text",
    "missing": "No such file or directory",
    "long": "File name too long",
}


def test_a_file_is_read_whole(tmp_path):
    (tmp_path / "key").write_bytes(b" word\n")
    assert (read_small(tmp_path / "key"), text_of(tmp_path / "key")) == (b" word\n", "word")


@pytest.mark.parametrize("what", WHY)
def test_what_is_no_file_of_words_is_named(strange, what):
    with pytest.raises(OSError, match=WHY[what]):
        text_of(strange[what])


def test_a_name_that_no_file_can_have_is_an_error_like_others():
    with pytest.raises(OSError, match="Invalid argument"):
        read_small("a\0b")


@pytest.mark.parametrize("what", WHY)
@pytest.mark.parametrize(
    ("program", "setting"),
    [
        (["-m", "whisper_store", "list"], "MINIO_SECRET_KEY_FILE"),
        (["-m", "whisper_xeon", "--check-config"], "WHISPER_API_KEY_FILE"),
    ],
    ids=["store", "service"],
)
def test_a_program_that_is_given_it_ends_with_one_line(strange, what, program, setting):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(APP), "MINIO_ENDPOINT": "http://127.0.0.1:1"}
    environment |= {"MINIO_ACCESS_KEY": "a", setting: strange[what]}
    ended = subprocess.run(
        [sys.executable, *program], env=environment, capture_output=True, text=True, timeout=20, cwd=Path("/")
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert setting in ended.stderr


@pytest.mark.parametrize("what", ["fifo", "endless"])
def test_certificates_are_in_files(strange, what):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(APP), "MINIO_ENDPOINT": "https://127.0.0.1:1"}
    environment |= {"MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b", "AWS_CA_BUNDLE": strange[what]}
    command = [sys.executable, "-m", "whisper_store", "list"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert ended.stderr == f"AWS_CA_BUNDLE names {strange[what]!r}, which is no file of certificates\n"
