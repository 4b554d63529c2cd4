"""The API over real HTTP, on the real service: answers word for word, and what every mistake is told."""

from __future__ import annotations

import contextlib
import io
import json
import wave
from pathlib import Path

import pytest

from paths import RECORDINGS
from running_service import ADAPTERS, EXACT, encode_form, running_service, wait_for
from whisper_package.variants import choose_variant, cpu_flags

OPENAI = "/v1/audio/transcriptions"
CLIP = "en-00.wav"
TEXT = EXACT[CLIP]["small"]
# A file that costs no engine any time: an answer about the audio means that the fields were accepted.
NO_SOUND = ("file", b"no sound")
GOT_TO_THE_AUDIO = "audio_unreadable"


@pytest.fixture(scope="module", params=ADAPTERS)
def adapter(request):
    return request.param


@pytest.fixture(scope="module")
def service(artifacts_dir, adapter):
    limits = {"WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_MAX_AUDIO_SECONDS": "20"}
    with running_service(artifacts_dir, WHISPER_ADAPTER=adapter, **limits) as running:
        yield running


@pytest.mark.parametrize("recording", ["en-00.wav", "de-00.wav", "es-00.wav", "fr-01.wav", "vi-01.wav"])
def test_a_recording_of_each_language_gives_its_text_word_for_word(service, recording):
    answer = service.transcribe(recording)
    assert (answer.status, answer.json["text"]) == (200, EXACT[recording]["small"])


def test_without_speech_there_is_no_text(service):
    assert service.transcribe("silence.wav").json["text"] == ""


def test_json_is_the_default_format(service):
    answer = service.transcribe(CLIP)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"text": TEXT, "usage": {"type": "duration", "seconds": 4}}


def test_text_format(service):
    answer = service.transcribe(CLIP, ("response_format", "text"))
    assert (answer.headers["content-type"], answer.text) == ("text/plain; charset=utf-8", TEXT + "\n")


def test_verbose_json_has_segments_with_their_times(service):
    body = service.transcribe(CLIP, ("response_format", "verbose_json")).json
    assert (body["task"], body["language"], body["text"]) == ("transcribe", "english", TEXT)
    assert body["duration"] == pytest.approx(EXACT[CLIP]["seconds"], abs=0.01)
    assert body["segments"][0]["text"] == " " + TEXT
    assert [body["segments"][0]["start"] * 1000, body["segments"][0]["end"] * 1000] == EXACT[CLIP]["small_ms"]
    assert "words" not in body


def test_verbose_json_has_words_when_asked_for(service):
    form = (("response_format", "verbose_json"), ("timestamp_granularities[]", "word"))
    body = service.transcribe(CLIP, *form).json
    assert " ".join(word["word"] for word in body["words"]) == TEXT
    assert all(word["start"] <= word["end"] for word in body["words"])
    assert "segments" not in body


@pytest.mark.parametrize("granularity", ["timestamp_granularities[]", "timestamp_granularities"])
def test_both_granularities_may_be_asked_for(service, granularity):
    form = (("response_format", "verbose_json"), (granularity, "word"), (granularity, "segment"))
    assert {"words", "segments"} <= service.transcribe(CLIP, *form).json.keys()


def test_srt_format(service):
    answer = service.transcribe(CLIP, ("response_format", "srt"))
    assert answer.headers["content-type"] == "application/x-subrip; charset=utf-8"
    assert answer.text == f"1\n00:00:00,440 --> 00:00:02,520\n{TEXT}\n"


def test_vtt_format(service):
    answer = service.transcribe(CLIP, ("response_format", "vtt"))
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    assert answer.text == f"WEBVTT\n\n00:00:00.440 --> 00:00:02.520\n{TEXT}\n"


def test_transcribe_answers_with_language_duration_model_release_and_time(service, small_package):
    answer = service.transcribe("de-00.wav", path="/transcribe")
    body = dict(answer.json)
    assert body["language_probability"] is None or body["language_probability"] > 0.9
    steps = [float(step.partition("dur=")[2]) for step in answer.headers["server-timing"].split(", ")]
    assert body.pop("processing_seconds") == pytest.approx(sum(steps) / 1000, abs=0.001)
    assert body == {
        "text": EXACT["de-00.wav"]["small"],
        "language": "de",
        "language_probability": body["language_probability"],
        "duration": pytest.approx(EXACT["de-00.wav"]["seconds"], abs=0.01),
        "model": "small",
        "release_id": small_package.release_id,
        "request_id": answer.headers["x-request-id"],
    }


@pytest.mark.parametrize("path", ["/transcribe", OPENAI])
def test_the_bare_audio_may_be_the_body(service, path):
    audio = (RECORDINGS / "vi-01.wav").read_bytes()
    answer = service.request("POST", f"{path}?language=vi", audio, content_type="audio/wav")
    assert answer.json["text"] == EXACT["vi-01.wav"]["small"]


def test_an_answer_says_which_model_made_it_and_how_long_it_took(service, small_package):
    headers = service.transcribe(CLIP).headers
    assert headers["x-whisper-model"] == "small"
    assert headers["x-whisper-release"] == small_package.release_id
    assert [step.split(";")[0] for step in headers["server-timing"].split(", ")] == ["decode", "wait", "compute"]


@pytest.mark.parametrize("model", ["whisper-1", "small", "whisper-small", "Whisper-Small", "whisper_small_xeon", ""])
def test_the_model_goes_by_several_names(service, model):
    assert service.post_form(OPENAI, NO_SOUND, ("model", model)).error["code"] == GOT_TO_THE_AUDIO


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("language", "auto"),
        ("language", "en"),
        ("language", "EN"),
        ("language", ""),
        ("temperature", "0"),
        ("temperature", "0.8"),
        ("prompt", "five, eight"),
        ("prompt", "x" * 5000),
        ("prompt", "a\0b"),
        ("timestamp_granularities[]", "word"),
        ("include[]", "logprobs"),
        ("response_format", ""),
        ("stream", "false"),
        ("stream", "true"),
        ("chunking_strategy", "auto"),
    ],
)
def test_openais_fields_are_accepted(service, name, value):
    assert service.post_form(OPENAI, NO_SOUND, (name, value)).error["code"] == GOT_TO_THE_AUDIO


@pytest.mark.parametrize(
    ("name", "value", "status", "code", "allowed"),
    [
        ("model", "large-v3", 404, "model_not_found", "this server serves small"),
        ("language", "klingon", 400, "invalid_value", "a language by code, name or locale"),
        ("response_format", "xml", 400, "invalid_value", "json, text, verbose_json, srt, vtt"),
        ("temperature", "warm", 400, "invalid_value", "a number from 0 to 1"),
        ("temperature", "1.1", 400, "invalid_value", "a number from 0 to 1"),
        ("temperature", "nan", 400, "invalid_value", "a number from 0 to 1"),
        ("timestamp_granularities[]", "letter", 400, "invalid_value", "segment or word"),
        ("response_format", "diarized_json", 400, "invalid_value", "needs diarize=channel"),
        ("chunking_strategy", "loud", 400, "invalid_value", "auto or a JSON object"),
        ("diarize", "speakers", 400, "unsupported_value", "use diarize=channel"),
    ],
)
def test_a_field_at_fault_is_named_with_what_is_allowed(service, name, value, status, code, allowed):
    answer = service.post_form(OPENAI, NO_SOUND, (name, value))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, name)
    assert answer.error["type"] == "invalid_request_error"
    assert allowed in answer.error["message"]


def test_a_stream_of_what_is_not_json_is_refused(service):
    fields = ("model", "gpt-4o-transcribe"), ("stream", "true"), ("response_format", "srt")
    answer = service.post_form(OPENAI, NO_SOUND, *fields)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_value", "stream")
    assert "leave stream out" in answer.error["message"]


def test_a_field_that_stands_twice_is_refused(service):
    answer = service.post_form(OPENAI, NO_SOUND, ("language", "en"), ("language", "de"))
    assert (answer.status, answer.error["param"]) == (400, "language")


def test_without_a_file_the_field_is_named(service):
    answer = service.post_form(OPENAI, ("model", "small"))
    assert (answer.status, answer.error["param"]) == (400, "file")


def test_a_file_sent_as_text_is_explained(service):
    answer = service.post_form(OPENAI, ("file", "call.wav"))
    assert (answer.status, answer.error["param"]) == (400, "file")
    assert "-F file=@call.wav" in answer.error["message"]


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"RIFF\x10\0\0\0WAVEfmt " + b"\xff" * 40])
def test_unreadable_audio_is_422(service, content):
    answer = service.post_form(OPENAI, ("file", content))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (422, "audio_unreadable", "file")


def test_audio_that_is_too_long_is_413(service):
    clip = io.BytesIO()
    with wave.open(clip, "wb") as writer:
        writer.setparams((1, 2, 16000, 0, "NONE", ""))
        writer.writeframes(bytes(2 * 16000 * 20 + 2))
    answer = service.post_form(OPENAI, ("file", clip.getvalue()))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (413, "audio_too_long", "file")
    assert "20 s" in answer.error["message"]


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20])
def test_an_upload_that_is_too_large_is_413_and_says_the_limit(service, size):
    answer = service.post_form(OPENAI, ("file", bytes(size)))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (413, "file_too_large", "file")
    assert "1 MiB" in answer.error["message"]


def test_an_upload_of_unknown_length_is_cut_at_the_limit(service):
    chunks = b"".join(b"10000\r\n" + bytes(1 << 16) + b"\r\n" for _ in range(20)) + b"0\r\n\r\n"
    head = b"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert service.raw(head + chunks).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_audio_url_is_told_not_to_be_available_unless_it_is_allowed(service, content_type):
    answer = service.request("POST", "/transcribe", b'{"audio_url":"http://a/b.wav"}', content_type=content_type)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "audio_url_not_available", "audio_url")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_another_content_type_is_415(service, content_type):
    answer = service.request("POST", OPENAI, b"{}", content_type=content_type)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_health_is_ok_while_the_process_lives(service, path):
    assert (service.get(path).status, service.get(path).json) == (200, {"status": "ok"})


def test_readyz_names_the_model_and_its_release(service, small_package):
    body = {"status": "ready", "model": "small", "release_id": small_package.release_id}
    assert service.get("/readyz").json == body


def test_version_says_what_runs(service, adapter, small_package):
    body = service.get("/version").json
    names = ("model", "release_id", "quantization", "whisper_cpp", "adapter", "threads", "audio_ctx", "vad", "state")
    assert {name: body[name] for name in names} == {
        "model": "small",
        "release_id": small_package.release_id,
        "quantization": "q5_1",
        "whisper_cpp": small_package.manifest["whisper_cpp"]["version"],
        "adapter": adapter,
        "threads": 1,
        "audio_ctx": "auto",
        "vad": "on",
        "state": "ready",
    }
    chosen = choose_variant(small_package, cpu_flags())
    assert (body["cpu_variant"], body["cpu_variant_reason"]) == (chosen.name, chosen.reason)
    assert body["started_at"] <= body["ready_at"]


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/version"])
def test_head_has_the_headers_of_get_and_no_body(service, path):
    head, get = service.request("HEAD", path), service.get(path)
    assert (head.status, head.headers["content-length"], head.body) == (200, get.headers["content-length"], b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/health", "GET, HEAD"), ("GET", OPENAI, "POST"), ("DELETE", "/transcribe", "POST")],
)
def test_another_method_is_405_with_the_methods_allowed(service, method, path, allowed):
    answer = service.request(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_a_post_without_a_path_is_404_and_names_the_known_ones(service):
    answer = service.request("POST", "/", b"hello")
    assert (service.get("/").status, answer.status, OPENAI in answer.error["message"]) == (200, 404, True)


def test_an_unknown_path_is_404_in_json_and_names_the_known_ones(service):
    answer = service.get("/v1/nothing")
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert OPENAI in answer.error["message"]


def test_every_answer_carries_a_request_id(service):
    for answer in (
        service.get("/health"),
        service.get("/nothing"),
        service.post_form(OPENAI, NO_SOUND),
    ):
        assert answer.headers["x-request-id"].startswith("req_")


def test_a_request_writes_one_line_without_its_text_or_file_name(service):
    form = (("prompt", "unheard-of"), ("language", "en"))
    answer = service.transcribe(CLIP, *form)
    line = service.request_line(answer.headers["x-request-id"])
    assert line.keys() == {
        *("time", "level", "event", "id", "status", "client", "route", "audio_seconds", "decode_ms", "wait_ms"),
        *("compute_ms", "attempts", "speech_seconds", "bytes", "total_ms"),
    }
    assert 1 < line["speech_seconds"] < line["audio_seconds"]
    assert (line["route"], line["status"], line["audio_seconds"], line["attempts"]) == (OPENAI, 200, 3.17, 1)
    written = json.dumps(line)
    assert not any(secret in written for secret in (TEXT, "unheard-of", "clip", CLIP))


def test_a_refused_request_writes_one_line_too(service):
    answer = service.get("/secret-path")
    line = service.request_line(answer.headers["x-request-id"])
    assert (line["status"], line["route"]) == (404, None)
    assert "secret-path" not in json.dumps(line)


def test_a_start_writes_one_line_about_the_model(service, adapter, small_package):
    (line,) = service.events("model loaded" if adapter == "library" else "model checked")
    assert (line["model"], line["release_id"]) == ("small", small_package.release_id)


def test_a_connection_serves_one_request_after_the_other(service):
    body, content_type = encode_form([("file", RECORDINGS / "fr-01.wav")])
    head = (
        f"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    last = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    received = service.raw((head.encode() + body) * 2 + last)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.count(EXACT["fr-01.wav"]["small"].encode()) == 2


def test_nothing_uploaded_stays_open_or_on_disk(service):
    def opened() -> list[str]:
        names = []
        for entry in Path(f"/proc/{service.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                names.append(str(entry.readlink()))
        # What processes report of their memory is open in /proc.
        return [name for name in names if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))]

    for part in (("file", RECORDINGS / CLIP), NO_SOUND):
        service.post_form(OPENAI, part)
    wait_for(lambda: set(opened()) == {str(service.log_file)})
    assert list(service.log_file.parent.iterdir()) == [service.log_file]  # its TMPDIR and its working directory
