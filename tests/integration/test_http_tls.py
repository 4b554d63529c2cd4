"""The service with a certificate: HTTPS from the upload to the transcript, and what it says of wrong files."""

from __future__ import annotations

import contextlib
import http.client

import pytest

from certificates import Authority
from paths import RECORDINGS
from running_service import EXACT, encode_form, run_cli, running_service, wait_for


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


def test_a_recording_is_transcribed_over_https_and_by_the_names_that_are_allowed(artifacts_dir, authority):
    certificate, key = authority.issue("speech.example")
    settings = {"WHISPER_TLS_CERT": str(certificate), "WHISPER_TLS_KEY": str(key)}
    with running_service(artifacts_dir, wait=False, WHISPER_ALLOWED_HOSTS="speech.example", **settings) as service:

        def ask(method: str, path: str, host: str = "speech.example", **sent) -> tuple[int, bytes]:
            connection = http.client.HTTPSConnection("127.0.0.1", service.port, timeout=60, context=authority.client())
            with contextlib.closing(connection):
                connection.request(
                    method, path, headers={"Host": host, **sent.get("headers", {})}, body=sent.get("body")
                )
                answer = connection.getresponse()
                return answer.status, answer.read()

        def is_ready() -> bool:
            with contextlib.suppress(OSError):
                return ask("GET", "/readyz")[0] == 200
            return False

        wait_for(is_ready)
        body, content_type = encode_form([("file", RECORDINGS / "fr-01.wav")])
        status, answer = ask("POST", "/v1/audio/transcriptions", body=body, headers={"Content-Type": content_type})
        assert (status, EXACT["fr-01.wav"]["small"].encode() in answer) == (200, True)
        assert ask("GET", "/health", host="evil.example")[0] == 421
        assert ask("GET", "/health", host="localhost")[0] == 200


@pytest.mark.parametrize("option", ["--check-config", "--self-test"])
def test_files_that_are_no_pair_are_told_of_in_one_line_with_status_2(artifacts_dir, authority, option):
    certificate, _ = authority.issue("a")
    _, other = authority.issue("b", "b.pem", "b.key")
    settings = {"WHISPER_TLS_CERT": str(certificate), "WHISPER_TLS_KEY": str(other)}
    result = run_cli(option, WHISPER_ARTIFACTS_DIR=str(artifacts_dir), **settings)
    assert result.returncode == 2
    assert "do not belong together" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["WHISPER_TLS_CERT", "WHISPER_TLS_KEY"])
def test_one_file_without_the_other_is_told_of(artifacts_dir, authority, name):
    certificate, key = authority.issue("a")
    path = certificate if name.endswith("CERT") else key
    result = run_cli("--check-config", WHISPER_ARTIFACTS_DIR=str(artifacts_dir), **{name: str(path)})
    assert (result.returncode, f"{name} is set without" in result.stderr) == (2, True)
