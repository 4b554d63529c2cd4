"""The smaller parts of the web side: paths, names of models, cross-origin answers, encodings of a body."""

from __future__ import annotations

import functools
import gzip
import io
import random
import zlib
from types import SimpleNamespace

import pytest

from whisper_xeon.web.api_table import ENDPOINTS
from whisper_xeon.web.content import Content, content_kind, decoded, looks_like_fields, looks_like_json, may_be_audio
from whisper_xeon.web.cors import allow_origins
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.model_names import ModelNames
from whisper_xeon.web.paths import Paths
from whisper_xeon.web.routes import _names
from whisper_xeon.web.server import Response

PATHS = Paths(ENDPOINTS)
TOO_LARGE = HttpError(413, "too large", code="file_too_large")


def name_at(path: str, method: str = "POST") -> str | None:
    found = PATHS.find(path)
    return found.methods[method].name if found else None


@pytest.mark.parametrize(
    "path",
    ["/v1/audio/transcriptions", "/v1/audio/transcriptions/", "//v1//audio/transcriptions", "/audio/transcriptions",
     "/v1/v1/audio/transcriptions", "/openai/v1/audio/transcriptions", "/audio/transcriptions//",
     "/openai/deployments/whisper/audio/transcriptions", "/api/v1/audio/transcriptions", "/api/audio/transcriptions",
     "/api/openai/deployments/whisper/audio/transcriptions", "/v1/audio/transcriptions:",
     "/v1/audio/transcriptions/:/", "/v1/audio/transcriptions/audio/transcriptions",
     "/v1/audio/transcriptions/v1/audio/transcriptions", "/audio/translations/audio/transcriptions/"],
)  # fmt: skip
def test_a_path_is_found_in_the_ways_that_clients_write_it(path):
    assert name_at(path) == "transcriptions"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/v1/health", "health"), ("/healthz/", "health"), ("/v1/models/", "models"), ("/models", "models"),
     ("/", "page"), ("//docs/", "docs"), ("/v1", "page"), ("/v1/version", "version"), ("/metrics", "metrics")],
)  # fmt: skip
def test_the_other_endpoints_are_found_too(path, name):
    assert name_at(path, "GET") == name


@pytest.mark.parametrize(
    "path",
    ["/v1/nothing", "/V1/models", "/v1audio", "/x/metrics", "/openaix/health", "/v1/..", "/apiv1/models",
     "/health/audio/transcriptions", "/audio/transcriptions/audio/models"],
)  # fmt: skip
def test_other_paths_lead_nowhere(path):
    assert PATHS.find(path) is None


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("/v1/models/whisper-1", "whisper-1"),
        ("/models/openai/whisper-small", "openai/whisper-small"),
        ("/v1/models/openai%2Fwhisper-small/", "openai/whisper-small"),
        ("/v1//models//x", "x"),
    ],
)
def test_a_model_is_named_by_the_rest_of_the_path(path, identity):
    assert PATHS.find(path).identity == identity


def test_an_azure_deployment_names_the_model():
    assert PATHS.find("/openai/deployments/my%20model/audio/transcriptions").model == "my model"


@pytest.mark.parametrize("path", ["/metrics/", "//metrics", "/v1/metrics", "/api/metrics", "/metrics:"])
def test_what_a_proxy_keeps_away_by_its_path_is_at_no_other(path):
    assert PATHS.find(path).elsewhere
    assert not PATHS.find("/metrics").elsewhere


MODELS = ModelNames(SimpleNamespace(model="small", name="whisper_small_xeon"), ["Support"], created=1.5)


@pytest.mark.parametrize(
    "name",
    ["", "small", "SMALL", "whisper-small", "whisper_small_xeon", "whisper-1", "gpt-4o-transcribe", "Support",
     "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15", "gpt-4o-transcribe-diarize", "support",
     "openai/whisper-large-v3", "Systran/faster-whisper-large-v3", "whisper", "Default", "ggml-small.bin",
     "models/ggml-small.bin", "/srv/models/ggml-small-q5_1.bin"],
)  # fmt: skip
def test_names_that_mean_what_is_served(name):
    MODELS.check(name)


def test_the_aliases_of_openais_tool_mean_their_model():
    ModelNames(SimpleNamespace(model="large-v3-turbo", name="whisper_large-v3-turbo_xeon"), [], created=0).check(
        "Turbo"
    )


@pytest.mark.parametrize(
    ("deployment", "name"),
    [
        ("my-whisper", ""),
        ("my-whisper", "my-whisper"),
        ("my whisper 2", "whisper-1"),
        ("whisper", "whisper"),
        ("small", "small"),
        ("", "small"),
        ("", ""),
    ],
)
def test_a_deployment_of_azures_kind_may_have_any_name(deployment, name):
    MODELS.check_request(deployment, name)


@pytest.mark.parametrize(
    ("deployment", "name"),
    [("medium", ""), ("whisper-large-v3", "whisper-large-v3"), ("my-whisper", "medium"), ("", "medium"), ("", "my-x")],
)
def test_a_deployment_named_after_a_model_that_is_not_served_is_not_found(deployment, name):
    with pytest.raises(HttpError, match="this server serves small"):
        MODELS.check_request(deployment, name)


@pytest.mark.parametrize(
    "name",
    ["medium", "large-v3", "turbo", "whisper-medium", "gpt-4o", "whisper-2", "a/b/c", "/", "ggml-base.bin", "string",
     "models/ggml-base.bin", "/srv/models/whisper-large-v3-turbo", "ggml-tiny.en-q5_1.bin", "small.en"],
)  # fmt: skip
def test_names_of_other_models_are_not_found_and_the_served_one_told(name):
    with pytest.raises(HttpError, match="this server serves small") as caught:
        MODELS.check(name)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_the_list_of_models_is_openais():
    assert MODELS.listed()[0] == {"id": "small", "object": "model", "created": 1, "owned_by": "whisper-xeon"}


@pytest.mark.parametrize(
    ("ignored", "header"),
    [
        ((), ""),
        (("foo", "a[b]", ""), 'foo, a[b], ""'),
        (("x" * 100,), "x" * 64),
        (("é" * 64,) * 5, ", ".join(["%C3%A9" * 64] * 2 + ["..."])),
        (("f",) * 21, ", ".join([*["f"] * 20, "..."])),
    ],
)
def test_the_names_of_what_was_ignored_fit_into_a_header(ignored, header):
    assert ", ".join(_names(ignored)) == header
    assert len(header) <= 1024


def ask(origins, method="POST", **headers) -> Response | HttpError:
    def application(request):
        if request.method == "OPTIONS":
            raise HttpError(405, "no", code="method_not_allowed", headers={"Allow": "POST"})
        return Response(200, b"answer")

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        return allow_origins(application, origins)(SimpleNamespace(method=method, headers=named, begin=None))
    except HttpError as error:
        return error


PREFLIGHT = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,x-stainless-os"}


@pytest.mark.parametrize(("origins", "told"), [(["https://a.example"], "https://a.example"), (["*"], "*")])
def test_a_page_of_an_allowed_origin_reads_the_answer(origins, told):
    response = ask(origins, origin="https://a.example")
    assert response.headers["Access-Control-Allow-Origin"] == told
    assert "X-Whisper-Ignored" in response.headers["Access-Control-Expose-Headers"]


def test_a_preflight_of_an_allowed_origin_is_answered():
    response = ask(["https://a.example"], "OPTIONS", origin="https://a.example", **PREFLIGHT)
    assert (response.status, response.body) == (204, b"")
    assert response.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-os"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("origins", [[], ["https://b.example"], ["https://a.example:8443"]])
def test_other_origins_are_told_nothing(origins):
    for answer in (
        ask(origins, origin="https://a.example"),
        ask(origins, "OPTIONS", origin="https://a.example", **PREFLIGHT),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Vary"] == "Origin"
    assert answer.status == 405


def test_an_error_is_readable_for_an_allowed_page_too():
    error = ask(["*"], "OPTIONS", origin="https://a.example")
    assert (error.status, error.headers["Access-Control-Allow-Origin"], error.headers["Allow"]) == (405, "*", "POST")


def test_without_an_origin_nothing_is_added():
    assert ask(["*"]).headers == {}


def undone(body: bytes, *, encoding: str = "gzip", maximum: int = 1 << 30, piece: int = 999) -> bytes:
    stream = io.BytesIO(body)
    read = decoded(lambda size: stream.read(min(size, piece)), encoding, maximum, TOO_LARGE)
    return b"".join(iter(lambda: read(4096), b""))


# The same in each process that collects: its tests are named by what they send.
SOUND = random.Random(0).randbytes(200_000) + bytes(100_000)
compressed = functools.partial(gzip.compress, mtime=0)


@pytest.mark.parametrize("piece", [1 << 16, 999, 1])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "identity, gzip"])
def test_gzip_is_undone(encoding, piece):
    content = SOUND[: 3000 if piece == 1 else len(SOUND)]
    assert undone(gzip.compress(content), encoding=encoding, piece=piece) == content


def test_gzip_of_several_members_is_undone():
    assert undone(gzip.compress(b"a" * 5000) + gzip.compress(b"") + gzip.compress(b"b")) == b"a" * 5000 + b"b"


@pytest.mark.parametrize("piece", [1, 7, 65536])
@pytest.mark.parametrize(
    ("body", "content"),
    [
        (compressed(b"a") + bytes(1000), b"a"),
        (compressed(b"a") + bytes(1000) + compressed(b"b") + b"\0", b"ab"),
        (compressed(b""), b""),
        (compressed(b"") + bytes(9), b""),
    ],
)
def test_zeros_after_a_member_are_passed_over(body, content, piece):
    assert undone(body, piece=piece) == content


@pytest.mark.parametrize("encoding", ["", "identity", " identity , "])
def test_a_body_without_encoding_stays_as_it_is(encoding):
    assert undone(SOUND, encoding=encoding) == SOUND


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br"])
def test_another_encoding_is_415_and_named(encoding):
    with pytest.raises(HttpError, match=encoding) as caught:
        undone(SOUND, encoding=encoding)
    assert (caught.value.status, caught.value.headers["Accept-Encoding"]) == (415, "gzip")


@pytest.mark.parametrize(
    "body",
    [b"", b"RIFF", compressed(SOUND)[:-1], compressed(SOUND)[:5000], compressed(SOUND) + b"more",
     compressed(SOUND) + bytes(9) + b"more", bytes(9), bytes(9) + compressed(SOUND),
     zlib.compress(SOUND)],
)  # fmt: skip
def test_what_is_not_gzip_is_400(body):
    with pytest.raises(HttpError) as caught:
        undone(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_encoding")


def test_what_gzip_makes_counts_against_the_limit():
    with pytest.raises(HttpError) as caught:
        undone(gzip.compress(SOUND), maximum=len(SOUND) - 1)
    assert caught.value is TOO_LARGE


def test_a_body_that_grows_beyond_all_sound_is_refused():
    with pytest.raises(HttpError, match="more than 200 times its size") as caught:
        undone(gzip.compress(bytes(64 << 20)), piece=1 << 16)
    assert caught.value.code == "invalid_encoding"


@pytest.mark.parametrize(
    ("content_type", "kind", "audio"),
    [
        ("video/webm;codecs=vp8,opus", "video/webm", True),
        ("Audio/WAV ; rate=8000", "audio/wav", True),
        ("application/ogg", "application/ogg", True),
        ("application/octet-stream", "application/octet-stream", True),
        ("", "", True),
        ("mp3", "mp3", True),
        ("text/html; charset=utf-8", "text/html", False),
        ("application/json", "application/json", False),
        ("application/problem+json", "application/problem+json", False),
        ("multipart/mixed; boundary=b", "multipart/mixed", False),
        ("image/svg+xml", "image/svg+xml", False),
    ],
)
def test_a_type_may_be_audio_unless_it_says_what_else_it_is(content_type, kind, audio):
    assert content_kind(content_type) == kind
    assert may_be_audio(kind) == audio


@pytest.mark.parametrize("name", ["RIFF$\0\0\0WAVE", "ID3=", "OggS", "fLaC", "\x1aE\xdf\xa3", ".snd", "#!AMR\n"])
def test_audio_looks_like_neither_json_nor_fields(name):
    start = name.encode("latin-1") + bytes(40)
    assert not looks_like_json(start)
    assert not looks_like_fields(start)


def test_json_and_fields_are_seen_by_their_beginning():
    assert looks_like_json(b' \r\n{"audio_url": 1}')
    assert looks_like_json(b"\xef\xbb\xbf{}")
    assert looks_like_fields(b"audio_url=https%3A%2F%2Fa&language=de")


def test_the_beginning_of_a_body_is_looked_at_without_taking_it():
    stream = io.BytesIO(SOUND)
    body = Content(lambda size: stream.read(min(size, 7)))
    assert body.start() == SOUND[:512]
    assert b"".join(iter(lambda: body.read(100), b"")) == SOUND
