"""docs/migration: the settings in it are accepted, and each command does what the page says, as it is written there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_server import CLIP, FileServer
from paths import RECORDINGS, ROOT
from running_service import EXACT, Service, environment, running_service
from whisper_xeon.audio.url_policy import Entry, Url

TEXT = EXACT[CLIP]["small"]
# The place of files in the pages; in the tests it is a server on the loopback.
MEDIA = "http://10.0.0.5:9000"


def blocks(page: str, language: str = "") -> list[str]:
    """Return the blocks of code of a page of docs/migration that are marked as this language."""
    text = (ROOT / "docs" / "migration" / page).read_text("utf-8")
    return [block for name, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if name == language]


def commands(page: str) -> list[str]:
    return [line for block in blocks(page) for line in block.splitlines() if line.startswith(("curl ", "dist/"))]


@pytest.fixture(scope="module")
def files() -> Iterator[FileServer]:
    with contextlib.closing(FileServer()) as running:
        yield running


@pytest.fixture(scope="module")
def service(artifacts_dir, files) -> Iterator[Service]:
    """A service with the settings that fastapi.md gives, but for the model's place and what is on the loopback."""
    (settings,) = (block for block in blocks("fastapi.md") if block.startswith("WHISPER_MODEL_SIZE="))
    told = dict(line.split("=", 1) for line in settings.replace(MEDIA, files.url).splitlines())
    told = {name: value for name, value in told.items() if name.startswith("WHISPER_") and name != "WHISPER_HOST"}
    with running_service(artifacts_dir, **told) as running:
        yield running


@pytest.fixture(scope="module")
def directory(artifacts_dir, built_command, tmp_path_factory) -> Path:
    """Where the pages' commands are run: recordings, and a dist/ with packages and the command."""
    made = tmp_path_factory.mktemp("coming")
    shutil.copy(RECORDINGS / CLIP, made / "call.wav")
    raw = ["-ar", "16000", "-ac", "1", "-f", "s16le", made / "call.raw"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", made / "call.wav", *raw], check=True)
    shutil.copytree(artifacts_dir, made / "dist")
    for built in built_command.iterdir():
        shutil.copy2(built, made / "dist")
    return made


@pytest.fixture
def run(service, files, directory):
    def in_directory(command: str) -> str:
        told = command.replace("HOST:8000", f"127.0.0.1:{service.port}").replace(MEDIA, files.url)
        done = subprocess.run(
            ["bash", "-c", told.replace("curl ", "curl -sS ", 1)],
            cwd=directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return in_directory


@pytest.mark.parametrize("command", commands("tools.md"))
def test_a_command_for_those_who_come_from_another_tool_gives_the_text(run, directory, command):
    said = run(command)
    if command.startswith("dist/"):
        assert (directory / "call.srt").exists()
        said = (directory / "call.txt").read_text("utf-8")
    assert TEXT in (json.loads(said)["text"] if said.startswith("{") else said)


def test_the_python_in_place_of_faster_whisper_prints_the_segments(directory):
    (code,) = blocks("tools.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert TEXT in done.stdout, done.stderr


@pytest.mark.parametrize("command", commands("fastapi.md"))
def test_a_request_of_a_client_of_the_fastapi_service_is_answered_as_there(run, command):
    answer = json.loads(run(command))
    if command.endswith("/health"):
        assert answer == {"status": "ok"}
    elif command.endswith("'{}'"):
        assert list(answer) == ["detail"]
        assert "audio" in answer["detail"]
    else:
        assert answer["text"] == TEXT


def test_every_entry_for_audio_url_allows_what_stands_beside_it():
    text = (ROOT / "docs" / "migration" / "fastapi.md").read_text("utf-8")
    rows = re.findall(r"^\| `(https?://\S+)`[^|]*\| `([^`]+)` \|$", text, re.M)
    assert len(rows) == 5
    for url, entry in rows:
        assert Entry.parse(entry).matches(Url.parse(url))
