"""Nobody takes the service from the others: uploads, memory, decoders, queue, files and keys of the real service."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audio_files import decode_bytes
from paths import RECORDINGS
from running_service import EXACT, Service, is_running, process_stat, running_service, wait_for
from whisper_bench.reliability.decoders import endless_flac
from whisper_bench.reliability.memory_bombs import aiff, mp4
from whisper_xeon.audio.errors import DecodingTooSlow, UnreadableAudio

CLIP = (RECORDINGS / "fr-01.wav").read_bytes()
TEXT = EXACT["fr-01.wav"]["small"]
SOMEBODY, OTHER = "127.0.0.2", "127.0.0.3"


def send(service: Service, audio: bytes, caller: str, kind: str = "audio/wav", **headers: str) -> socket.socket:
    """Send a request to transcribe whole, as a caller, and return the socket without waiting for the answer."""
    sock = socket.create_connection(("127.0.0.1", service.port), timeout=60, source_address=(caller, 0))
    lines = {"Host": "a", "Content-Type": kind, "Content-Length": str(len(audio)), "Connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    sock.sendall(f"POST /transcribe HTTP/1.1\r\n{head}\r\n".encode() + audio)
    return sock


def answer(sock: socket.socket) -> tuple[int, dict]:
    """Return status and body of the answer, and close the connection."""
    with sock:
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, json.loads(response.read())


def ask(service: Service, caller: str, audio: bytes = CLIP, kind: str = "audio/wav", **headers: str) -> tuple[int, str]:
    """Return status and text, or the code of the error."""
    status, body = answer(send(service, audio, caller, kind, **headers))
    return status, body["text"] if status == 200 else body["error"]["code"]


def decoders(service: Service) -> list[int]:
    """Return the process ids of the service's ffmpegs, which may have another name."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            pid = int(command.parent.name)
            is_decoder = b"\0-nostdin\0" in command.read_bytes() and b"\0--pdeathsig\0" not in command.read_bytes()
            if is_decoder and process_stat(pid)[1:2] == [str(service.process.pid)]:
                found.append(pid)
    return found


@contextlib.contextmanager
def stalled(service: Service, caller: str, number: int, size: int, **headers: str) -> Iterator[list[socket.socket]]:
    """Hold so many uploads that stop before their last byte; the block has their sockets."""
    with contextlib.ExitStack() as stack:
        more = {"Content-Length": str(size + 1), **headers}
        yield [stack.enter_context(send(service, bytes(size), caller, **more)) for _ in range(number)]


def test_uploads_that_stall_keep_nobody_else_out(artifacts_dir):
    settings = {"WHISPER_SPOOL_MB": "8", "WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_MAX_AUDIO_SECONDS": "10"}
    size = 1000 << 10
    with running_service(artifacts_dir, **settings) as service, contextlib.ExitStack() as stack:
        for number in range(1, 8):
            # One after the other: together they could all find it full before any of them is whole.
            stack.enter_context(stalled(service, SOMEBODY, 1, size))
            wait_for(lambda number=number: _spooled(service) >= number * size)
        surplus = stack.enter_context(stalled(service, SOMEBODY, 3, size))
        assert [ask(service, OTHER) for _ in range(3)] == [(200, TEXT)] * 3
        assert any(b"spool_full" in sock.recv(65536) for sock in surplus)


def _spooled(service: Service) -> int:
    total = 0
    for entry in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_size if "memfd" in str(entry.readlink()) else 0
    return total


def test_a_full_queue_of_one_caller_lets_another_in_and_serves_it_next(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_ENGINES="1", WHISPER_QUEUE="3") as service:
        waiting = [send(service, _minutes(5), SOMEBODY)]
        wait_for(lambda: _busy(service))
        for number in (1, 2, 3):
            waiting.append(send(service, CLIP, SOMEBODY))
            wait_for(lambda number=number: _queued(service) == number)
        others = send(service, CLIP, OTHER)
        wait_for(lambda: _queued(service) == 3 and b"503" in waiting[3].recv(65536, socket.MSG_PEEK))
        assert answer(others)[0] == 200
        assert [answer(sock)[0] for sock in waiting] == [200, 200, 200, 503]
        order = wait_for(lambda: _served(service, "client", 4))
        assert order == [SOMEBODY, OTHER, SOMEBODY, SOMEBODY]


def _served(service: Service, name: str, number: int) -> list[str] | None:
    """Return what the log says of so many transcriptions, in the order of their answers; None before there are."""
    lines = [line for line in service.events("request") if line["status"] == 200 and "compute_ms" in line]
    return [line[name] for line in lines] if len(lines) == number else None


def _queued(service: Service) -> int:
    return _metric(service, "whisper_queue_waiting")


def _busy(service: Service) -> int:
    return _metric(service, "whisper_engines_busy")


def _metric(service: Service, name: str) -> int:
    lines = service.get("/metrics").text.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _minutes(number: int) -> bytes:
    """Return speech that an engine is busy with for longer than it takes to line up behind it."""
    return _as_wav((RECORDINGS / "long.wav").read_bytes(), round(number * 60 / 75))


@pytest.fixture(scope="module")
def flac() -> bytes:
    """An hour of 8 channels in a megabyte, which keeps a decoder busy."""
    return endless_flac(192_000)


def test_what_needs_no_decoder_is_served_while_all_are_taken_and_what_does_soon_after(artifacts_dir, flac):
    long = (RECORDINGS / "long.wav").read_bytes()
    with running_service(artifacts_dir) as service:
        taken = [send(service, flac, caller, "audio/flac") for caller in (SOMEBODY, "127.0.0.4", "127.0.0.5")]
        wait_for(lambda: decoders(service))
        minutes = _as_wav(long, 3)
        assert ask(service, OTHER) == (200, TEXT)
        assert ask(service, OTHER, minutes)[0] == 200
        compressed = _converted(CLIP, "flac")
        assert ask(service, OTHER, compressed, "audio/flac") == (200, TEXT)
        assert decoders(service)
        for sock in taken:
            sock.close()
        wait_for(lambda: not decoders(service))


def _as_wav(audio: bytes, times: int) -> bytes:
    """Return a WAV file repeated, with the samples directly behind 44 bytes."""
    samples = audio[44:] * times
    return (
        audio[:4]
        + (36 + len(samples)).to_bytes(4, "little")
        + audio[8:40]
        + len(samples).to_bytes(4, "little")
        + samples
    )


def _converted(audio: bytes, form: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", form, "-"]
    return subprocess.run(command, input=audio, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("audio", "why"),
    [
        (aiff(60_000), "1 samples per second"),
        (mp4(30_000_000), "damaged or incomplete"),
        (endless_flac(655_340)[:300_000], "655340 samples per second"),
    ],
)
def test_a_file_that_would_take_too_much_is_refused_with_the_reason(audio, why):
    with pytest.raises(UnreadableAudio, match=why):
        decode_bytes(audio)


def test_a_decoder_has_time_in_proportion_to_what_came_out_of_it(monkeypatch, flac):
    monkeypatch.setattr("whisper_xeon.audio.ffmpeg._CPU_SECONDS", 0.2)
    monkeypatch.setattr("whisper_xeon.audio.ffmpeg._CPU_SECONDS_PER_SECOND", 0.0001)
    with pytest.raises(DecodingTooSlow, match="out of all proportion"):
        decode_bytes(flac, max_seconds=7200)
    with decode_bytes(_converted(CLIP, "flac")) as audio:
        assert audio.samples


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGABRT])
def test_a_decoder_is_the_first_to_go_without_memory_and_ends_with_the_service(artifacts_dir, flac, end):
    with running_service(artifacts_dir) as service, send(service, flac, SOMEBODY, "audio/flac"):
        (decoder,) = wait_for(lambda: decoders(service))
        # What sets it becomes the decoder afterwards, under the same number and with its arguments.
        wait_for(lambda: Path(f"/proc/{decoder}/oom_score_adj").read_text().strip() == "1000")
        os.kill(decoder, signal.SIGSTOP)
        service.process.send_signal(end)
        service.process.wait(10)
        wait_for(lambda: not is_running(decoder))


def test_without_files_a_request_is_503_and_the_next_one_served(artifacts_dir):
    with running_service(artifacts_dir) as service:
        assert ask(service, OTHER) == (200, TEXT)
        pid = service.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        sock = send(service, CLIP[:-1], OTHER, **{"Content-Length": str(len(CLIP))})
        wait_for(lambda: _spooled(service) >= len(CLIP) - 1)
        highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with ThreadPoolExecutor(8) as clients:
                waiting = [clients.submit(ask, service, OTHER) for _ in range(8)]
                sock.sendall(CLIP[-1:])
                statuses = {answer(sock)[0], *(one.result()[0] for one in waiting)}
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert statuses <= {200, 503}
        assert 503 in statuses
        assert "Traceback" not in service.log_text
        assert ask(service, OTHER) == (200, TEXT)


def test_keys_have_names_limits_of_their_own_and_are_read_again(artifacts_dir, tmp_path):
    file = tmp_path / "keys"
    file.write_text("first name=calls uploads=1 decoders=1\n", encoding="ascii")
    with running_service(artifacts_dir, WHISPER_API_KEY_FILE=str(file)) as service:
        first, second = {"Authorization": "Bearer first"}, {"X-API-Key": "second"}
        assert ask(service, OTHER) == (401, "invalid_api_key")
        assert ask(service, OTHER, **first) == (200, TEXT)
        with stalled(service, SOMEBODY, 1, 5000, **first):
            wait_for(lambda: _spooled(service) == 5000)
            assert ask(service, OTHER, **first) == (429, "limit_reached")
            file.write_text("second name=batch\n", encoding="ascii")
            wait_for(lambda: ask(service, OTHER, **second) == (200, TEXT))
            assert ask(service, OTHER, **first) == (401, "invalid_api_key")
        names = [
            line.get("key") for line in service.events("request") if line["status"] in (200, 429) and line["bytes"]
        ]
        assert names[0] == "calls"
        assert names[-1] == "batch"
        assert "first" not in service.log_text


def test_a_higher_priority_is_served_first(artifacts_dir, tmp_path):
    file = tmp_path / "keys"
    file.write_text("a name=batch priority=low\nb name=live priority=high\n", encoding="ascii")
    settings = {"WHISPER_API_KEY_FILE": str(file), "WHISPER_ENGINES": "1"}
    with running_service(artifacts_dir, **settings) as service:
        batch = [send(service, _minutes(5), SOMEBODY, **{"X-API-Key": "a"})]
        wait_for(lambda: _busy(service))
        for number in (1, 2):
            batch.append(send(service, CLIP, SOMEBODY, **{"X-API-Key": "a"}))
            wait_for(lambda number=number: _queued(service) == number)
        live = send(service, CLIP, OTHER, **{"X-API-Key": "b"})
        wait_for(lambda: _queued(service) == 3)
        for sock in (live, *batch):
            assert answer(sock)[0] == 200
        order = wait_for(lambda: _served(service, "key", 4))
        assert order == ["batch", "live", "batch", "batch"]


def test_one_upload_that_pauses_does_not_delay_a_stop(artifacts_dir):
    with running_service(artifacts_dir) as service, stalled(service, SOMEBODY, 1, 5000) as (sock,):
        wait_for(lambda: _spooled(service) == 5000)
        assert service.terminate() == 0  # long before WHISPER_REQUEST_TIMEOUT
        status, body = answer(sock)
        assert (status, body["error"]["code"]) == (503, "engine_unavailable")
