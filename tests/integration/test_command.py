"""The command `whisper-xeon` on real recordings: with a model of its own and through a service; wheel and zipapp."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from paths import RECORDINGS
from running_service import EXACT, Service, environment, running_service, wait_for

CLIPS = ("en-00.wav", "en-01.wav", "de-00.wav")
KEY = "a-key-of-the-command-0123456789"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(f"{KEY}\n", encoding="ascii")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def service(artifacts_dir, key_file):
    with running_service(artifacts_dir, WHISPER_API_KEY_FILE=str(key_file)) as running:
        yield running


@pytest.fixture
def recordings(tmp_path) -> Path:
    directory = tmp_path / "recordings"
    directory.mkdir()
    for name in CLIPS:
        shutil.copy(RECORDINGS / name, directory)
    return directory


def run(*arguments: str | Path, program: tuple[str | Path, ...] = (), **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*(program or (sys.executable, "-m", "whisper_command")), "transcribe", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def through(service: Service, key_file: Path) -> tuple[str | Path, ...]:
    return "--server", service.url, "--key-file", key_file


def made(directory: Path, suffix: str) -> dict[str, bytes]:
    return {path.with_suffix(".wav").name: path.read_bytes() for path in directory.rglob(f"*{suffix}")}


def test_both_ways_write_what_the_service_answers(artifacts_dir, service, key_file, recordings, tmp_path):
    formats = [option for name in ("txt", "srt", "vtt", "tsv") for option in ("--format", name)]
    local = run(recordings, *formats, "--output-dir", tmp_path / "local", "--artifacts-dir", artifacts_dir)
    remote = run(recordings, *formats, "--output-dir", tmp_path / "remote", *through(service, key_file))
    assert (local.returncode, remote.returncode) == (0, 0), local.stderr + remote.stderr
    for suffix, name in ((".txt", "text"), (".srt", "srt"), (".vtt", "vtt"), (".tsv", "tsv")):
        answers = {
            clip: service.request(
                "POST",
                f"/transcribe?response_format={name}",
                (RECORDINGS / clip).read_bytes(),
                content_type="audio/wav",
                x_api_key=KEY,
            ).body
            for clip in CLIPS
        }
        assert made(tmp_path / "local", suffix) == made(tmp_path / "remote", suffix) == answers
    assert made(tmp_path / "local", ".txt")["en-00.wav"].decode() == EXACT["en-00.wav"]["text"] + "\n"


def test_what_failed_is_named_and_what_is_done_is_left_alone(service, key_file, recordings):
    (recordings / "broken.wav").write_bytes(b"RIFF and nothing that follows")
    first = run(recordings, *through(service, key_file))
    assert first.returncode == 1
    assert f"{recordings / 'broken.wav'}: the file cannot be decoded" in first.stderr
    assert "1 of 4 files failed; the same command tries them again" in first.stderr
    before = made(recordings, ".txt")
    (recordings / "en-00.txt").write_text("corrected by hand", encoding="utf-8")
    second = run(recordings, *through(service, key_file))
    assert "3 of 4 files are done already" in second.stderr
    assert (recordings / "en-00.txt").read_text("utf-8") == "corrected by hand"
    assert len(before) == 3


def test_a_run_that_was_interrupted_goes_on(artifacts_dir, recordings):
    for number in range(12):
        shutil.copy(RECORDINGS / "long.wav", recordings / f"long-{number:02}.wav")
    command = [sys.executable, "-m", "whisper_command", "transcribe", recordings, "--artifacts-dir", artifacts_dir]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not made(recordings, ".txt"):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    done = made(recordings, ".txt")
    assert (process.returncode, 0 < len(done) < 15) == (130, True)
    assert said.endswith("interrupted; the same command goes on\n")
    assert not list(recordings.glob(".*"))
    again = run(recordings, "--artifacts-dir", artifacts_dir)
    assert (again.returncode, len(made(recordings, ".txt"))) == (0, 15)
    assert f"{len(done)} of 15 files are done already" in again.stderr


def test_ctrl_c_does_not_wait_for_answers(service, key_file, recordings):
    for number in range(12):
        shutil.copy(RECORDINGS / "long.wav", recordings / f"long-{number:02}.wav")
    command = [sys.executable, "-m", "whisper_command", "transcribe", recordings, *through(service, key_file)]
    with service.workers_held(), subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        wait_for(lambda: re.search(r"^whisper_queue_waiting [1-9]", service.get("/metrics").text, re.MULTILINE))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_wrong_key_ends_the_run(service, recordings, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-key-0123456789\n", encoding="ascii")
    finished = run(recordings, "--server", service.url, "--key-file", wrong)
    assert finished.returncode == 3
    assert "--key-file" in finished.stderr
    assert not made(recordings, ".txt")


def test_a_full_service_is_waited_for(artifacts_dir, recordings):
    for number in range(3):
        shutil.copy(RECORDINGS / "long.wav", recordings / f"long-{number}.wav")
    with running_service(artifacts_dir, WHISPER_QUEUE="0", WHISPER_ENGINES="1") as small:
        finished = run(recordings, "--server", small.url, "--jobs", "6", "--quiet")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert len(made(recordings, ".txt")) == 6


def test_the_zipapp_runs_by_itself(built_command, artifacts_dir, recordings):
    program = (built_command / "whisper-xeon.pyz",)
    finished = subprocess.run(
        [*program, "transcribe", recordings, "--artifacts-dir", artifacts_dir, "--language", "English", "--quiet"],
        env={"PATH": os.environ["PATH"]},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert made(recordings, ".txt")["en-00.wav"].decode() == EXACT["en-00.wav"]["text"] + "\n"


def test_the_wheel_installs_a_command(built_command, service, key_file, recordings, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [tmp_path / "venv" / "bin" / "pip", "install", "--quiet", "--no-index", *built_command.glob("*.whl")]
    subprocess.run(pip, check=True, capture_output=True)
    command = tmp_path / "venv" / "bin" / "whisper-xeon"
    finished = subprocess.run(
        [command, "transcribe", recordings, "--quiet"],
        env={"PATH": "/usr/bin", "WHISPER_XEON_SERVER": service.url, "WHISPER_XEON_KEY_FILE": str(key_file)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert len(made(recordings, ".txt")) == 3
