"""Finds what ffmpeg would pass over without a word: a second file after the first, and sound behind a file's own end.

`cat a.wav b.wav` and recorders that crash make such files. What ffmpeg decodes as one is left to it.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator

from whisper_xeon.audio.errors import UnreadableAudio

_BLOCK = 1 << 20
_OVERLAP = 128  # no pattern below is longer
_LEAST_REST = 256  # bytes; less is padding or a tag
MAX_CHUNKS = 64  # of a WAV or AIFF file: each is looked at by itself, and 4 MiB of them would take a second
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")
TAGS = (b"TAG", b"APETAGEX", b"LYRICS")  # that players append, at the very end

# How a file of each kind begins. A literal at the beginning of a pattern is searched for quickly.
_KINDS = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in (
        ("WAV", rb"RIFF....WAVEfmt "),
        ("RF64", rb"RF64....WAVE"),
        ("AIFF", rb"FORM....AIF[FC]"),
        ("AVI", rb"RIFF....AVI LIST"),
        ("MP4", rb"\x00\x00[\x00\x01].ftyp[\x20-\x7e]{4}"),
        ("Matroska", rb"\x1aE\xdf\xa3(?:[\x80-\xff]|\x01.{7})\x42"),  # its header, of some length, and an element
        ("FLAC", rb'fLaC\x00\x00\x00"'),
        ("CAF", rb"caff\x00\x01\x00\x00desc"),
        ("FLV", rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09"),
        ("ASF", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
        ("W64", rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"),
        # The first block: others do not begin at sample 0, or are not the first of their samples (flag 0x800).
        ("WavPack", rb"wvpk.{12}\x00{4}.{5}[%b]" % re.escape(bytes(byte for byte in range(256) if byte & 8))),
        ("AMR", rb"#!AMR(?:-WB)?\n"),
        ("Ogg", rb"OggS\x00\x02\x00{8}"),
    )
}
_FLAC_FORM = slice(18, 22)  # sample rate, channels, bits: where they are equal ffmpeg decodes one file after the other
_HEAD = 4096  # bytes, in which Matroska names its codecs
_CODEC = re.compile(rb"\x86[\x83-\x9f](A_.{4})", re.DOTALL)  # element CodecID, its length, what it begins with


def check(fd: int, size: int) -> None:
    """Raise `UnreadableAudio` when a part of the file would not be decoded."""
    head = os.pread(fd, _HEAD, 0)
    own = next((name for name, pattern in _KINDS.items() if pattern.match(head)), None)
    if own == "Ogg":
        return  # a stream may follow another: see `ogg`
    if (own == "WAV" and _rest_is_checked(fd, size, "<", b"data")) or (
        own == "AIFF" and _rest_is_checked(fd, size, ">", b"SSND")
    ):
        return
    # What has no header of its own, such as MP3, may have any other file after it.
    for name in _KINDS if own is None else (own,):
        for at in beginnings(fd, size, _KINDS[name]):
            if at > 0 and not _is_one(name, own, head, os.pread(fd, _HEAD, at)):
                raise UnreadableAudio(
                    f"the file has another file after its first one ({name}, from byte {at}): send them as files of "
                    "their own"
                )


def _rest_is_checked(fd: int, size: int, order: str, data: bytes) -> bool:
    """Look at what follows the samples of a WAV or AIFF file; false where its header does not tell how many there are.

    Chunks, tags and padding may follow. Raises `UnreadableAudio` for anything else.
    """
    at, name, length, chunks = 12, b"", 0, 0
    while at + 8 <= size:
        chunks = counted(chunks)
        name, length = struct.unpack(f"{order}4sI", os.pread(fd, 8, at))
        if name == data:
            break
        at += 8 + length + (length & 1)
    if name != data or length in (0, 0xFFFFFFFF):
        return False  # it was never filled in: what follows is read to the end
    at += 8 + length + (length & 1)
    while size - at > _LEAST_REST:
        chunks = counted(chunks)
        begin = os.pread(fd, _LEAST_REST, at)
        if begin.startswith(TAGS) or not any(begin):
            break
        if begin.startswith(b"ID3"):
            at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(begin[6:10], (21, 14, 7, 0)))
            continue
        length = struct.unpack(f"{order}I", begin[4:8])[0]
        if not _CHUNK_NAME.match(begin) or begin.startswith((b"RIFF", b"FORM")) or at + 8 + length > size + 1:
            raise UnreadableAudio(
                f"the file goes on for {size - at} bytes behind the end of the sound that its header tells of: send "
                "its parts as files of their own, or repair it, for example with ffmpeg -ignore_length 1 -i FILE "
                "audio.flac"
            )
        at += 8 + length + (length & 1)
    return True


def counted(chunks: int) -> int:
    """Return the number of chunks with one more. Raises `UnreadableAudio` beyond the most that a file may have."""
    if chunks == MAX_CHUNKS:
        raise UnreadableAudio(
            f"the file has more than {MAX_CHUNKS} chunks beside its sound: convert it, for example with "
            "ffmpeg -i FILE audio.flac"
        )
    return chunks + 1


def beginnings(fd: int, size: int, pattern: re.Pattern[bytes], begin: int = 0) -> Iterator[int]:
    """Return where the pattern, which matches a few bytes, begins in a file, from byte `begin` on."""
    for start in range(begin, size, _BLOCK):
        for found in pattern.finditer(os.pread(fd, _BLOCK + _OVERLAP, start)):
            if found.start() < _BLOCK:
                yield start + found.start()


def _is_one(name: str, own: str | None, head: bytes, begin: bytes) -> bool:
    """Whether ffmpeg decodes what begins together with the file before it."""
    if name == own == "FLAC":
        return head[_FLAC_FORM] == begin[_FLAC_FORM]
    if name == own == "Matroska":
        return {*_CODEC.findall(head), *_CODEC.findall(begin)} == {b"A_OPUS"}
    return False
