"""`audio_url` of `POST /transcribe`: a file of somebody else's server, transcribed by the real service."""

from __future__ import annotations

import contextlib
import json

import pytest

from file_server import CLIP, CONTENT, FileServer, tls_server
from running_service import EXACT, running_service, submit_json, wait_for

SECRET = "signature=do-not-tell"


@pytest.fixture(scope="module")
def files():
    with contextlib.closing(FileServer()) as running:
        yield running


@pytest.fixture(scope="module")
def service(artifacts_dir, files):
    settings = {"WHISPER_AUDIO_URL_ALLOW": files.url, "WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_ENGINES": "1"}
    with running_service(artifacts_dir, WHISPER_REQUEST_TIMEOUT="20", **settings) as running:
        yield running


def transcribe(service, body, content_type: str | None = "application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content_type": content_type} if content_type else {}
    return service.request("POST", "/transcribe", data, **headers)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", "text/plain", None])
def test_a_file_is_transcribed_from_its_url_under_any_content_type(service, files, content_type):
    answer = transcribe(service, {"audio_url": f"{files.url}/clip?{SECRET}"}, content_type)
    assert (answer.status, answer.json["text"]) == (200, EXACT[CLIP]["small"])
    line = service.request_line(answer.headers["x-request-id"])
    assert (line["fetched_bytes"], line["route"]) == (len(CONTENT), "/transcribe")
    assert SECRET not in service.log_text


@pytest.mark.parametrize("path", ["raw", "raw.g722"])
def test_raw_samples_are_known_by_what_their_host_says_of_them(service, files, path):
    answer = transcribe(service, {"audio_url": f"{files.url}/{path}?{SECRET}"})
    assert (answer.status, answer.json["text"]) == (200, EXACT[CLIP]["small"])


def test_options_stand_beside_the_url(service, files):
    body = {"audio_url": f"{files.url}/clip", "language": "en", "temperature": 0, "model": "small", "prompt": None}
    assert transcribe(service, body).json["text"] == EXACT[CLIP]["small"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"audio_url=https://a/b", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b'["audio_url"]', "invalid_json", None),
        (b"[" * 60000, "invalid_json", None),
        (b'{"audio_url": "https://a/b", "temperature": NaN}', "invalid_json", None),
        (b'{"audio_url": "https://a/b", "prompt": "\\ud800"}', "invalid_json", None),
        ({}, "invalid_value", "audio_url"),
        ({"audiourl": "https://a/b"}, "audio_url_not_allowed", "audio_url"),
        ({"audio_url": None}, "invalid_value", "audio_url"),
        ({"audio_url": ["https://a/b"]}, "invalid_value", "audio_url"),
        (b'{"audio_url": "https://a/b", "audio_url": "https://a/c"}', "invalid_value", "audio_url"),
        ({"audio_url": "https://a/b", "language": "klingon"}, "invalid_value", "language"),
        (
            {"audio_url": "https://a/b", "stream": True, "model": "gpt-4o-transcribe", "response_format": "vtt"},
            "unsupported_value",
            "stream",
        ),
        ({"audio_url": "no address"}, "invalid_value", "audio_url"),
        ({"audio_url": "https://user:word@127.0.0.1/"}, "invalid_value", "audio_url"),
        ({"audio_url": "http://169.254.169.254/latest/"}, "audio_url_not_allowed", "audio_url"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(service, body, code, param):
    answer = transcribe(service, body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)


def test_a_body_over_its_limit_is_413(service):
    answer = transcribe(service, {"audio_url": "https://a/b", "prompt": "a" * 70000})
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


def test_a_url_that_is_not_allowed_is_refused_by_its_origin(service):
    answer = transcribe(service, {"audio_url": f"https://elsewhere.example/clip?{SECRET}"})
    assert answer.error["code"] == "audio_url_not_allowed"
    assert answer.error["message"] == (
        "audio_url: this server is not allowed to fetch from https://elsewhere.example (WHISPER_AUDIO_URL_ALLOW)"
    )


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("404", 422, "audio_url_failed"),
        ("500", 502, "audio_url_failed"),
        ("nonsense", 502, "audio_url_failed"),
        ("endless", 413, "file_too_large"),
    ],
)
def test_a_file_that_cannot_be_had_is_told_why(service, files, path, status, code):
    answer = transcribe(service, {"audio_url": f"{files.url}/{path}?{SECRET}"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, "audio_url")
    assert not any(word in answer.text + service.log_text for word in (SECRET, "the reason why", "secret-banner"))


def test_a_file_without_sound_is_422_and_names_the_field(service, files):
    answer = transcribe(service, {"audio_url": f"{files.url}/page"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (422, "audio_unreadable", "audio_url")


def test_a_client_that_leaves_ends_the_fetching(service, files):
    with submit_json(service, "/transcribe", {"audio_url": f"{files.url}/drip-body"}):
        assert files.dripping.wait(60)
    wait_for(lambda: [line for line in service.events("request") if line["status"] == 499])


def test_a_server_that_drips_is_504_at_the_requests_timeout(artifacts_dir, files):
    settings = {"WHISPER_AUDIO_URL_ALLOW": files.url, "WHISPER_REQUEST_TIMEOUT": "1"}
    with running_service(artifacts_dir, **settings) as service:
        answer = transcribe(service, {"audio_url": f"{files.url}/drip-body"})
    assert (answer.status, answer.error["code"]) == (504, "audio_url_failed")
    assert answer.error["message"] == "audio_url: 127.0.0.1 did not send the file in time"


def test_tls_of_a_private_authority_is_trusted_by_ssl_cert_file(artifacts_dir, localhost_pem):
    with contextlib.closing(tls_server(localhost_pem)) as files:
        origin = f"https://localhost:{files.port}"
        settings = {"WHISPER_AUDIO_URL_ALLOW": f"{origin}=127.0.0.1", "SSL_CERT_FILE": str(localhost_pem)}
        with running_service(artifacts_dir, **settings) as service:
            answer = transcribe(service, {"audio_url": f"{origin}/clip"})
    assert answer.json["text"] == EXACT[CLIP]["small"]
