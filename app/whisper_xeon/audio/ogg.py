"""Finds Ogg streams that were written one after the other into one file, as radio stations send them (RFC 3533).

ffmpeg goes on with the next stream where its codec is the same, with a clock of its own, and ends without a word where
it is another.
"""

from __future__ import annotations

import mmap
import re

_PAGE = b"OggS\x00"
_BEGINS = 0x02  # flag of the page that begins a stream
_HEADER_BYTES = 27  # before the list of the page's segments
_LARGEST_PAGE = 65_307  # bytes in which ffmpeg looks for the next one
_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex  ": "Speex"}
# What looks like the first page of a stream, whose one segment begins with the name of a codec: it must cost nothing to
# pass over a file that is full of what looks like pages.
_BEGINNING = re.compile(rb"OggS\x00[\x02\x03\x06\x07].{20}\x01.(?:%s)" % b"|".join(map(re.escape, _CODECS)), re.DOTALL)


def codecs(fd: int, size: int) -> tuple[set[str], set[str]]:
    """Return the codecs of the audio at the beginning of an Ogg file, and of all that is begun later in it."""
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as data:
        first: set[str] = set()
        at = 0
        while data[at : at + len(_PAGE)] == _PAGE and at + _HEADER_BYTES < size and data[at + 5] & _BEGINS:
            first |= _codec(data, at)
            segments = data[at + _HEADER_BYTES : _content(data, at)]
            at = _content(data, at) + sum(segments)
        later: set[str] = set()
        for page in _BEGINNING.finditer(data, at):
            later |= _codec(data, page.start())
        return first, later


def damage(fd: int, size: int) -> int | None:
    """Return where an Ogg file has something in its middle that ffmpeg does not pass over; None if nowhere."""
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as data:
        at = 0
        while at + _HEADER_BYTES < size:
            if data[at : at + len(_PAGE)] == _PAGE:
                at = _content(data, at) + sum(data[at + _HEADER_BYTES : _content(data, at)])
                continue
            following = data.find(_PAGE, at)
            if following < 0:
                return None
            if following - at > _LARGEST_PAGE:
                return at
            at = following
        return None


def _content(data: mmap.mmap, page: int) -> int:
    return page + _HEADER_BYTES + data[page + _HEADER_BYTES - 1]


def _codec(data: mmap.mmap, page: int) -> set[str]:
    if page + _HEADER_BYTES > len(data):
        return set()
    content = _content(data, page)
    return {name for magic, name in _CODECS.items() if data[content : content + len(magic)] == magic}
