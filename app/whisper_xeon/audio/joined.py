"""Finds what ffmpeg would pass over without a word: a second file after the first, and sound behind a file's own end.

`cat a.wav b.wav` and recorders that crash make such files. What ffmpeg decodes as one is left to it.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from whisper_xeon.audio.errors import UnreadableAudio

_BLOCK = 1 << 20
_OVERLAP = 128
_LEAST_REST = 256  # bytes; less is padding or a tag
_WAVE, _AIFF = re.compile(rb"RIFF....WAVE", re.DOTALL), re.compile(rb"FORM....AIF[FC]", re.DOTALL)
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")
_TAGS = (b"TAG", b"APETAGEX", b"LYRICS")  # that players append, at the very end


class _Kind(NamedTuple):
    """How files of a kind begin."""

    name: str
    literal: bytes  # quickly found
    offset: int  # of that in the file
    pattern: re.Pattern[bytes]  # of the file's first bytes


def _kind(name: str, literal: bytes, pattern: bytes, offset: int = 0) -> _Kind:
    return _Kind(name, literal, offset, re.compile(pattern, re.DOTALL))


# WavPack's first block: the others do not begin at sample 0, or are not the first of their samples (flag 0x800).
_FIRST_WAVPACK = rb"wvpk.{12}\x00{4}.{5}[%b]" % re.escape(bytes(byte for byte in range(256) if byte & 8))

_KINDS = (
    _kind("WAV", b"WAVEfmt ", rb"(?:RIFF|RF64|RIFX|BW64)....WAVEfmt ", 8),
    _kind("AIFF", b"FORM", _AIFF.pattern),
    _kind("AVI", b"AVI LIST", rb"RIFF....AVI LIST", 8),
    _kind("MP4", b"ftyp", rb"\x00\x00[\x00\x01].ftyp[\x20-\x7e]{4}", 4),
    _kind("Matroska", b"\x1aE\xdf\xa3", rb"\x1aE\xdf\xa3.{0,64}(?:matroska|webm)"),
    _kind("FLAC", b'fLaC\x00\x00\x00"', rb'fLaC\x00\x00\x00"'),
    _kind("CAF", b"caff\x00\x01\x00\x00", rb"caff\x00\x01\x00\x00desc"),
    _kind("FLV", b"FLV\x01", rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09"),
    _kind("ASF", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", rb"\x30\x26\xb2\x75"),
    _kind("W64", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", rb"riff\x2e\x91"),
    _kind("WavPack", b"wvpk", _FIRST_WAVPACK),
    _kind("AMR", b"#!AMR", rb"#!AMR(?:-WB)?\n"),
    _kind("Ogg", b"OggS\x00\x02", rb"OggS\x00\x02\x00{8}"),
)
# Within these a FLAC header may stand for a track, and an Ogg page for a stream that goes on (see `ogg`).
_CONTAINERS = re.compile(rb"OggS|\x1aE\xdf\xa3|....ftyp|caff|RIFF....AVI ", re.DOTALL)
_FLAC_FORM = slice(18, 22)  # sample rate, channels, bits: where they are equal ffmpeg decodes one file after the other
_TRACKS = 4096  # bytes in which Matroska names its codecs
_CODEC = re.compile(rb"\x86[\x83-\x9f](A_.{4})", re.DOTALL)  # element CodecID, its length, what it begins with


def check(fd: int, size: int) -> None:
    """Raise `UnreadableAudio` when a part of the file would not be decoded."""
    head = os.pread(fd, _TRACKS, 0)
    for pattern, order, data in ((_WAVE, "<", b"data"), (_AIFF, ">", b"SSND")):
        if pattern.match(head):
            _check_rest(fd, size, order, data)
    for at, kind, begin in _beginnings(fd, size):
        if at > 0 and not _is_one(kind, head, begin):
            raise UnreadableAudio(
                f"the file has another file after its first one ({kind.name}, from byte {at}): send them as files of "
                "their own"
            )


def _check_rest(fd: int, size: int, order: str, data: bytes) -> None:
    """Look at what follows the samples of a WAV or AIFF file: chunks, tags and padding may."""
    at, name = 12, b""
    while at + 8 <= size:
        name, length = struct.unpack(f"{order}4sI", os.pread(fd, 8, at))
        if name == data:
            break
        at += 8 + length + (length & 1)
    if name != data or length in (0, 0xFFFFFFFF):
        return  # what was never filled in is read to the end
    at += 8 + length + (length & 1)
    while size - at > _LEAST_REST:
        begin = os.pread(fd, _LEAST_REST, at)
        if begin.startswith(b"ID3"):
            at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(begin[6:10], (21, 14, 7, 0)))
            continue
        length = struct.unpack(f"{order}I", begin[4:8])[0]
        if begin.startswith(_TAGS) or not any(begin):
            return
        if not _CHUNK_NAME.match(begin) or begin.startswith((b"RIFF", b"FORM")) or at + 8 + length > size + 1:
            raise UnreadableAudio(
                f"the file goes on for {size - at} bytes behind the end of the sound that its header tells of: send "
                "its parts as files of their own, or repair it, for example with ffmpeg -ignore_length 1 -i FILE "
                "audio.flac"
            )
        at += 8 + length + (length & 1)


def _beginnings(fd: int, size: int) -> Iterator[tuple[int, _Kind, bytes]]:
    """Yield where files seem to begin, with their first bytes."""
    for start in range(0, size, _BLOCK):
        block = os.pread(fd, _BLOCK + _OVERLAP, start)
        for kind in _KINDS:
            found = block.find(kind.literal)
            while 0 <= found < _BLOCK:
                at = start + found - kind.offset
                begin = os.pread(fd, _TRACKS, at) if at >= 0 else b""
                if kind.pattern.match(begin):
                    yield at, kind, begin
                found = block.find(kind.literal, found + 1)


def _is_one(kind: _Kind, head: bytes, begin: bytes) -> bool:
    """Whether what begins is decoded with the file at whose head it is not."""
    if kind.name == "FLAC":
        return bool(_CONTAINERS.match(head)) or (head.startswith(b"fLaC") and head[_FLAC_FORM] == begin[_FLAC_FORM])
    if kind.name == "Ogg":
        return head.startswith(b"OggS")
    if kind.name == "Matroska":
        return kind.pattern.match(head) is not None and {*_CODEC.findall(head), *_CODEC.findall(begin)} == {b"A_OPUS"}
    return False
