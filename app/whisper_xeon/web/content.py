"""The content of a request's body: what type it claims to be, what it looks like, and gzip undone within bounds."""

from __future__ import annotations

import re
import zlib
from typing import Callable

from whisper_xeon.web.errors import HttpError, shown

FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
JSON = "application/json"

# Types that no audio is sent as. What has another one, or none, may be audio: ffmpeg tells.
_NOT_AUDIO = re.compile(
    r"(?:text|image|font|message|multipart|model)/.*|application/(?:.*\+)?(?:json|xml)|.*\+(?:json|xml)"
)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_READ_BYTES = 1 << 16
_PEEK_BYTES = 512
# Of what gzip makes of a body. Sound does not compress so well, and silence that does is cheap to send as it is.
_MAX_RATIO = 200
_FREE_BYTES = 8 << 20  # for which the ratio does not count

Read = Callable[[int], bytes]


def content_kind(content_type: str) -> str:
    """Return the first words of a Content-Type in lower case; what follows may be anything (`codecs=vp8,opus`)."""
    return content_type.partition(";")[0].strip().lower()


def may_be_audio(kind: str) -> bool:
    """Whether a body of this type is taken for audio."""
    return not _NOT_AUDIO.fullmatch(kind)


def looks_like_json(start: bytes) -> bool:
    """Whether a body that begins like this is a JSON object, whatever its type says."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith(b"{")


def looks_like_fields(start: bytes) -> bool:
    """Whether a body that begins like this has fields as a query has them: audio has bytes that no text has."""
    return b"=" in start and not _NO_TEXT.search(start)


class Content:
    """A body read in pieces, of which the beginning can be looked at first."""

    def __init__(self, read: Read):
        self._read = read
        self._start = b""

    def start(self) -> bytes:
        """Return up to 512 bytes of the beginning, without taking them."""
        while len(self._start) < _PEEK_BYTES:
            data = self._read(_READ_BYTES)
            if not data:
                break
            self._start += data
        return self._start[:_PEEK_BYTES]

    def read(self, size: int = _READ_BYTES) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        return self._read(size)


def decoded(read: Read, encoding: str, maximum: int, too_large: HttpError) -> Read:
    """Return how to read a body without its Content-Encoding. Raises `HttpError` 415 for one that is not known.

    Reading raises `too_large` over `maximum` bytes.
    """
    names = [name.strip().lower() for name in encoding.split(",") if name.strip()]
    names = [name for name in names if name != "identity"]
    if not names:
        return read
    if names not in (["gzip"], ["x-gzip"]):
        raise HttpError(
            415,
            f"the body has the Content-Encoding {shown(encoding)}: send it as it is, or with gzip",
            code="unsupported_media_type",
            headers={"Accept-Encoding": "gzip"},
        )
    return _Gunzip(read, maximum, too_large).read


class _Gunzip:
    """Undoes gzip piece by piece: at no time is more than a piece of either side in memory."""

    def __init__(self, read: Read, maximum: int, too_large: HttpError):
        self._read = read
        self._maximum = maximum
        self._too_large = too_large
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False  # whether the member has had any input
        self._ended = False  # whether there was a whole member before it
        self._input = b""
        self._taken = self._given = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end. Raises `HttpError` 400 for what is not gzip."""
        while True:
            if self._member.eof:  # a file may have several members
                self._input = self._member.unused_data
                self._member, self._begun, self._ended = zlib.decompressobj(wbits=31), False, True
            ended = False
            if not self._input:
                self._input = self._read(_READ_BYTES)
                self._taken += len(self._input)
                ended = not self._input
            if self._ended and not self._begun:
                if ended:
                    return b""
                self._input = self._input.lstrip(b"\0")  # padding, as gzip itself passes it over
                if not self._input:
                    continue
            self._begun = True
            try:
                data = self._member.decompress(self._input, size)
            except zlib.error:
                raise _not_gzip("it cannot be read as gzip") from None
            self._input = self._member.unconsumed_tail
            self._given += len(data)
            self._check()
            if data:
                return data
            if ended and not self._member.eof:
                raise _not_gzip("it ends too early")

    def _check(self) -> None:
        if self._given > self._maximum:
            raise self._too_large
        if self._given > max(_FREE_BYTES, self._taken * _MAX_RATIO):
            raise _not_gzip(f"it would grow to more than {_MAX_RATIO} times its size: send it as it is")


def _not_gzip(reason: str) -> HttpError:
    return HttpError(400, f"the body has the Content-Encoding gzip, and {reason}", code="invalid_encoding", close=True)
