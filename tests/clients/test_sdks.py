"""Libraries that programs use, each at a pinned version, each with speech: their own checks of the answers count."""

from __future__ import annotations

import openai
import pytest

from client_programs import CLIENTS, MADE, TOOLS, WORDS, run, run_json, words


def test_openai_for_python(service, clip):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        assert "base" in [model.id for model in client.models.list()]
        assert client.models.retrieve("base").id == "base"
        answer = client.audio.transcriptions.create(
            file=clip,
            model="gpt-4o-transcribe",
            include=["logprobs"],
            chunking_strategy={"type": "server_vad", "silence_duration_ms": 400},
        )
        assert words(answer.text) == WORDS
        assert "".join(token.token for token in answer.logprobs).strip() == answer.text
        assert all(token.logprob <= 0 for token in answer.logprobs)
        translated = client.audio.translations.create(file=clip, model="whisper-1", response_format="verbose_json")
        assert words(translated.text) == WORDS
        assert "".join(segment.text for segment in translated.segments).strip() == translated.text


def test_openai_for_python_streams(service, clip):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        *deltas, done = client.audio.transcriptions.create(file=clip, model="gpt-4o-transcribe", stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert words(done.text) == WORDS
    assert "".join(event.delta for event in deltas) == done.text


def test_openai_for_node(service, clip, node):
    answers = run_json(node, MADE / "node" / "openai.mjs", service.url, clip)
    assert answers["retrieved"] == answers["models"][0] == "base"
    for name in ("json", "vad", "translation", "text"):
        assert words(answers[name]) == WORDS
    assert words(" ".join(answers["words"])) == words("".join(answers["segments"])) == WORDS
    assert words("".join(answers["logprobs"])) == WORDS
    assert "".join(answers["deltas"]) == answers["done"]
    assert words(answers["done"]) == WORDS
    assert answers["srt"].startswith("1\n00:00:0")
    assert answers["vtt"].startswith("WEBVTT\n\n00:00:0")
    assert (answers["refused"]["name"], answers["refused"]["status"]) == ("NotFoundError", 404)
    assert "medium.en" in answers["refused"]["message"]
    assert "base" in answers["refused"]["message"]


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-mini-transcribe"])
def test_vercel_ai_sdk(service, clip, node, model):
    answers = run_json(node, MADE / "node" / "vercel.mjs", service.url, clip, model)
    assert words(answers["text"]) == WORDS
    # It asks for verbose_json of whisper-1 only; OpenAI's other models do not have it.
    if model == "whisper-1":
        assert words(" ".join(segment["text"] for segment in answers["segments"])) == WORDS
        assert answers["language"] == "en"
        assert answers["seconds"] == pytest.approx(11, abs=0.1)


def test_litellm(service, clip):
    python = MADE / "litellm" / "bin" / "python"
    script = CLIENTS / "litellm" / "transcribe.py"
    answers = run_json(python, script, service.url, clip, LITELLM_LOCAL_MODEL_COST_MAP="True")
    assert words(answers["json"]) == words(answers["verbose_json"]) == WORDS
    assert words(" ".join(answers["words"])) == WORDS
    assert answers["srt"].startswith("1\n00:00:0")


def test_go_openai(service, clip, tmp_path):
    program = tmp_path / "client"
    caches = {"GOPATH": str(MADE / "go"), "GOCACHE": str(MADE / "go-cache"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    run(TOOLS / "go", "build", "-trimpath", "-o", program, ".", cwd=CLIENTS / "go", **caches)
    answers = run_json(program, f"{service.url}/v1", clip)
    assert "base" in answers["models"]
    assert words(answers["text"]) == words(" ".join(answers["words"])) == WORDS
    assert answers["srt"].startswith("1\n00:00:0")


def test_java_http_client(service, clip):
    """It asks to upgrade to HTTP/2 with its first request, and sends a stream in chunks."""
    answers = run("java", CLIENTS / "java" / "Transcribe.java", service.url, clip).splitlines()
    assert [answer.partition(" ")[0] for answer in answers] == ["200"] * 3
    assert all(set(WORDS) <= set(words(answer)) for answer in answers)


def test_chromium_records(service, clip, node):
    """A page of the service records its microphone, in which the clip plays, and sends the recording."""
    answers = run_json(node, MADE / "node" / "recorder.mjs", service.url, clip, "/usr/bin/chromium")
    assert answers["type"].startswith("audio/webm")
    for sent in ("form", "body"):
        assert answers[sent]["status"] == 200, answers[sent]
        heard = words(answers[sent]["body"]["text"])
        # The microphone begins when it likes.
        assert heard[-10:] == WORDS[-10:]
