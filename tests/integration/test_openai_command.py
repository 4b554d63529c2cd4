"""The drop-in for openai-whisper: its command, its module, the caller of the specification, and how it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import whisper
from paths import FIXTURES, RECORDINGS, ROOT
from running_service import EXACT
from whisper_package.selftest import same_words

RECORDED = FIXTURES / "openai_whisper"
EFFECTS = json.loads((RECORDED / "effects.json").read_text("utf-8"))
HEAR = """
import json, sys, whisper

clips, effects = sys.argv[1:]
model = whisper.load_model("base")
options = {"beam_size": 5, "best_of": 5}
print(json.dumps([
    model.transcribe(f"{clips}/{one['clip']}", **options, **one["options"]) for one in json.loads(effects)
]))
"""
LINE = "[00:00."
# What the caller of the specification (its src/whisper_cli.rs) runs before it transcribes, for model and device.
PRELOAD = """
import whisper
import torch
import os

# Set device and environment
device = "{device}" if "{device}" != "cpu" and torch.cuda.is_available() else "cpu"
if device != "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"

print(f"Preloading Whisper model '{model}' on device: {{device}}")

# Direct model loading (no dummy audio needed)
model = whisper.load_model("{model}", device=device)
print(f"✓ Model loaded on device: {{model.device}}")

# Optional: Warm up GPU context with minimal computation
if model.device.type == "cuda":
    import torch
    # Create minimal mel spectrogram tensor for GPU warmup
    dummy_mel = torch.randn(1, model.dims.n_mels, 300, device=model.device)
    with torch.no_grad():
        # Quick encoder pass to initialize GPU kernels
        _ = model.encoder(dummy_mel)
    print("✓ GPU context warmed up")

print(f"✓ Model '{model}' preloaded successfully on {{model.device}}")
"""
# The one thing that the snippet asks torch, which the drop-in does without.
TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return {gpu}
"""


def environment(artifacts: Path | str, *more: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT / "app", ROOT / "dropin", *more)))
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": path,
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "WHISPER_ARTIFACTS_DIR": str(artifacts),
        "WHISPER_XEON_WEIGHTS_URL": "",
    }


def run(artifacts: Path, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "whisper", *arguments],
        env=environment(artifacts),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def small(artifacts_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_ARTIFACTS_DIR", str(artifacts_dir))
        return whisper.load_model("small")


def test_the_command_line_of_the_specification_writes_its_files(artifacts_dir, tmp_path):
    shutil.copy(RECORDINGS / "de-00.wav", tmp_path / "audio.wav")
    for more in ((), ("--language", "German"), ("--language", "German", "--task", "translate")):
        finished = run(artifacts_dir, "audio.wav", "--model", "medium", *more, cwd=tmp_path)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert LINE in finished.stdout
        made = [tmp_path / f"audio.{suffix}" for suffix in ("json", "srt", "tsv", "txt", "vtt")]
        assert names(tmp_path) == ["audio.json", "audio.srt", "audio.tsv", "audio.txt", "audio.vtt", "audio.wav"]
        for path in made:
            path.unlink()


def test_its_caller_reads_the_transcript_from_the_output_directory(artifacts_dir, tmp_path):
    output = tmp_path / "whisper_output"
    arguments = ("--model", "medium", "--output_format", "txt", "--output_dir", output, "--language", "de")
    finished = run(artifacts_dir, RECORDINGS / "de-00.wav", *arguments)
    assert (finished.returncode, names(output)) == (0, ["de-00.txt"])
    assert (output / "de-00.txt").read_text("utf-8").strip() == EXACT["de-00.wav"]["text"]


@pytest.mark.parametrize(("device", "gpu"), [("cpu", False), ("auto", False), ("cuda", True)])
def test_its_preload_snippet_runs_unchanged(artifacts_dir, tmp_path, device, gpu):
    (tmp_path / "torch.py").write_text(TORCH.format(gpu=gpu), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "-c", PRELOAD.format(device=device, model="medium")],
        env=environment(artifacts_dir, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        f"Preloading Whisper model 'medium' on device: {device if gpu else 'cpu'}",
        "✓ Model loaded on device: cpu",
        "✓ Model 'medium' preloaded successfully on cpu",
    ]
    said = "whisper: no GPU is in use: cuda was asked for, whisper-xeon computes on the CPU\n"
    assert finished.stderr == (said if gpu else "")


def test_the_library_gives_the_dictionary_of_the_original(small):
    result = small.transcribe(str(RECORDINGS / "de-00.wav"), language="de", word_timestamps=True)
    recorded = json.loads((RECORDED / "writers.json").read_text("utf-8"))
    (original,) = (one["result"] for one in recorded if one["case"] == "de_cheetah.ogg")
    assert list(result) == list(original)
    assert [list(segment) for segment in result["segments"]] == [list(original["segments"][0])] * len(
        result["segments"]
    )
    words = [word for segment in result["segments"] for word in segment["words"]]
    assert list(words[0]) == list(original["segments"][0]["words"][0])
    assert "".join(word["word"] for word in words) == result["text"]
    assert (result["language"], result["text"].strip()) == ("de", EXACT["de-00.wav"]["text"])
    assert all(before["end"] <= word["start"] < word["end"] for before, word in zip(words, words[1:]))


def test_the_model_says_what_it_is(small):
    assert (str(small.device), small.device.type, small.device == "cpu") == ("cpu", "cpu", True)
    assert (small.dims.n_mels, small.dims.n_audio_ctx, small.dims.n_text_ctx) == (80, 1500, 448)
    assert (small.is_multilingual, small.num_languages) == (True, 99)
    assert {"tiny.en", "base", "turbo", "large"} <= set(whisper.available_models())


@pytest.mark.parametrize("name", ["encoder", "decode", "detect_language", "log_mel_spectrogram", "DecodingOptions"])
def test_parts_of_the_network_are_named(small, name):
    for owner in (small, whisper):
        with pytest.raises(AttributeError, match=rf"{name}.*use load_model\(\.\.\.\)\.transcribe"):
            getattr(owner, name)


def test_samples_are_taken_as_an_array(small):
    path = RECORDINGS / "en-00.wav"
    assert small.transcribe(whisper.load_audio(path)) == small.transcribe(path)
    with pytest.raises(TypeError, match="float32"):
        small.transcribe(b"not samples")


def test_clips_are_transcribed_at_their_places(small):
    whole = small.transcribe(RECORDINGS / "long.wav", language="en")
    clips = small.transcribe(
        RECORDINGS / "long.wav", language="en", clip_timestamps="5,15,60", condition_on_previous_text=False
    )
    times = [(segment["start"], segment["end"]) for segment in clips["segments"]]
    assert all(5 <= start <= end <= 15 or start >= 60 for start, end in times)
    assert [segment["id"] for segment in clips["segments"]] == list(range(len(times)))
    assert min(start for start, _ in times) < 15 < 60 <= max(start for start, _ in times)
    assert len(whole["segments"]) > len(times)


def test_options_beyond_those_of_the_service_reach_the_library(small):
    path = RECORDINGS / "long.wav"
    plain = small.transcribe(path, language="en", clip_timestamps="0,25")
    whole_windows = small.transcribe(path, language="en", clip_timestamps="0,25", without_timestamps=True)
    assert len(plain["segments"]) > len(whole_windows["segments"]) == 1
    spoken = plain["segments"][0]["tokens"]
    silenced = small.transcribe(path, language="en", clip_timestamps="0,25", suppress_tokens=spoken)
    assert not {token for segment in silenced["segments"] for token in segment["tokens"]} & set(spoken)
    warm = small.transcribe(path, language="en", clip_timestamps="0,25", temperature=0.8)
    assert {segment["temperature"] for segment in warm["segments"]} == {0.8}


def test_segments_are_printed_while_the_file_is_transcribed(artifacts_dir, tmp_path):
    clips = ",".join(["0", "12"] * 20)
    command = [sys.executable, "-m", "whisper", RECORDINGS / "long.wav", "--model", "small", "--language", "en"]
    command += ["--clip_timestamps", clips, "--output_dir", tmp_path, "--output_format", "json"]
    command += ["--condition_on_previous_text", "False", "--beam_size", "None"]
    with subprocess.Popen(command, env=environment(artifacts_dir), stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        assert not names(tmp_path)
        lines = [first, *process.stdout]
    assert process.returncode == 0
    segments = json.loads((tmp_path / "long.json").read_text("utf-8"))["segments"]
    assert len(lines) == len(segments) > 40
    assert [line.partition("] ")[2] for line in lines] == [f"{segment['text']}\n" for segment in segments]


def test_a_file_that_cannot_be_read_is_skipped_by_name(artifacts_dir, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF and nothing that follows")
    files = (tmp_path / "broken.wav", tmp_path / "missing.wav", RECORDINGS / "en-00.wav")
    finished = run(artifacts_dir, *files, "--model", "small", "-f", "txt", "-o", tmp_path / "out", "--verbose", "False")
    assert finished.returncode == 1
    assert names(tmp_path / "out") == ["en-00.txt"]
    assert finished.stdout == "Detected language: English\n"
    for name, why in (("broken.wav", "the file cannot be decoded"), ("missing.wav", "No such file or directory")):
        assert f"whisper: Skipping {tmp_path / name} due to RuntimeError: Failed to load audio: " in finished.stderr
        assert why in finished.stderr


def test_a_model_that_is_not_here_is_named_with_the_places_it_can_come_from(artifacts_dir, tmp_path):
    finished = run(artifacts_dir, RECORDINGS / "en-00.wav", "--model_dir", tmp_path)
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("whisper: model large-v3-turbo is not here: ")
    for place in (
        str(artifacts_dir),
        "the packages there are of medium, small",
        "WHISPER_ARTIFACTS_DIR",
        "MINIO_ENDPOINT",
    ):
        assert place in line


def test_a_package_may_be_named_by_its_path(artifacts_dir, tmp_path):
    package = artifacts_dir / "whisper_small_xeon"
    finished = run(
        tmp_path, RECORDINGS / "en-00.wav", "--model", package, "-f", "txt", "-o", tmp_path, "--threads", "1"
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert (tmp_path / "en-00.txt").read_text("utf-8") == EXACT["en-00.wav"]["text"] + "\n"


@pytest.mark.parametrize("clip", ["en_arctic_a0009.ogg", "en_cards005.wav"])
def test_real_weights_hear_what_the_original_hears(real_artifacts_dir, tmp_path, clip):
    recorded = json.loads((RECORDED / "writers.json").read_text("utf-8"))
    (original,) = (one["result"] for one in recorded if one["case"] == clip)
    arguments = ("--model", "base", "--word_timestamps", "True", "-f", "json", "-o", tmp_path)
    finished = run(real_artifacts_dir, ROOT / "bench" / "speech" / "clips" / clip, *arguments)
    assert finished.returncode == 0, finished.stderr
    (made,) = (json.loads(path.read_text("utf-8")) for path in tmp_path.iterdir())
    assert same_words(made["text"], original["text"])
    assert made["language"] == original["language"]
    words, expected = made["segments"][0]["words"], original["segments"][0]["words"]
    assert [word["start"] for word in words] == pytest.approx([word["start"] for word in expected], abs=0.3)


@pytest.fixture(scope="module")
def heard(real_artifacts_dir) -> list[dict]:
    """The results with each of EFFECTS, of a process of its own: one process loads one build of libwhisper."""
    finished = subprocess.run(
        [sys.executable, "-c", HEAR, ROOT / "bench" / "speech" / "clips", json.dumps(EFFECTS)],
        env=environment(real_artifacts_dir),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("number", range(len(EFFECTS)), ids=lambda number: " ".join(EFFECTS[number]["options"]))
def test_options_have_the_effect_that_they_have_in_the_original(heard, number):
    assert same_words(heard[number]["text"], EFFECTS[number]["text"])


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A wheel with the original's name, and its module in one line."""
    wheel = tmp_path_factory.mktemp("original") / "openai_whisper-20250625-py3-none-any.whl"
    info = "openai_whisper-20250625.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("whisper/__init__.py", "is_the_original = True\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: openai-whisper\nVersion: 20250625\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*archive.namelist(), f"{info}/RECORD"]))
    return wheel


def pip(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # Without the cache: a drop-in that was built for another environment would be taken from there.
    command = [directory / "bin" / "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_extra_installs_the_command_and_the_module(built_command, artifacts_dir, tmp_path):
    directory = tmp_path / "venv"
    venv.create(directory, with_pip=True)
    (wheel,) = built_command.glob("whisper_xeon-*.whl")
    installed = pip(directory, "install", "--find-links", built_command, f"{wheel}[openai]")
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "base.pt").touch()

    def start(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [directory / "bin" / command[0], *command[1:]],
            env={"PATH": "/usr/bin", "HOME": str(tmp_path), "WHISPER_ARTIFACTS_DIR": str(artifacts_dir), **settings},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    recording = str(RECORDINGS / "en-00.wav")
    for program in (("whisper",), ("python3", "-m", "whisper")):
        finished = start(*program, recording, "--model", "small")
        assert (finished.returncode, finished.stderr) == (0, "")
        assert (tmp_path / "en-00.txt").read_text("utf-8") == EXACT["en-00.wav"]["text"] + "\n"
        (tmp_path / "en-00.txt").unlink()
    # What more than the standard library is needed for says so.
    converting = start("whisper", recording, "--model", "base", "--model_dir", str(tmp_path))
    assert (converting.returncode, converting.stderr.count("\n")) == (1, 1)
    assert "base.pt is read with numpy: pip install numpy" in converting.stderr
    fetching = start("whisper", recording, "--model", "base", MINIO_ENDPOINT="http://127.0.0.1:9")
    assert (fetching.returncode, fetching.stderr.count("\n")) == (1, 1)
    assert "pip install botocore" in fetching.stderr


def test_it_is_not_installed_over_the_original(built_command, original, tmp_path):
    environment_of_both = tmp_path / "venv"
    venv.create(environment_of_both, with_pip=True)
    python = environment_of_both / "bin" / "python3"
    (wheel,) = built_command.glob("whisper_xeon-*.whl")
    assert pip(environment_of_both, "install", "--no-index", original).returncode == 0
    refused = pip(environment_of_both, "install", "--find-links", built_command, f"{wheel}[openai]")
    assert refused.returncode != 0
    assert "openai-whisper is installed here, and whisper-xeon-openai does not replace it" in refused.stderr
    untouched = "import whisper; assert whisper.is_the_original"
    subprocess.run([python, "-c", untouched], check=True)
    # Files can be put there by other means than pip's build.
    (module,) = environment_of_both.glob("lib/python3*/site-packages/whisper")
    shutil.copytree(ROOT / "dropin" / "whisper", module, dirs_exist_ok=True)
    finished = subprocess.run([python, "-m", "whisper", "a.wav"], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "openai-whisper is installed here too" in finished.stderr
    assert "Traceback" not in finished.stderr
