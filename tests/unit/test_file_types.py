"""What a file is taken for by its first bytes and by what its client says, without a decoder."""

from __future__ import annotations

import pytest

from whisper_xeon.audio.file_types import WEBSERVICE_PCM, FileHint, RawFormat, raw_format, why_unreadable

SAMPLES = bytes(range(64))


@pytest.mark.parametrize(
    ("head", "hint", "expected"),
    [
        (SAMPLES, FileHint(raw=WEBSERVICE_PCM), RawFormat("s16le", 16000, 1)),
        (SAMPLES, FileHint("", "audio_file", WEBSERVICE_PCM), RawFormat("s16le", 16000, 1)),
        (bytes(64), FileHint("application/octet-stream", "call.ulaw", WEBSERVICE_PCM), RawFormat("s16le", 16000, 1)),
        (b"RIFF\x24\0\0\0WAVEfmt ", FileHint(raw=WEBSERVICE_PCM), None),
        (b"OggS" + SAMPLES, FileHint("", "audio_file", WEBSERVICE_PCM), None),
        (b"\0\0\0\x20ftypM4A ", FileHint(raw=WEBSERVICE_PCM), None),
        (SAMPLES, FileHint(), None),
        (SAMPLES, FileHint("audio/basic"), RawFormat("mulaw", 8000)),
    ],
)
def test_samples_without_a_header_are_read_as_the_client_says(head, hint, expected):
    assert raw_format(head, hint) == expected


@pytest.mark.parametrize(
    "head",
    [
        b'------WebKitFormBoundaryX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF',
        b'--b\r\nContent-Type: audio/wav\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF',
        b'\r\n--b\ncontent-disposition:form-data; name="model"\n\nwhisper-1',
    ],
)
@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "audio/wav"])
def test_a_form_without_its_type_is_told_what_is_missing(head, content_type):
    assert "the file is a form whose Content-Type was not multipart/form-data" in why_unreadable(
        head, FileHint(content_type)
    )


@pytest.mark.parametrize("head", [b"--b\r\nno header", b"-----", b"-" * 200])
def test_what_is_no_form_is_not_taken_for_one(head):
    assert "form" not in why_unreadable(head, FileHint()).replace("format", "")
