"""multipart/form-data: what clients send is read, whatever is ambiguous is refused with the field's name."""

from __future__ import annotations

import io
import os

import pytest

from running_service import encode_form
from whisper_xeon.shares import Guest, Shares
from whisper_xeon.web.api_table import ENDPOINTS
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.multipart import FilePart, Form, read_form
from whisper_xeon.web.spool import SpooledFile

TYPE = "multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'
END = b"--b--\r\n"
ENDPOINT = {endpoint.name: endpoint for endpoint in ENDPOINTS}


def read(body: bytes, content_type: str = TYPE, piece: int = 65536, endpoint: str = "inference") -> tuple[Form, bytes]:
    """Read a body that arrives in pieces; returns the form and the file."""
    stream, too_large = io.BytesIO(body), HttpError(413, "too large", code="file_too_large")
    with SpooledFile(Shares("spool", 1 << 26), Guest(), 1 << 26, too_large) as file:
        form = read_form(lambda size: stream.read(min(size, piece)), content_type, ENDPOINT[endpoint], file)
        assert not stream.read(), "something of the body was left unread"
        return form, os.pread(file.fd, file.size + 1, 0)


def parse(body: bytes, content_type: str = TYPE, piece: int = 65536) -> tuple[dict[str, list[str]], bytes]:
    """Read a body that arrives in pieces; returns the fields and the file."""
    form, file = read(body, content_type, piece)
    return form.fields, file


def refusal(body: bytes, content_type: str = TYPE) -> HttpError:
    with pytest.raises(HttpError) as caught:
        parse(body, content_type)
    assert caught.value.status == 400
    return caught.value


def text_part(disposition: str, value: bytes = b"x", extra: str = "") -> bytes:
    return f"--b\r\nContent-Disposition: {disposition}\r\n{extra}\r\n".encode() + value + b"\r\n"


def test_a_form_gives_its_fields_and_its_file():
    assert parse(FILE + text_part('form-data; name="language"', b"de") + END) == ({"language": ["de"]}, b"RIFF")


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 64])
def test_it_does_not_matter_in_which_pieces_a_form_arrives(piece):
    content = b"\r\n--a\r\n-\r\n--\r\n\r\n--\rb--b\r\n--"
    body, content_type = encode_form([("file", content), ("prompt", "hi"), ("model", "")])
    assert parse(body, content_type, piece) == ({"prompt": ["hi"], "model": [""]}, content)


def test_a_field_may_repeat():
    part = text_part('form-data; name="timestamp_granularities[]"', b"word")
    assert parse(FILE + part + part + END)[0] == {"timestamp_granularities[]": ["word", "word"]}


def test_an_empty_file_is_a_file():
    assert parse(text_part('form-data; name="file"; filename=""', b"") + END)[1] == b""


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("form-data; name=prompt", "prompt"),
        ('form-data; name="pro;mpt"', "pro;mpt"),
        (r'form-data; name="pro\"mpt"', 'pro"mpt'),
        ('form-data; name="pro%22mpt"', 'pro"mpt'),
        ('FORM-DATA ; NAME = "prompt"', "prompt"),
        ('form-data; name="prompt";', "prompt"),
        ('form-data; name="prompt\\\\"', "prompt\\"),
        ('form-data; name="C:\\"', "C:\\"),
        ('form-data; name="a\x01b"', "a\x01b"),
    ],
)
def test_names_may_be_quoted_or_escaped(disposition, name):
    assert parse(FILE + text_part(disposition) + END)[0] == {name: ["x"]}


@pytest.mark.parametrize(
    "filename",
    ['"a \\"b\\".wav"', '"C:\\dir\\a.wav"', '"ghi âm.wav"', '"a;b=c.wav"', "a.wav", '"Screen\u202frecording.mov"'],
)
def test_a_file_may_have_any_name(filename):
    assert parse(text_part(f'form-data; name="file"; filename={filename}', b"RIFF") + END)[1] == b"RIFF"


def test_a_file_may_have_an_encoded_name_only():
    assert parse(text_part("form-data; name=file; filename*=UTF-8''a%20b.wav", b"RIFF") + END)[1] == b"RIFF"


@pytest.mark.parametrize(
    ("charset", "value"), [("utf-8", "é".encode()), ("ISO-8859-1", "é".encode("latin-1")), ('"utf-8"', "é".encode())]
)
def test_a_field_may_name_its_charset(charset, value):
    part = text_part('form-data; name="prompt"', value, f"Content-Type: text/plain; charset={charset}\r\n")
    assert parse(FILE + part + END)[0] == {"prompt": ["é"]}


def test_spaces_may_follow_a_boundary():
    assert parse(FILE.replace(b"--b\r\n", b"--b \t\r\n", 1) + b"--b--  \r\n\r\n")[1] == b"RIFF"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (FILE + text_part('form-data; name="prompt"', b"\xff") + END, "prompt"),
        (
            FILE + text_part('form-data; name="prompt"', b"x", "Content-Type: text/plain; charset=utf-7\r\n") + END,
            "prompt",
        ),
        (
            FILE + text_part('form-data; name="prompt"', b"eA==", "Content-Transfer-Encoding: base64\r\n") + END,
            "prompt",
        ),
        (FILE + text_part('form-data; name="model"', b"x" * 65537) + END, "model"),
        (FILE + text_part('form-data; name="model"; filename="m"') + END, "model"),
        (FILE + FILE + END, "file"),
        (text_part('form-data; name="file"', b"call.wav") + END, "file"),
        (text_part('form-data; name="audio"', b"call.wav") + END, "audio"),
        (text_part('form-data; name="file"', b"call.wav", "Content-Type: text/plain; charset=utf-8\r\n") + END, "file"),
    ],
)
def test_a_field_at_fault_is_named(body, param):
    assert refusal(body).param == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"RIFF",
        b"--",
        b"--b",
        FILE,
        FILE + b"--b-",
        FILE + END + b"more" * 300,
        b"preamble" * 200 + b"\r\n" + FILE + END,
        b"--bb\r\n\r\n",
        b"--b\n" + FILE,
        b"--b\r\n\r\nx\r\n" + END,
        text_part("form-data") + END,
        text_part('attachment; name="file"') + END,
        text_part('form-data; name="a"; name="b"') + END,
        text_part('form-data; name="a') + END,
        text_part('form-data; name="a"', b"x", "Folded\r\n: x\r\n") + END,
        text_part('form-data; name="a"', b"x", "Bad Name: x\r\n") + END,
        text_part('form-data; name="a"', b"x", "X: \x00\r\n") + END,
        text_part('form-data; name="a"', b"x", 'Content-Disposition: form-data; name="b"\r\n') + END,
        text_part('form-data; name="a"', b"x", "X: " + "y" * 5000 + "\r\n") + END,
        text_part('form-data; name="a"', b"x", "".join(f"X-{n}: y\r\n" for n in range(20))) + END,
        FILE + text_part('form-data; name="a"') * 130 + END,
        FILE + b"".join(text_part(f'form-data; name="f{n}"', b"x" * 60000) for n in range(5)) + END,
    ],
)
def test_a_malformed_form_is_refused(body):
    refusal(body)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 71,
     'multipart/form-data; boundary="b "', "multipart/form-data; boundary=b; boundary=c", "multipart/form-data; b"],
)  # fmt: skip
def test_a_content_type_without_a_usable_boundary_is_refused(content_type):
    refusal(FILE + END, content_type)


def test_megabytes_of_almost_boundaries_are_content():
    boundary = "-" * 70
    content = (b"\r\n--" + b"-" * 69 + b"x") * 60000  # a parser that starts over at each of them would take minutes
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename=a\r\n\r\n'.encode()
    body = head + content + f"\r\n--{boundary}--".encode()
    assert parse(body, f'multipart/form-data; boundary="{boundary}"')[1] == content


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n" + FILE + END,
        b"\r\n\r\n" + FILE + END,
        b"This is a multi-part message in MIME format.\r\n" + FILE + END,
        FILE + END + b"\r\n",
        FILE + END + b"This is the end of it.\r\n",
        FILE + b"--b--",
    ],
)
def test_what_surrounds_the_parts_is_passed_over(body):
    assert parse(body) == ({}, b"RIFF")


@pytest.mark.parametrize(
    ("disposition", "extra"),
    [
        ("form-data; name=file", "Content-Type: audio/wav\r\n"),
        ("form-data; name=file", ""),
        ('form-data; name="FILE"', ""),
        ('form-data; name="file[]"; filename="a.wav"', ""),
        ('form-data; name="audio"', "Content-Type: video/webm;codecs=vp8,opus\r\n"),
        ('form-data; name="audio_file"', ""),
        ('form-data; name="recording"; filename="blob"', "Content-Type: text/plain\r\n"),
    ],
)
def test_the_file_is_found_without_file_name_and_under_other_names(disposition, extra):
    assert parse(text_part(disposition, b"RIFF\x00\x01", extra) + END) == ({}, b"RIFF\x00\x01")


@pytest.mark.parametrize(
    ("disposition", "file_name"),
    [
        ('form-data; name="file"; filename="a b.g722"', "a b.g722"),
        ('form-data; name="file"; filename="../etc/a.wav"', "a.wav"),
        ('form-data; name="file"; filename="C:\\dir\\a.wav"', "a.wav"),
        ("form-data; name=file; filename*=UTF-8''ghi%20%C3%A2m.wav", "ghi âm.wav"),
        ("form-data; name=file; filename=\"a.wav\"; filename*=utf-8''b.wav", "b.wav"),
        ("form-data; name=file", ""),
    ],
)
def test_a_form_says_what_its_file_is_called_and_of_which_type(disposition, file_name):
    form, _ = read(text_part(disposition, b"\x00", "Content-Type: audio/G722; rate=8000\r\n") + END)
    assert form.file == FilePart("file", file_name, "audio/G722; rate=8000")


def file_part(name: str, content: bytes) -> bytes:
    return text_part(f'form-data; name="{name}"; filename="a.wav"', content)


@pytest.mark.parametrize("names", [("file", "audio_file"), ("audio_file", "file"), ("file", "audio_file", "x")])
@pytest.mark.parametrize(("endpoint", "documented"), [("transcriptions", "file"), ("asr", "audio_file")])
def test_of_several_files_the_one_in_the_documented_field_counts(names, endpoint, documented):
    names = [name for name in names if name != "x" or documented == "file"]
    form, file = read(b"".join(file_part(name, f"RIFF-{name}\0".encode()) for name in names) + END, endpoint=endpoint)
    assert (form.file.field, file) == (documented, f"RIFF-{documented}\0".encode())
    assert form.fields == {name: [""] for name in names if name != documented}


@pytest.mark.parametrize("names", [("file", "file"), ("FILE", "file[]"), ("audio_file", "audio"), ("a", "b")])
def test_several_files_of_which_none_or_more_than_one_is_documented_are_refused(names):
    error = refusal(b"".join(file_part(name, b"RIFF") for name in names) + END)
    assert error.param == names[1]
    assert "send one file per request" in error.message


@pytest.mark.parametrize(
    ("content_type", "sent", "value"),
    [
        ("application/json", b'"whisper-1"', "whisper-1"),
        ("application/json; charset=utf-8", '"Gespr\u00e4ch"'.encode(), "Gespräch"),
        ("Application/JSON", b'"say \\"hi\\" \\u00e9"', 'say "hi" é'),
        ("application/json", b'["word"]', '["word"]'),
        ("application/json", b"0.5", "0.5"),
        ("application/json", b"whisper-1", "whisper-1"),
        ("application/json", b'"\\ud800"', "?"),
        ("text/plain", b'"whisper-1"', '"whisper-1"'),
        ("", b'"whisper-1"', '"whisper-1"'),
    ],
)
def test_a_string_of_json_is_what_it_says(content_type, sent, value):
    extra = f"Content-Type: {content_type}\r\n" if content_type else ""
    assert parse(FILE + text_part('form-data; name="prompt"', sent, extra) + END)[0] == {"prompt": [value]}


def test_a_form_without_a_file_has_none():
    assert read(text_part('form-data; name="audio_url"') + END)[0] == Form({"audio_url": ["x"]}, None)
    assert read(END)[0] == Form({}, None)


def test_text_may_follow_the_file():
    assert parse(FILE + text_part("form-data; name=prompt") + END)[0] == {"prompt": ["x"]}


def test_a_prompt_that_is_too_long_keeps_its_end():
    fields, _ = parse(FILE + text_part("form-data; name=initial_prompt", "é".encode() * 50000 + b"end") + END)
    (prompt,) = fields["initial_prompt"]
    assert prompt.endswith("éend")
    assert 65530 <= len(prompt.encode()) <= 65536


def test_a_type_that_is_no_valid_parameter_does_not_matter():
    part = text_part('form-data; name="prompt"', b"x", "Content-Type: text/plain;codecs=vp8,opus\r\n")
    assert parse(FILE + part + END)[0] == {"prompt": ["x"]}


def test_a_form_with_lines_of_lf_alone_is_told_so():
    assert "must end with CR and LF" in refusal((FILE + END).replace(b"\r\n", b"\n")).message
