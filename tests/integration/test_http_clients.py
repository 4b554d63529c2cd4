"""What real clients send, byte by byte, against the real service: it is understood, or told what it should be.

Each habit stands for its relatives; where the pieces are tested is in tests/unit (fields, forms, paths, encodings).
"""

from __future__ import annotations

import gzip
import json
import socket
import subprocess

import pytest

from paths import RECORDINGS
from running_service import EXACT, running_service

OPENAI = "/v1/audio/transcriptions"
CLIP = RECORDINGS / "en-00.wav"
AUDIO = CLIP.read_bytes()
TEXT = EXACT["en-00.wav"]["small"]
GERMAN = RECORDINGS / "de-00.wav"
ENGLISH_OF_GERMAN = "three seven zero six"


@pytest.fixture(scope="module")
def service(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_MODEL_ALIASES="support-calls, our/own") as running:
        yield running


def form(*parts: bytes, before: bytes = b"") -> bytes:
    return before + b"".join(b"--B\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--B--"


FILE = b'name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + AUDIO
MODEL = b'name="model"\r\n\r\nwhisper-1'

FORMS = {
    "an empty line before the first boundary": form(MODEL, FILE, before=b"\r\n"),
    "fields after the file": form(FILE, MODEL, b'name="response_format"\r\n\r\njson'),
    "no file name": form(b'name="file"\r\nContent-Type: audio/wav\r\n\r\n' + AUDIO),
    "no file name and no type": form(b"name=file\r\n\r\n" + AUDIO),
    "the type of a browser's recorder": form(
        b'name="file"; filename="blob"\r\nContent-Type: video/webm;codecs=vp8,opus\r\n\r\n' + AUDIO
    ),
    "names without quotes and two file names, as .NET writes them": form(
        b"name=model\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nwhisper-1",
        b"name=file; filename=a.wav; filename*=utf-8''a.wav\r\nContent-Type: audio/wav\r\n\r\n" + AUDIO,
    ),
    "a name beyond ASCII": form('name="file"; filename="ghi âm – запись.wav"\r\n\r\n'.encode() + AUDIO),
    "another name of the field": form(b'name="audio"; filename="a.wav"\r\n\r\n' + AUDIO),
    "JavaScript's nothing": form(FILE, b"name=language\r\n\r\nundefined", b"name=prompt\r\n\r\nnull"),
    "Python's values": form(
        FILE, b"name=temperature\r\n\r\n0.0", b"name=vad_filter\r\n\r\nTrue", b"name=a\r\n\r\nNone"
    ),
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS.keys())
def test_a_form_is_understood(service, body):
    answer = service.request("POST", OPENAI, body, content_type="multipart/form-data; boundary=B")
    assert (answer.status, answer.json.get("text")) == (200, TEXT)


@pytest.mark.parametrize(
    "content_type",
    ["audio/wav", "audio/x-wav; charset=utf-8", "video/webm;codecs=vp8,opus", "application/ogg",
     "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded", "*/*", "wav", None],
)  # fmt: skip
@pytest.mark.parametrize("path", [OPENAI, "/transcribe"])
def test_the_bare_audio_is_understood_under_any_type_that_does_not_say_otherwise(service, path, content_type):
    headers = {"content_type": content_type} if content_type else {}
    answer = service.request("POST", path, AUDIO, **headers)
    assert (answer.status, answer.json.get("text")) == (200, TEXT)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("//v1//audio/transcriptions", TEXT),
        ("/audio/transcriptions/", TEXT),
        ("/v1/audio/transcriptions?api-version=2024-06-01&language=English", TEXT),
        ("/openai/deployments/whisper-1/audio/transcriptions?api-version=2024-06-01", TEXT),
        ("/openai/deployments/our-whisper/audio/transcriptions?api-version=2024-06-01&model=our-whisper", TEXT),
        ("/api/v1/audio/transcriptions/audio/transcriptions:", TEXT),
        ("/v1/audio/transcriptions?user=caf%C3%A9", TEXT),
    ],
)
def test_a_path_and_its_query_are_understood(service, path, text):
    assert service.transcribe(CLIP.name, path=path).json["text"] == text


def test_a_query_in_utf_8_is_understood(service):
    headers = f"Host: a\r\nContent-Length: {len(AUDIO)}\r\nConnection: close\r\n\r\n"
    head = f"POST /transcribe?user=café–звук&language=English HTTP/1.1\r\n{headers}"
    assert TEXT.encode() in service.raw(head.encode() + AUDIO)


@pytest.mark.parametrize("kind", ["audio/wav", "multipart/form-data; boundary=B"])
def test_a_compressed_body_is_understood(service, kind):
    body = gzip.compress(form(FILE) if "form" in kind else AUDIO)
    answer = service.request("POST", OPENAI, body, content_type=kind, content_encoding="gzip")
    assert answer.json["text"] == TEXT


def test_a_compressed_body_over_the_limit_is_413(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_MAX_UPLOAD_MB="1") as service:
        body = gzip.compress((AUDIO * 20)[: (1 << 20) + 1])
        answer = service.request("POST", OPENAI, body, content_type="audio/wav", content_encoding="gzip")
        assert (answer.status, answer.error["code"]) == (413, "file_too_large")


def test_a_client_that_closed_its_sending_side_gets_its_answer(service):
    head = f"POST {OPENAI} HTTP/1.1\r\nHost: a\r\nContent-Type: audio/wav\r\nContent-Length: {len(AUDIO)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock:
        sock.sendall(head.encode() + AUDIO)
        sock.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert TEXT.encode() in received


@pytest.mark.parametrize(
    ("content_type", "body", "received"),
    [
        ("text/html", b"<html>", "text/html"),
        ("text/plain", b"five eight", "text/plain"),
        ("application/json", b'{"file": "UklGRg=="}', "application/json"),
        ("application/x-www-form-urlencoded", b"model=whisper-1&file=a.wav", "application/x-www-form-urlencoded"),
        ("multipart/mixed; boundary=B", form(FILE), "multipart/mixed"),
    ],
)
def test_another_type_is_415_and_the_answer_says_what_was_received(service, content_type, body, received):
    answer = service.request("POST", OPENAI, body, content_type=content_type)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    assert received in answer.error["message"]
    assert "multipart/form-data in the field file" in answer.error["message"]


def test_nothing_at_all_is_told_what_to_send(service):
    answer = service.request("POST", OPENAI)
    assert (answer.status, answer.error["param"]) == (400, "file")
    assert "-F file=@call.wav" in answer.error["message"]


def test_an_unknown_field_is_named_in_the_answer_and_in_the_log(service):
    answer = service.transcribe(CLIP.name, ("langauge", "de"), ("x y", "1"), ("user", "me"))
    assert answer.headers["x-whisper-ignored"] == "langauge, x%20y"
    assert service.request_line(answer.headers["x-request-id"])["ignored"] == ["langauge", "x%20y"]


def test_an_unknown_field_may_be_rejected(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_STRICT_FIELDS="true") as service:
        answer = service.transcribe(CLIP.name, ("langauge", "de"))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unknown_field", "langauge")
        assert "did you mean language?" in answer.error["message"]
        assert service.transcribe(CLIP.name, ("user", "me"), path=OPENAI + "?api-version=1").json["text"] == TEXT


@pytest.mark.parametrize(
    "model",
    ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "openai/whisper-large-v3", "support-calls", "our/own"],
)
def test_names_of_models_mean_what_is_served_and_the_answer_says_what(service, model):
    answer = service.transcribe(CLIP.name, ("model", model))
    assert (answer.json["text"], answer.headers["x-whisper-model"]) == (TEXT, "small")
    assert answer.headers["x-whisper-language"] == "en"


def test_the_model_of_an_azure_deployment_is_checked(service):
    answer = service.transcribe(CLIP.name, path="/openai/deployments/medium/audio/transcriptions")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_a_translation_is_english(service):
    assert service.transcribe(GERMAN.name, path="/v1/audio/translations").json["text"] == ENGLISH_OF_GERMAN
    assert service.transcribe(GERMAN.name, ("task", "translate")).json["text"] == ENGLISH_OF_GERMAN
    assert service.transcribe(GERMAN.name, ("translate", "true"), path="/inference").json["text"] == ENGLISH_OF_GERMAN


def test_whisper_cpps_server_has_words_in_its_segments(service):
    body = service.transcribe(CLIP.name, ("response_format", "verbose_json"), path="/inference").json
    assert " ".join(word["word"] for word in body["segments"][0]["words"]) == TEXT
    without = (("response_format", "verbose_json"), ("no_timestamps", "true"))
    assert "words" not in service.transcribe(CLIP.name, *without, path="/inference").json["segments"][0]


@pytest.mark.parametrize(
    ("output", "content_type", "beginning"),
    [
        ("", "text/plain; charset=utf-8", TEXT),
        ("txt", "text/plain; charset=utf-8", TEXT),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n"),
        ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:00,440"),
        ("tsv", "text/tab-separated-values; charset=utf-8", "start\tend\ttext\n440\t2520\t"),
        ("json", "application/json", "{"),
    ],
)
def test_the_asr_web_service_answers_in_each_of_its_formats(service, output, content_type, beginning):
    answer = service.post_form(f"/asr?encode=true&task=transcribe&language=en&output={output}", ("audio_file", CLIP))
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert answer.text.startswith(beginning)


def test_the_asr_web_service_has_words_in_its_segments(service):
    body = service.post_form("/asr?output=json&word_timestamps=true", ("audio_file", CLIP)).json
    assert (body["text"], body["language"]) == (TEXT, "en")
    assert " ".join(word["word"] for word in body["segments"][0]["words"]) == TEXT


def test_the_asr_web_service_takes_bare_samples(service):
    """Bazarr sends them without name and type, and says so by encode=false."""
    samples = ("audio_file", AUDIO[44:])
    assert service.post_form("/asr?encode=false&video_file=film.mkv", samples).text.strip() == TEXT
    assert service.post_form("/detect-language?encode=false", samples).json["language_code"] == "en"
    assert service.post_form("/asr?encode=false", ("audio_file", CLIP)).text.strip() == TEXT


def test_the_recording_may_be_sent_under_the_names_of_two_servers(service):
    answer = service.post_form(OPENAI, ("audio_file", GERMAN), ("file", CLIP))
    assert (answer.json["text"], answer.headers["x-whisper-ignored"]) == (TEXT, "audio_file")


def test_a_language_is_detected(service):
    body = service.post_form("/detect-language?encode=true", ("audio_file", GERMAN)).json
    assert (body["detected_language"], body["language_code"]) == ("german", "de")
    assert 0.9 < body["confidence"] <= 1


def test_logprobs_spell_the_text(service):
    body = service.transcribe(CLIP.name, ("include[]", "logprobs")).json
    assert b"".join(bytes(token["bytes"]) for token in body["logprobs"]).decode().strip() == TEXT
    assert all(token["logprob"] <= 0 for token in body["logprobs"])


def test_json_has_the_words_that_were_asked_for(service):
    words = service.transcribe(CLIP.name, ("timestamp_granularities", '["word"]')).json["words"]
    assert " ".join(word["word"] for word in words) == TEXT


def test_silence_gives_captions_without_cues(service):
    for name, text in (("srt", ""), ("vtt", "WEBVTT\n"), ("tsv", "start\tend\ttext\n")):
        answer = service.transcribe("silence.wav", ("response_format", name))
        assert (answer.status, answer.text) == (200, text)


def test_the_models_are_told(service):
    listed = service.get("/v1/models").json
    assert [model["id"] for model in listed["data"]] == ["small", "whisper-1"]
    assert service.get("/models/whisper-1/").json["id"] == "whisper-1"
    assert service.get("/v1/models/medium").error["code"] == "model_not_found"


def test_the_reference_is_served(service):
    assert "/v1/audio/transcriptions" in service.get("/openapi.json").json["paths"]
    page = service.get("/docs/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_metrics_are_at_one_path(service):
    answer = service.get("/metrics/")
    assert (answer.status, answer.headers["location"]) == (308, "/metrics")


def test_a_key_is_taken_from_other_headers(artifacts_dir, tmp_path):
    (tmp_path / "keys").write_text("secret\n", encoding="ascii")
    with running_service(artifacts_dir, WHISPER_API_KEY_FILE=str(tmp_path / "keys")) as service:
        assert service.request("POST", OPENAI, AUDIO).status == 401
        for headers in ({"x_api_key": "secret"}, {"api_key": "secret"}, {"authorization": "Bearer secret"}):
            assert service.request("POST", OPENAI, AUDIO, **headers).json["text"] == TEXT
        assert {"bearer": []} in service.get("/openapi.json").json["paths"][OPENAI]["post"]["security"]


def test_a_page_of_another_origin_may_call_if_the_operator_says_so(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_CORS_ORIGINS="https://app.example.com") as service:
        ask = {"origin": "https://app.example.com", "access_control_request_method": "POST"}
        preflight = service.request("OPTIONS", OPENAI, **ask)
        assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, ask["origin"])
        answer = service.request("POST", OPENAI, b"no sound", origin=ask["origin"])
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (422, ask["origin"])
        other = service.request("POST", OPENAI, b"no sound", origin="https://other.example.com")
        assert "access-control-allow-origin" not in other.headers


def test_without_a_setting_no_other_origin_may_call(service):
    answer = service.request("OPTIONS", OPENAI, origin="https://a.example", access_control_request_method="POST")
    assert (answer.status, "access-control-allow-origin" in answer.headers) == (405, False)


def test_curl_sends_a_file_in_each_of_its_ways(service):
    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["text"]

    assert curl("--data-binary", f"@{CLIP}", service.url + "/transcribe") == TEXT
    assert curl("--data-binary", f"@{CLIP}", service.url + OPENAI) == TEXT
    assert curl("--upload-file", str(CLIP), "--request", "POST", service.url + OPENAI) == TEXT
    assert curl("--form", f"file=@{CLIP};type=audio/wav", service.url + OPENAI) == TEXT


@pytest.mark.parametrize(
    "fields",
    [
        {"beam_size": "5", "best_of": "5", "patience": "1.0", "temperature": "0", "hotwords": "eight"},
        {"compression_ratio_threshold": "2.4", "logprob_threshold": "-1", "no_speech_threshold": "0.6"},
        {"condition_on_previous_text": "false", "suppress_tokens": "-1", "vad": "true", "temperature_inc": "0.2"},
    ],
)
def test_every_option_of_decoding_may_be_sent(service, fields):
    answer = service.transcribe(CLIP.name, *fields.items())
    assert (answer.status, "x-whisper-ignored" in answer.headers) == (200, False)
    assert "eight" in answer.json["text"]
