"""multipart/form-data, read as it arrives (RFC 7578, RFC 2046): the file goes to a sink, fields stay small.

Every byte is examined a bounded number of times, whatever the boundary. Names and file names are never used as paths
and never logged. What browsers, curl, SDKs and handmade clients send is accepted; anything ambiguous is rejected with
400.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Callable, Protocol
from urllib.parse import unquote

from whisper_xeon.web.api_table import Endpoint
from whisper_xeon.web.content import JSON, content_kind
from whisper_xeon.web.errors import HttpError, shown

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# A quote inside is escaped with a backslash (RFC 822, curl), or written %22 where a backslash is like any other (HTML).
_QUOTED = r'"((?:[^"\\]|\\.)*|[^"]*)"(?=[ \t]*(?:;|$))'
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_NAME})[ \t]*=[ \t]*(?:({_NAME})|{_QUOTED})")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii", "iso-8859-1": "latin-1"}
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BREAKING = re.compile(rb"[\x00\r\n]")  # what a header must not have whatever it says
_PLAIN_ENCODINGS = ("binary", "8bit", "7bit")

_READ_BYTES = 1 << 16
_MAX_PARTS = 128
_MAX_PART_HEADERS = 16
_MAX_HEADER_BYTES = 4096
_MAX_FIELD_BYTES = 65536
_MAX_FIELDS_BYTES = 262144
_MAX_AROUND_BYTES = 1024  # before the first boundary and after the last: nobody reads them
_FILE_NAME_BYTES = 4096  # no recording is as short, and text as a file's part is a mistake


def parse_parameters(value: str, what: str) -> tuple[str, dict[str, str]]:
    """Split `form-data; name="x"` into its lower-case first word and its parameters. Raises 400 naming `what`."""
    first = re.match(r"[ \t]*([^;\s]+)", value)
    if not first:
        raise _malformed(f"{what} is empty")
    parameters: dict[str, str] = {}
    position = first.end()
    while position < len(value):
        match = _PARAMETER.match(value, position)
        if not match:
            if value[position:].strip(" \t;"):
                raise _malformed(f"{what} is malformed")
            break
        name, token, quoted = match.groups()
        if name.lower() in parameters:
            raise _malformed(f"{what} has a duplicate parameter {name.lower()}")
        parameters[name.lower()] = token if token is not None else re.sub(r'\\(["\\])', r"\1", quoted)
        position = match.end()
    return first.group(1).lower(), parameters


@dataclass(frozen=True)
class FilePart:
    """What the part with the file says about it."""

    field: str
    file_name: str  # without its directories; empty for none
    content_type: str


@dataclass(frozen=True)
class Form:
    """One form: its fields by name in the order in which they came, and its file, if it has one."""

    fields: dict[str, list[str]]
    file: FilePart | None


class Sink(Protocol):
    """Where a form's file goes."""

    def write(self, data: bytes) -> None:
        """Append."""

    def empty(self) -> None:
        """Forget what was written."""


def read_form(read: Callable[[int], bytes], content_type: str, endpoint: Endpoint, sink: Sink) -> Form:
    """Read a whole form: the file goes to `sink`, the other parts are returned by name.

    The file is the part of that name, or any part with a file name that is not a field of the `endpoint`. Of several,
    which some clients send to suit several servers, it is the one in the field that the endpoint documents; the others
    are returned as empty fields. `read(size)` gives up to `size` bytes, none at the end; `content_type` is the
    request's. Raises `HttpError` 400 that names the field at fault; what `read` and `sink` raise passes through.
    """
    boundary = parse_parameters(content_type, "the header Content-Type")[1].get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed("the header Content-Type has no valid boundary: let your HTTP client write that header")
    scanner = _Scanner(read, boundary.encode("ascii"))
    fields: dict[str, list[str]] = {}
    file: FilePart | None = None
    total = 0
    for _ in range(_MAX_PARTS):
        headers = scanner.next_part()
        if headers is None:
            return Form(fields, file)
        name, file_name = _identify(headers)
        part_type = headers.get("content-type", "")
        known = endpoint.field(name)
        if endpoint.is_file(name) or (file_name is not None and not known):
            if file and endpoint.is_documented_file(file.field) == endpoint.is_documented_file(name):
                raise _malformed(f"duplicate field {shown(name)}: send one file per request", name)
            if file and endpoint.is_documented_file(file.field):
                fields.setdefault(name, []).append("")
                scanner.read_content(lambda data: None)
                continue
            if file:
                fields.setdefault(file.field, []).append("")
                sink.empty()
            file = FilePart(name, file_name or "", part_type)
            nameless = _NamelessFile(sink.write)
            plain = file_name is None and (not part_type or part_type.lower().startswith("text/"))
            scanner.read_content(nameless.write if plain else sink.write)
            nameless.check(name)
            continue
        if file_name is not None:
            raise _malformed(f"{shown(name)} must be text, not a file: send the audio in {endpoint.file_field}", name)
        value = _FieldValue(name, keeps_end=known is not None and known.keeps_end)
        scanner.read_content(value.append)
        total += len(value.data)
        if total > _MAX_FIELDS_BYTES:
            raise _malformed(f"the fields are larger than {_MAX_FIELDS_BYTES} bytes in total", name)
        fields.setdefault(name, []).append(value.decode(part_type))
    raise _malformed(f"the form has more than {_MAX_PARTS} parts")


def _malformed(message: str, param: str | None = None) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_form" if param is None else "invalid_value")


def _identify(headers: dict[str, str]) -> tuple[str, str | None]:
    """Return a part's name, and its file name if it has one, which may be empty."""
    kind, parameters = parse_parameters(headers.get("content-disposition", ""), "a part's Content-Disposition")
    if kind != "form-data" or "name" not in parameters:
        raise _malformed("a part's Content-Disposition is not form-data with a name")
    # Browsers write a quote as %22 (and line ends as %0D, %0A); curl and RFC 822 use a backslash, already undone.
    name = parameters["name"].replace("%22", '"')
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise _malformed(f"{shown(name)} has a Content-Transfer-Encoding, which is not supported in forms", name)
    file_name = parameters.get("filename")
    if "filename*" in parameters:  # RFC 8187: charset'language'text
        file_name = unquote(parameters["filename*"].rpartition("'")[2])
    return name, None if file_name is None else re.split(r"[/\\\\]", file_name)[-1]


class _NamelessFile:
    """A file's part without file name and type: it may be text, the name of a file that was not attached."""

    def __init__(self, write: Callable[[bytes], None]):
        self._write = write
        self._start = b""
        self._size = 0

    def write(self, data: bytes) -> None:
        self._start += data[: _FILE_NAME_BYTES - len(self._start)]
        self._size += len(data)
        self._write(data)

    def check(self, name: str) -> None:
        """Raise `HttpError` if all of it was text."""
        if 0 < self._size <= _FILE_NAME_BYTES and not _CONTROL.search(self._start):
            try:
                self._start.decode("utf-8")
            except UnicodeDecodeError:
                return
            raise _malformed(f"{name} must be a file, not text (with curl: -F {name}=@call.wav)", name)


class _FieldValue:
    def __init__(self, name: str, *, keeps_end: bool):
        self._name = name
        self._keeps_end = keeps_end
        self._cut = False
        self.data = bytearray()

    def append(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > _MAX_FIELD_BYTES:
            if not self._keeps_end:
                raise _malformed(f"{shown(self._name)} is larger than {_MAX_FIELD_BYTES} bytes", self._name)
            del self.data[:-_MAX_FIELD_BYTES]
            self._cut = True

    def decode(self, content_type: str) -> str:
        charset = re.search(r";\s*charset\s*=\s*\"?([\w-]+)", content_type, re.IGNORECASE)
        codec = _CHARSETS.get(charset[1].lower() if charset else "utf-8")
        if codec is None:
            raise _malformed(f"{shown(self._name)} has an unknown charset: use utf-8", self._name)
        if self._cut:
            # A character that was cut begins with bytes that only continue one.
            self.data = self.data.lstrip(bytes(range(0x80, 0xC0))) if codec == "utf-8" else self.data
        try:
            text = self.data.decode(codec)
        except UnicodeDecodeError:
            raise _malformed(f"{shown(self._name)} is not valid {codec} text", self._name) from None
        return _string_of_json(text) if content_kind(content_type) == JSON else text


def _string_of_json(text: str) -> str:
    """Return the string that a JSON text is, or the text of any other."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    # JSON can write half of a surrogate pair, which no other text can.
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else text


class _Scanner:
    """Finds the parts of a body. Keeps at most one read and one delimiter in memory."""

    def __init__(self, read: Callable[[int], bytes], boundary: bytes):
        self._read = read
        self._delimiter = b"\r\n--" + boundary
        # The delimiter of the first part starts a line like all others, but has no line before it.
        self._buffer = bytearray(b"\r\n")
        self._started = False

    def next_part(self) -> dict[str, str] | None:
        """Return the headers of the next part by lower-case name; None after the last, with the whole body read."""
        if not self._started:
            self._started = True
            self.read_content(_Preamble().pass_over)
        self._need(2)
        if self._buffer.startswith(b"\n"):
            raise _malformed("a line of the form ends with LF alone: lines must end with CR and LF")
        if self._buffer[:2] == b"--":
            del self._buffer[:2]
            self._expect_end()
            return None
        if self._line().strip(" \t"):
            raise _malformed("a boundary line is malformed")
        headers: dict[str, str] = {}
        for _ in range(_MAX_PART_HEADERS + 1):
            line = self._line()
            if not line:
                return headers
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch(_NAME, name) or name.lower() in headers:
                raise _malformed("a part's header is malformed")
            headers[name.lower()] = value.strip(" \t")
        raise _malformed(f"a part has more than {_MAX_PART_HEADERS} headers")

    def read_content(self, write: Callable[[bytes], None]) -> None:
        """Pass on everything before the next delimiter, and remove the delimiter itself."""
        keep = len(self._delimiter) - 1  # what has arrived may end with the start of a delimiter
        while True:
            end = self._buffer.find(self._delimiter)
            content = end if end >= 0 else max(0, len(self._buffer) - keep)
            if content:
                write(bytes(self._buffer[:content]))
                del self._buffer[:content]
            if end >= 0:
                del self._buffer[: len(self._delimiter)]
                return
            self._fill()

    def _line(self) -> str:
        searched = 0
        while True:
            end = self._buffer.find(b"\r\n", searched)
            if end >= 0:
                break
            searched = max(0, len(self._buffer) - 1)
            if searched > _MAX_HEADER_BYTES:
                raise _malformed("a part's header is too long")
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if len(line) > _MAX_HEADER_BYTES or _BREAKING.search(line):
            raise _malformed("a part's header is too long or has a line end or NUL in it")
        return line.decode("utf-8", "replace")  # old clients write file names in their own charset; they are not read

    def _expect_end(self) -> None:
        epilogue = len(self._buffer)
        while data := self._read(_READ_BYTES):
            epilogue += len(data)
            if epilogue > _MAX_AROUND_BYTES:
                break
        if epilogue > _MAX_AROUND_BYTES:
            raise _malformed("there is data after the last part")

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()

    def _fill(self) -> None:
        data = self._read(_READ_BYTES)
        if not data:
            raise _malformed("the form ends before its last boundary")
        self._buffer += data


class _Preamble:
    """What precedes the first boundary: an empty line from handmade clients, a sentence for people in old ones."""

    def __init__(self) -> None:
        self._size = 0

    def pass_over(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_AROUND_BYTES:
            raise _malformed("the body does not begin with the boundary that Content-Type names")
