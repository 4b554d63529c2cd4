"""Answers that come as events while the text is being written: through real sockets, and with lost workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paths import RECORDINGS
from running_service import ADAPTERS, EXACT, Service, encode_form, is_running, process_stat, running_service, wait_for

OPENAI = "/v1/audio/transcriptions"
LONG = RECORDINGS / "long.wav"
STREAM = (("model", "small"), ("stream", "true"))
EVENTS = "text/event-stream; charset=utf-8"


@pytest.fixture(scope="module", params=ADAPTERS)
def any_service(request, artifacts_dir) -> Iterator[Service]:
    with running_service(artifacts_dir, WHISPER_ADAPTER=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def service(artifacts_dir) -> Iterator[Service]:
    with running_service(artifacts_dir, WHISPER_ENGINES="1", WHISPER_CORS_ORIGINS="https://a.example") as running:
        yield running


@pytest.fixture(scope="module")
def minutes(tmp_path_factory) -> Path:
    """Four minutes, of which most is to be done when the first text comes."""
    path = tmp_path_factory.mktemp("streams") / "minutes.wav"
    with wave.open(str(LONG)) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getnframes()) * 3)
    return path


def events(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a whole body, which is nothing else."""
    *blocks, rest = body.decode("utf-8").split("\n\n")
    assert rest == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def text_of(deltas: list[dict[str, Any]]) -> str:
    assert all(event["type"] == "transcript.text.delta" and event["delta"] for event in deltas)
    return "".join(event["delta"] for event in deltas)


class Streaming:
    """A request that is being answered: its events as they come."""

    def __init__(self, service: Service, path: Path, *fields: tuple[str, str], **headers: str):
        body, content_type = encode_form([("file", path), *STREAM, *fields])
        self.connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        self.connection.request("POST", OPENAI, body, {"Content-Type": content_type, **headers})
        self.response = self.connection.getresponse()

    def next(self) -> dict[str, Any]:
        event = events(self.response.readline() + self.response.readline())
        return event[0]

    def rest(self) -> list[dict[str, Any]]:
        return events(self.response.read())

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()


def kill_busy(service: Service, number: int) -> None:
    """Send a signal to the worker that computes, once it has done so for a while."""

    def computing() -> list[int]:
        return [pid for pid in service.worker_pids() if int((process_stat(pid) or [0] * 12)[11]) > 10]

    pid = wait_for(computing)[0]
    os.kill(pid, number)
    wait_for(lambda: pid not in service.worker_pids())


@pytest.mark.parametrize(
    ("path", "response_format"), [(OPENAI, "json"), ("/transcribe", "json"), ("/inference", "verbose_json")]
)
def test_the_deltas_are_the_text_and_the_end_is_the_whole_answer(any_service, path, response_format):
    fields = ("response_format", response_format), ("include[]", "logprobs"), ("timestamp_granularities[]", "word")
    whole = any_service.transcribe("long.wav", *fields, path=path).json
    answer = any_service.transcribe("long.wav", *STREAM, *fields, path=path)
    assert (answer.status, answer.headers["content-type"]) == (200, EVENTS)
    assert {answer.headers[f"x-whisper-{name}"] for name in ("model", "language")} == {"small", "en"}
    *deltas, done = events(answer.body)
    own = {"request_id": 0, "processing_seconds": 0} if "request_id" in whole else {}
    assert {**done, **own} == {**whole, **own, "type": "transcript.text.done"}
    assert text_of(deltas) == whole["text"]


def test_without_speech_there_is_the_end_only(service):
    answer = service.transcribe("silence.wav", *STREAM)
    assert answer.headers["content-type"] == EVENTS
    assert events(answer.body) == [{"type": "transcript.text.done", **service.transcribe("silence.wav").json}]


def test_the_sides_of_a_stereo_recording_come_as_segments(service, tmp_path):
    path = tmp_path / "stereo.wav"
    with wave.open(str(RECORDINGS / "en-00.wav")) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        target.setnchannels(2)
        samples = memoryview(source.readframes(source.getnframes())).cast("h")
        target.writeframes(b"".join(bytes(samples[i : i + 1]) + b"\0\0" for i in range(len(samples))))
    fields = ("diarize", "channel"), ("response_format", "diarized_json")
    said, segment, done = events(service.post_form(OPENAI, ("file", path), *STREAM, *fields).body)
    assert text_of([said]) == done["text"] == EXACT["en-00.wav"]["small"]
    assert (segment["type"], segment["speaker"]) == ("transcript.text.segment", "left")
    assert done["segments"] == [segment]


def test_a_killed_worker_is_replaced_and_nothing_comes_twice(service, minutes):
    whole = service.post_form(OPENAI, ("file", minutes)).json["text"]
    with Streaming(service, minutes) as stream:
        first = stream.next()
        kill_busy(service, signal.SIGKILL)
        *deltas, done = stream.rest()
        request_id = stream.response.headers["X-Request-Id"]
    assert text_of([first, *deltas]) == done["text"] == whole
    assert service.request_line(request_id)["attempts"] == 2


def test_an_error_after_the_beginning_is_the_last_event(service, minutes):
    with Streaming(service, minutes) as stream:
        stream.next()
        kill_busy(service, signal.SIGSEGV)
        kill_busy(service, signal.SIGSEGV)
        *deltas, last = stream.rest()
        request_id = stream.response.headers["X-Request-Id"]
        text_of(deltas)
        assert (last["error"]["code"], last["error"]["type"]) == ("engine_crashed", "server_error")
        assert service.request_line(request_id)["status"] == 500
        # The connection is as good as before.
        stream.connection.request("GET", "/health")
        assert stream.connection.getresponse().status == 200


def test_an_error_before_the_beginning_has_its_status(service):
    answer = service.post_form(OPENAI, ("file", b"no sound"), *STREAM)
    assert (answer.status, answer.error["code"]) == (422, "audio_unreadable")


def test_one_connection_has_one_answer_after_the_other(service):
    with Streaming(service, LONG) as stream:
        *deltas, done = stream.rest()
        assert text_of(deltas) == done["text"]
        stream.connection.request("GET", "/version")
        assert json.loads(stream.connection.getresponse().read())["model"] == "small"


@pytest.mark.parametrize("half_close", [True, False])
def test_http_1_0_ends_it_with_the_connection(service, half_close):
    """Also where the client closes its side at once, as it may: nothing but the answer is sent into the answer."""
    body, content_type = encode_form([("file", LONG), *STREAM])
    head = f"POST {OPENAI} HTTP/1.0\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = service.raw(head.encode() + body, half_close=half_close, timeout=60)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"\r\nConnection: close" in head
    *deltas, done = events(content)
    assert text_of(deltas) == done["text"]


def test_a_client_that_leaves_in_the_middle_costs_no_more_time(service, minutes):
    with Streaming(service, minutes) as stream:
        stream.next()
        (worker,) = service.worker_pids()
        request_id = stream.response.headers["X-Request-Id"]
        stream.connection.sock.shutdown(socket.SHUT_RDWR)
    assert service.request_line(request_id)["status"] == 499
    wait_for(lambda: not is_running(worker))


def test_a_page_of_an_allowed_origin_may_read_it(service):
    with Streaming(service, LONG, Origin="https://a.example") as stream:
        assert stream.response.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert stream.rest()[-1]["type"] == "transcript.text.done"


@pytest.mark.parametrize("fields", [(("model", "whisper-1"),), (), (("model", "small"), ("response_format", "srt"))])
def test_who_does_not_wait_for_events_gets_the_answer_as_a_whole(service, fields):
    answer = service.transcribe("en-00.wav", ("stream", "true"), *fields)
    assert EXACT["en-00.wav"]["small"] in answer.text
    assert "content-length" in answer.headers
    assert answer.headers["x-whisper-ignored"] == "stream"


def test_text_comes_before_the_rest_is_computed(service, minutes):
    with Streaming(service, minutes) as stream:
        first = stream.next()
        assert first["type"] == "transcript.text.delta"
        with service.workers_held():
            # What was computed before that is in the socket's buffers, and the end is not among it.
            stream.connection.sock.settimeout(2)
            arrived = []
            with contextlib.suppress(TimeoutError):
                while True:
                    arrived.append(stream.next()["type"])
            assert "transcript.text.done" not in arrived
