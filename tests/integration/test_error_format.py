"""WHISPER_ERROR_FORMAT=fastapi: each error of the service says in FastAPI's shape what it says in OpenAI's."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from paths import RECORDINGS
from running_service import Answer, Service, environment, running_service, wait_for

OPENAI = "/v1/audio/transcriptions"
CLIP = RECORDINGS / "en-00.wav"
AUDIO = CLIP.read_bytes()
KEY = "a-key-of-a-fastapi-client"
# Differ from request to request, or follow from the body.
OWN_OF_AN_ANSWER = {"date", "x-request-id", "content-length"}


@pytest.fixture(scope="module")
def services(artifacts_dir, tmp_path_factory) -> Iterator[dict[str, Service]]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n", encoding="ascii")
    settings = {
        "WHISPER_API_KEY_FILE": str(keys),
        "WHISPER_ALLOWED_HOSTS": "stt.example.com",
        "WHISPER_AUDIO_URL_ALLOW": "http://127.0.0.1:9",
        "WHISPER_CORS_ORIGINS": "https://app.example.com",
        "WHISPER_ENGINES": "1",
        "WHISPER_MAX_UPLOAD_MB": "1",
        "WHISPER_STRICT_FIELDS": "true",
    }
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(running_service(artifacts_dir, WHISPER_ERROR_FORMAT=name, **settings))
            for name in ("openai", "fastapi")
        }
        for service in running.values():
            service.headers["Authorization"] = f"Bearer {KEY}"
        yield running


ERRORS = {
    "a field's value": (400, "POST", f"{OPENAI}?temperature=hot", AUDIO, {}),
    "an unknown field": (400, "POST", f"{OPENAI}?langauge=de", AUDIO, {}),
    "JSON that is none": (400, "POST", "/transcribe", b"{", {"content_type": "application/json"}),
    "an audio_url that is not allowed": (
        *(400, "POST", "/transcribe"),
        *(b'{"audio_url": "http://169.254.169.254/a"}', {"content_type": "application/json"}),
    ),
    "a wrong key": (401, "POST", OPENAI, AUDIO, {"Authorization": "Bearer wrong"}),
    "an unknown path": (404, "GET", "/nothing", None, {}),
    "another model": (404, "POST", f"{OPENAI}?model=large-v3", AUDIO, {}),
    "another method": (405, "GET", OPENAI, None, {}),
    "a large JSON": (413, "POST", "/transcribe", bytes(1 << 17), {"content_type": "application/json"}),
    "a large upload": (413, "POST", OPENAI, bytes(2 << 20), {"content_type": "audio/wav"}),
    "another type": (415, "POST", OPENAI, b"<a/>", {"content_type": "text/xml"}),
    "an expectation": (417, "POST", OPENAI, AUDIO, {"expect": "wonders"}),
    "another host": (421, "GET", "/health", None, {"host": "elsewhere.example.com"}),
    "no sound": (422, "POST", OPENAI, b"no sound", {"origin": "https://app.example.com"}),
    "an audio_url that nobody answers": (
        *(502, "POST", "/transcribe"),
        *(b'{"audio_url": "http://127.0.0.1:9/a"}', {"content_type": "application/json"}),
    ),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_is_the_same_in_each_format_but_for_its_shape(services, case):
    status, *request, headers = case
    openai, fastapi = (services[name].request(*request, **headers) for name in ("openai", "fastapi"))
    assert (openai.status, fastapi.status) == (status, status)
    assert headers_of(fastapi) == headers_of(openai)
    error = openai.json["error"]
    assert fastapi.headers["x-whisper-error"] == error["code"]
    place = ["body", error["param"]] if error["param"] else ["body"]
    listed = [{"loc": place, "msg": error["message"], "type": error["code"]}]
    assert fastapi.json == {"detail": listed if status == 422 else error["message"]}


def headers_of(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OWN_OF_AN_ANSWER}


def test_what_is_wrong_with_a_file_is_listed_by_its_field(services):
    answer = services["fastapi"].post_form("/transcribe", ("file", b"no sound"))
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "file"])


def test_a_service_that_is_not_ready_says_so_in_a_detail_too(services):
    service = services["fastapi"]
    with service.workers_held():
        ready = wait_for(lambda: (answer := service.get("/readyz")).status == 503 and answer)
    assert ready.json["detail"] == ready.json["reason"]
    wait_for(lambda: service.get("/readyz").status == 200)


def test_the_reference_describes_the_shape_of_the_errors(services):
    document = services["fastapi"].get("/openapi.json").json
    responses = document["paths"]["/transcribe"]["post"]["responses"]
    schemas = {status: responses[status]["content"]["application/json"]["schema"]["$ref"] for status in ("400", "422")}
    assert schemas == {"400": "#/components/schemas/Error", "422": "#/components/schemas/HTTPValidationError"}
    assert list(document["components"]["schemas"]["Error"]["properties"]) == ["detail"]
    assert '{"detail": "…"}' in services["fastapi"].get("/docs").text


@pytest.mark.parametrize("error_format", ["openai", "fastapi"])
def test_the_command_prints_what_the_service_answered(services, error_format, tmp_path):
    key, clip = tmp_path / "key", tmp_path / "a.wav"
    key.write_text(KEY, encoding="ascii")
    key.chmod(0o600)
    clip.write_bytes(b"no sound")
    service = services[error_format]
    done = subprocess.run(
        [*(sys.executable, "-m", "whisper_command", "transcribe"), "--server", service.url, "--key-file", key, clip],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = service.post_form(OPENAI, ("file", clip))
    message = expected.json["error"]["message"] if error_format == "openai" else expected.json["detail"][0]["msg"]
    assert message in done.stderr
