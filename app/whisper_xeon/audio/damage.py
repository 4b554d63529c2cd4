"""Finds what was inserted into or lost from the middle of a file, after which ffmpeg would not hear all of the rest.

WavPack is a chain of blocks, each with its length, and ffmpeg ends without a word where the next one is not. ASF (WMA),
CAF and W64 say how many bytes of sound there are, and ffmpeg reads no further, though these have moved. Damage that it
passes over by itself, as in most formats, is left to it; `ogg` looks at Ogg, `joined` at WAV and AIFF.
"""

from __future__ import annotations

import mmap
import re
import struct
from typing import NamedTuple

from whisper_xeon.audio.errors import UnreadableAudio
from whisper_xeon.audio.joined import TAGS, beginnings, counted

_WAVPACK = b"wvpk"
_BLOCK = struct.Struct("<4sIH")  # name, length of what follows it, version
_BLOCK_HEADER = 32  # bytes
_LARGEST_BLOCK = 1 << 20  # that ffmpeg reads
_MOST_BLOCKS = 1 << 20  # days of sound, walked through in half a second
_VERSIONS = range(0x402, 0x411)  # likewise
# With one of these versions, which hardly anything has that has the name by chance.
_BLOCK_BEGINS = re.compile(rb"wvpk.{4}[\x02-\x10]\x04", re.DOTALL)


class _Chunks(NamedTuple):
    """How a kind of file is made of chunks, one of which has the sound."""

    magic: bytes  # at its beginning
    begin: int  # of the first chunk
    head: struct.Struct  # name and length
    uncounted: int  # bytes of the head that the length does not count
    align: int
    sound: bytes  # name of the chunk


_W64 = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # after the name of every chunk but the first
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_CHUNKED = (
    _Chunks(b"caff\0\1", 8, struct.Struct(">4sq"), 12, 1, b"data"),
    _Chunks(b"riff\x2e\x91\xcf\x11", 40, struct.Struct("<16sQ"), 0, 8, b"data" + _W64),
    _Chunks(_ASF_HEADER, 0, struct.Struct("<16sQ"), 0, 1, _ASF_DATA),
)
_LEAST_SOUND = 100  # bytes: a shorter one was never filled in
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_FLAGS_AT = 88  # of the properties
_ASF_BROADCAST = 0x01  # flag: lengths were never filled in


def check(fd: int, size: int) -> None:
    """Raise `UnreadableAudio` when sound behind a damaged place would not be decoded."""
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as data:
        if data[:4] == _WAVPACK:
            at = _chain_ends(data)
            if any(True for _ in beginnings(fd, size, _BLOCK_BEGINS, at)):
                raise damaged(at)
        for chunks in _CHUNKED:
            if data[: len(chunks.magic)] == chunks.magic:
                end = _sound_ends(data, chunks)
                if end is not None and not _are_chunks(data, end, chunks):
                    raise UnreadableAudio(
                        f"the file goes on for {size - end} bytes behind the end of the sound that its header tells "
                        "of, as if something had been inserted: send it again, or repair it"
                    )


def damaged(at: int) -> UnreadableAudio:
    """Return the answer to a file of which ffmpeg would hear nothing from that byte on."""
    return UnreadableAudio(f"the file is damaged from byte {at}, and what follows cannot be decoded: send it again")


def _chain_ends(data: mmap.mmap) -> int:
    """Return where something other than a block follows the blocks of a WavPack file, its end at most."""
    at, size, number = 0, len(data), 0
    while at + _BLOCK_HEADER <= size:
        number += 1
        if number > _MOST_BLOCKS:
            raise UnreadableAudio(
                f"the file has more than {_MOST_BLOCKS} blocks: ffmpeg -i FILE audio.flac converts it"
            )
        name, length, version = _BLOCK.unpack_from(data, at)
        if name != _WAVPACK or version not in _VERSIONS or not _BLOCK_HEADER - 8 <= length <= _LARGEST_BLOCK:
            break
        at += 8 + length
    return min(at, size)


def _sound_ends(data: mmap.mmap, chunks: _Chunks) -> int | None:
    """Return where the sound ends, as the file has it; None where it does not say, or where nothing follows."""
    at, number = chunks.begin, 0
    while at + chunks.head.size <= len(data):
        number = counted(number)
        name, length = chunks.head.unpack_from(data, at)
        end = _end(at, length, chunks)
        if name == chunks.sound:
            # With as many bytes behind it, all flags are in the file.
            told = length >= _LEAST_SOUND and end < len(data) and not _is_broadcast(data, at, chunks)
            return end if told else None
        if end < at + chunks.head.size:
            return None
        at = end
    return None


def _is_broadcast(data: mmap.mmap, header_end: int, chunks: _Chunks) -> bool:
    if chunks.sound != _ASF_DATA:
        return False
    properties = data.find(_ASF_PROPERTIES, 0, header_end)
    return properties < 0 or bool(data[properties + _ASF_FLAGS_AT] & _ASF_BROADCAST)


def _are_chunks(data: mmap.mmap, at: int, chunks: _Chunks) -> bool:
    """Whether what follows are whole chunks, such as an index, and then a tag or padding."""
    number = 0
    while at + chunks.head.size <= len(data) and any(data[at : at + chunks.head.size]):
        if data[at : at + chunks.head.size].startswith(TAGS):
            return True
        number = counted(number)
        end = _end(at, chunks.head.unpack_from(data, at)[1], chunks)
        if not at + chunks.head.size <= end < len(data) + chunks.align:
            return False
        at = end
    return not data[at:].strip(b"\0")


def _end(at: int, length: int, chunks: _Chunks) -> int:
    end = at + length + chunks.uncounted
    return end + -end % chunks.align
