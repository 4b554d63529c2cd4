"""The `openai` SDK as a real client: what works against OpenAI works here, errors included."""

from __future__ import annotations

import openai
import pytest

from paths import RECORDINGS
from running_service import ADAPTERS, EXACT, running_service

CLIP = "en-00.wav"
TEXT = EXACT[CLIP]["small"]
KEY = "a-key-of-this-test"


@pytest.fixture(scope="module", params=ADAPTERS)
def service(request, artifacts_dir, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"another-key\n{KEY}\n", encoding="ascii")
    settings = {"WHISPER_API_KEY_FILE": str(keys), "WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_ADAPTER": request.param}
    with running_service(artifacts_dir, **settings) as running:
        yield running


@pytest.fixture
def client(service):
    with openai.OpenAI(base_url=service.url + "/v1", api_key=KEY, max_retries=0) as client:
        yield client


def transcribe(client, recording: str = CLIP, **options):
    with (RECORDINGS / recording).open("rb") as file:
        return client.audio.transcriptions.create(file=file, **{"model": "whisper-1", **options})


def test_json_is_a_transcription(client):
    transcription = transcribe(client)
    assert transcription.text == TEXT
    assert (transcription.usage.type, transcription.usage.seconds) == ("duration", 4)


def test_verbose_json_has_typed_words_and_segments(client):
    transcription = transcribe(
        client,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        temperature=0,
        language="en",
    )
    assert (transcription.language, transcription.text) == ("english", TEXT)
    assert " ".join(word.word for word in transcription.words) == TEXT
    # Whisper's own time is that of the window; speech ends before it.
    assert transcription.words[-1].end <= transcription.segments[0].end <= EXACT[CLIP]["small_ms"][1] / 1000
    assert transcription.segments[0].no_speech_prob < 0.5


@pytest.mark.parametrize(
    ("response_format", "beginning"),
    [("srt", "1\n00:00:00,440 --> "), ("vtt", "WEBVTT\n\n00:00:00.440 --> "), ("text", TEXT)],
)
def test_formats_of_text_are_strings(client, response_format, beginning):
    assert transcribe(client, response_format=response_format).startswith(beginning)


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as error:
        transcribe(client, model="large-v3")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_its_other_fields_do_what_they_say(client):
    transcription = transcribe(
        client,
        model="gpt-4o-mini-transcribe",
        include=["logprobs"],
        chunking_strategy={"type": "server_vad"},
        stream=False,
    )
    assert transcription.text == TEXT
    assert bytes(int(byte) for token in transcription.logprobs for byte in token.bytes).decode().strip() == TEXT


def test_the_models_are_listed_and_retrieved(client):
    assert [model.id for model in client.models.list()] == ["small", "whisper-1"]
    assert client.models.retrieve("openai/whisper-small").id == "openai/whisper-small"


def test_a_translation_is_english(client):
    with (RECORDINGS / "de-00.wav").open("rb") as file:
        text = client.audio.translations.create(model="whisper-1", file=file).text
    assert text == "three seven zero six"


def test_the_language_that_was_answered_may_be_asked_for(client):
    language = transcribe(client, "de-00.wav", response_format="verbose_json").language
    assert transcribe(client, "de-00.wav", language=language).text == EXACT["de-00.wav"]["small"]


def test_a_bad_field_is_a_bad_request_that_names_it(client):
    with pytest.raises(openai.BadRequestError) as error:
        transcribe(client, language="klingon")
    assert (error.value.param, error.value.type) == ("language", "invalid_request_error")


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "small"])
def test_text_is_streamed(client, model):
    *deltas, done = transcribe(client, model=model, stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == done.text == TEXT
    assert (done.type, done.usage.type) == ("transcript.text.done", "duration")


def test_an_error_before_the_stream_is_an_error_of_its_kind(client):
    with pytest.raises(openai.UnprocessableEntityError):
        client.audio.transcriptions.create(model="small", file=("a.mp3", b"no sound"), stream=True)


def test_unreadable_audio_is_unprocessable(client):
    with pytest.raises(openai.UnprocessableEntityError) as error:
        client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"no sound"))
    assert error.value.code == "audio_unreadable"


def test_a_file_that_is_too_large_is_413(client):
    with pytest.raises(openai.APIStatusError) as error:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", bytes(4 << 20)))
    assert (error.value.status_code, error.value.code) == (413, "file_too_large")


@pytest.mark.parametrize("key", ["wrong", "a-key-of-this-test-", "A-KEY-OF-THIS-TEST"])
def test_a_wrong_key_is_an_authentication_error(client, key):
    with pytest.raises(openai.AuthenticationError) as error:
        transcribe(client.with_options(api_key=key))
    assert error.value.code == "invalid_api_key"
    assert error.value.response.headers["www-authenticate"] == "Bearer"


def test_any_key_of_the_file_opens(client):
    assert transcribe(client.with_options(api_key="another-key")).text == TEXT


def test_without_a_key_nothing_is_transcribed(service):
    assert service.transcribe(CLIP).status == 401


def test_health_and_version_need_no_key(service):
    assert [service.get(path).status for path in ("/health", "/readyz", "/version")] == [200, 200, 200]


def test_the_key_is_not_in_the_log(service):
    assert KEY not in service.log_text
