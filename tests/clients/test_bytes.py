"""What programs put on the wire: curl's lines, whisper.cpp's README among them, and forms as libraries write them."""

from __future__ import annotations

import json

import pytest

from client_programs import WORDS, run, words


def curl(*arguments: str) -> str:
    return run("curl", "--silent", "--show-error", "--fail-with-body", *arguments)


def test_the_lines_of_whisper_cpps_readme(service, clip):
    answer = curl(
        f"{service.url}/inference",
        "-H",
        "Content-Type: multipart/form-data",
        "-F",
        f"file=@{clip}",
        "-F",
        "temperature=0.0",
        "-F",
        "temperature_inc=0.2",
        "-F",
        "response_format=json",
    )
    assert words(json.loads(answer)["text"]) == WORDS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data-binary", "@{clip}"],
        ["--header", "Content-Type:", "--data-binary", "@{clip}"],
        ["--header", "Content-Type: application/octet-stream", "--data-binary", "@{clip}"],
        ["--header", "Transfer-Encoding: chunked", "--header", "Expect: 100-continue", "--data-binary", "@{clip}"],
        ["--form", 'file=@{clip};type=video/webm;filename="Gespräch – 1.webm"', "--form", "language=English"],
        ["--form", "language=de-DE", "--form", "file=@{clip}", "--form", "user=someone", "--form", "stream=false"],
    ],
    ids=["no header", "no content type", "octets", "chunked", "odd name", "fields around"],
)
@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/transcribe", "/audio/transcriptions/"])
def test_curl(service, clip, arguments, path):
    answer = curl(f"{service.url}{path}", *[argument.format(clip=clip) for argument in arguments])
    assert set(WORDS) & set(words(json.loads(answer)["text"]))


def form(service, clip, head: str, *, before: str = "", after: str = "", boundary: str = "b") -> list[str]:
    body = f"{before}--{boundary}\r\n{head}\r\n\r\n".encode() + clip.read_bytes() + f"\r\n{after}".encode()
    answer = service.request(
        "POST",
        "/v1/audio/transcriptions",
        body + f"--{boundary}--\r\n".encode(),
        content_type=f'multipart/form-data; boundary="{boundary}"',
    )
    assert answer.status == 200, answer.text
    return words(answer.json["text"])


def test_dotnet(service, clip):
    """MultipartFormDataContent: names without quotes, a charset on text, the file name twice."""
    text = "--{0}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name={1}\r\n\r\n{2}\r\n"
    boundary = "0f8fad5b-d9cb-469f-a165-70867728950e"
    head = "Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav"
    after = text.format(boundary, "model", "whisper-1") + text.format(boundary, "response_format", "json")
    assert form(service, clip, head, after=after, boundary=boundary) == WORDS


def test_webkit(service, clip):
    boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
    head = 'Content-Disposition: form-data; name="file"; filename="blob"\r\nContent-Type: video/webm;codecs=vp8,opus'
    assert form(service, clip, head, boundary=boundary) == WORDS


def test_an_empty_line_first(service, clip):
    assert form(service, clip, 'Content-Disposition: form-data; name="file"; filename="a"', before="\r\n") == WORDS


def test_a_file_without_a_name(service, clip):
    assert form(service, clip, 'Content-Disposition: form-data; name="file"\r\nContent-Type: audio/wav') == WORDS
