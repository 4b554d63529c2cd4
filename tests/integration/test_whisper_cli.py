"""WhisperCliAdapter: whisper-cli in the library's place gives the same transcripts, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
from pathlib import Path

import pytest

from paths import RECORDINGS
from recordings import samples
from running_service import Service, is_running, process_stat, running_service, submit, wait_for
from sealed_packages import rewrite
from whisper_package.package import Package
from whisper_xeon.engine import LibraryLoadError, UnsupportedOptionError, WhisperLibraryAdapter, WhisperLibraryError
from whisper_xeon.engine.cli_adapter import WhisperCliAdapter
from whisper_xeon.transcript import DecodeOptions, Segment, Transcript

LONG = RECORDINGS / "long.wav"


@pytest.fixture(scope="module")
def cli(artifacts_dir):
    with WhisperCliAdapter("small", artifacts_dir, threads=1, audio_ctx="full") as adapter:
        yield adapter


@pytest.fixture(scope="module")
def library(artifacts_dir):
    with WhisperLibraryAdapter("small", artifacts_dir, threads=1, audio_ctx="full") as adapter:
        yield adapter


@functools.cache
def heard(adapter: WhisperCliAdapter | WhisperLibraryAdapter, name: str, **options) -> Transcript:
    return adapter.transcribe_pcm(samples(name), DecodeOptions(**options))


def shape(segment: Segment) -> tuple:
    """What both adapters must agree on to the letter."""
    return segment.id, segment.start, segment.end, segment.text, segment.tokens


@pytest.mark.parametrize(
    ("recording", "options"),
    [
        ("en-00.wav", {}),
        ("de-00.wav", {"language": "de"}),
        ("de-00.wav", {"prompt": "eins, zwei"}),
        ("vi-01.wav", {"temperature": 0.5}),
        ("long.wav", {}),
        ("silence.wav", {}),
    ],
)
def test_segments_are_those_of_the_library(cli, library, recording, options):
    ours, theirs = heard(cli, recording, **options), heard(library, recording, **options)
    assert (ours.text, ours.language, ours.duration) == (theirs.text, theirs.language, theirs.duration)
    assert [shape(segment) for segment in ours.segments] == [shape(segment) for segment in theirs.segments]


def test_both_let_the_encoder_see_as_little(artifacts_dir):
    segments = []
    for kind in (WhisperCliAdapter, WhisperLibraryAdapter):
        with kind("small", artifacts_dir, threads=1, audio_ctx="auto") as adapter:
            segments.append(adapter.transcribe_pcm(samples("en-00.wav"), DecodeOptions(language="en")).segments[0])
    assert shape(segments[0]) == shape(segments[1])
    assert segments[0].avg_logprob == pytest.approx(segments[1].avg_logprob, abs=1e-5)


def test_probabilities_are_the_librarys_to_five_digits(cli, library):
    (ours,), (theirs,) = heard(cli, "en-00.wav").segments, heard(library, "en-00.wav").segments
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-5)


@pytest.fixture(scope="module")
def estimating(artifacts_dir, tmp_path_factory):
    """The library with a package that does not name its alignment heads, as before there were any."""
    package = Package.find(artifacts_dir, "small")
    copy = shutil.copytree(package.directory, tmp_path_factory.mktemp("estimating") / package.name)
    rewrite(copy, lambda manifest: manifest["model"].pop("alignment_heads", None))
    with WhisperLibraryAdapter("small", copy.parent, threads=1, audio_ctx="full") as adapter:
        yield adapter


def test_words_are_those_of_a_library_that_estimates_their_times(cli, estimating):
    for recording in ("en-00.wav", "vi-01.wav"):
        ours, theirs = (heard(adapter, recording, word_timestamps=True) for adapter in (cli, estimating))
        for word, expected in zip(ours.segments[0].words, theirs.segments[0].words, strict=True):
            assert (word.text, word.start, word.end) == (expected.text, expected.start, expected.end)
            assert word.probability == pytest.approx(expected.probability, abs=1e-5)


def test_what_whisper_cli_does_not_tell_is_marked(cli):
    transcript = heard(cli, "en-00.wav")
    assert transcript.language_probability is None
    assert transcript.segments[0].no_speech_probability == 0.0


def test_a_prompt_stays_one_argument(cli):
    prompt = "eins\n--translate\n--model\n/dev/null\n@x"
    assert heard(cli, "en-00.wav", prompt=prompt).segments


def test_a_clip_of_no_length_is_not_given_to_the_program(cli):
    assert cli.transcribe_pcm(b"").text == ""


def test_an_unknown_language_is_refused(cli):
    with pytest.raises(UnsupportedOptionError, match="klingon"):
        cli.transcribe_pcm(samples("en-00.wav"), DecodeOptions(language="klingon"))


def test_a_program_that_writes_nothing_is_an_error_with_its_status(package_copy):
    (package_copy / "whisper-cli").write_text("#!/bin/sh\necho no memory >&2\nexit 3\n")
    adapter = WhisperCliAdapter("small", package_copy.parent)
    with pytest.raises(WhisperLibraryError, match=r"no memory \(status 3\)"):
        adapter.transcribe_pcm(samples("en-00.wav"))


def test_a_program_that_is_no_program_is_refused_at_the_start(package_copy):
    (package_copy / "whisper-cli").chmod(0o644)
    with pytest.raises(LibraryLoadError, match="whisper-cli is missing or not executable: fetch the package"):
        WhisperCliAdapter("small", package_copy.parent)


# In the service.


@pytest.fixture(scope="module")
def service(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_ADAPTER="cli", WHISPER_ENGINES="1") as running:
        yield running


def program(service: Service) -> int:
    """Wait for the process id of the whisper-cli that computes."""
    return wait_for(lambda: [pid for pid in service.worker_pids() if _name(pid) == "whisper-cli"])[0]


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def test_nothing_of_a_request_stands_in_the_list_of_processes(service):
    with submit(service, LONG, prompt="a-secret-of-mine"):
        pid = program(service)
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        environ = Path(f"/proc/{pid}/environ").read_text()
    assert len(arguments) == 3
    assert arguments[1].startswith("@/proc/self/fd/")
    assert "a-secret-of-mine" not in environ
    wait_for(lambda: not is_running(pid))


def test_a_client_that_goes_away_ends_the_program(service):
    with submit(service, LONG):
        pid = program(service)
    wait_for(lambda: not process_stat(pid))  # reaped, too


def test_a_program_that_crashes_is_run_again_and_the_request_answered(service):
    with submit(service, LONG) as sock:
        pid = program(service)
        os.kill(pid, signal.SIGSEGV)
        wait_for(lambda: not is_running(pid))
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 OK")


def test_the_service_takes_its_program_with_it(artifacts_dir):
    with (
        running_service(artifacts_dir, WHISPER_ADAPTER="cli", WHISPER_ENGINES="1") as service,
        submit(service, LONG),
    ):
        pid = program(service)
        service.process.kill()
        wait_for(lambda: not is_running(pid))
