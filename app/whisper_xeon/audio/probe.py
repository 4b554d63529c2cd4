"""What a file says about itself before it is decoded: its clock and its audio tracks.

ffprobe would say so in JSON, but it opens a decoder for every track, pictures included, and gives up when one is not on
the list. So ffmpeg copies the first packet of each audio track into the text format framecrc, whose header has what
limits depend on; only the order of tracks and the file's duration come from its log, which a file's tags may fake.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from whisper_xeon.audio.errors import UnreadableAudio
from whisper_xeon.audio.ffmpeg import RECOGNIZE, Ffmpeg
from whisper_xeon.audio.file_types import ACCEPTED, FileHint, RawFormat, why_unreadable

_MAX_ANSWER_BYTES = 16 << 20  # the log has all tags
_COPY_FIRST_PACKETS = ("-map", "0:a", "-c", "copy", "-frames:a", "1", "-f", "framecrc")
_HEADER = re.compile(r"^#(tb|codec_id|sample_rate|channel_layout_name) (\d+): (.*)$", re.MULTILINE)
_PACKET = re.compile(r"^(\d+), *-?\d+, *(-?\d+),", re.MULTILINE)
# ffmpeg's own lines are short; tags may be megabytes, and are searched in linear time all the same.
_FORMAT = re.compile(r"^Input #0, (.{1,200}?), from '", re.MULTILINE)
_DURATION = re.compile(
    r"^  Duration: (?:(\d{2,9}):(\d\d):(\d\d\.\d\d)|N/A)(?:, start: (-?\d{1,12}\.\d{6}))?", re.MULTILINE
)
_DEFAULT = re.compile(r"^  Stream #0:(\d{1,4}).{0,50}?: Audio: .{0,300}\(default\)", re.MULTILINE)
_MAPPED = re.compile(r"^  Stream #0:(\d{1,4}) -> #0:(\d{1,4}) \(copy\)", re.MULTILINE)
_ENCRYPTED = re.compile(r"^  Stream #0:.{1,50}?: Audio: .{0,300}\((?:drms|enca) / ", re.MULTILINE)

# A file of these counts its clock from zero; elsewhere zero is wherever the file begins.
_FROM_ZERO = frozenset({"mov", "matroska"})
# Sound that begins later than this, or a longer hole in it, is taken for a broken clock.
LONGEST_HOLE = 1800  # seconds
# What recorders and codecs have; beyond, a small file keeps a decoder busy for minutes or fills its memory.
_SAMPLE_RATES = range(4000, 192_001)
_MAX_CHANNELS = 32
_CHANNELS = {"mono": 1, "stereo": 2, "downmix": 2}


class Track(NamedTuple):
    """One audio track."""

    stream: int  # ffmpeg's number
    layout: str  # of the channels, ffmpeg's name
    sample_rate: int = 0  # 0 when unknown
    start: float = 0.0  # seconds on the file's clock
    codec: str = ""  # ffmpeg's name

    @property
    def channels(self) -> int:
        """How many; 0 for one of ffmpeg's other layouts, which have 3 to 24."""
        counted = re.match(r"(\d+) channels", self.layout)
        return int(counted[1]) if counted else _CHANNELS.get(self.layout, 0)


class Media(NamedTuple):
    """A file with audio."""

    tracks: tuple[Track, ...]  # the one to take first, then the others in the file's order
    origin: float = 0.0  # what the file's clock says at the beginning of the recording, in seconds
    duration: float | None = None  # seconds from there to the file's end, where the file tells
    raw: RawFormat | None = None  # where the file has no header
    encrypted: bool = False
    has_clock: bool = True  # not where each of several streams has its own


def probe(ffmpeg: Ffmpeg, head: bytes, hint: FileHint, waiting: Callable[[int], None]) -> Media:
    """Return what the file says about itself; `head` are its first bytes. Raises `AudioError`.

    `waiting` is called while it takes, with 0; what it raises ends it.
    """
    with contextlib.ExitStack() as stack:
        answer, log = (os.memfd_create("probe", os.MFD_CLOEXEC) for _ in range(2))
        stack.callback(os.close, answer)
        stack.callback(os.close, log)
        ffmpeg.run(
            (*RECOGNIZE, "-copyts"),
            (*_COPY_FIRST_PACKETS, f"pipe:{answer}"),
            outputs=[answer],
            max_bytes=_MAX_ANSWER_BYTES,
            log=log,
            grown=lambda size: waiting(0),
        )
        lines, messages = (os.pread(fd, _MAX_ANSWER_BYTES, 0).decode("utf-8", "replace") for fd in (answer, log))
    if "matches no streams" in messages:
        raise UnreadableAudio(f"the file has no audio track: send audio as {ACCEPTED}")
    tracks = _tracks(lines, messages)
    if not tracks:
        raise UnreadableAudio(why_unreadable(head, hint))
    origin, duration = _clock(messages)
    return Media(tracks, origin, duration, encrypted=bool(_ENCRYPTED.search(messages)))


def _tracks(lines: str, messages: str) -> tuple[Track, ...]:
    fields: dict[int, dict[str, str]] = {}
    for name, number, value in _HEADER.findall(lines):
        fields.setdefault(int(number), {})[name] = value
    first = {int(number): int(pts) for number, pts in reversed(_PACKET.findall(lines))}
    indexes = {int(number): int(index) for index, number in _MAPPED.findall(messages)}
    tracks = [
        Track(
            indexes[number],
            track.get("channel_layout_name", ""),
            int(track.get("sample_rate", 0)),
            first.get(number, 0) * _fraction(track["tb"]),
            track.get("codec_id", ""),
        )
        for number, track in fields.items()
        if number in indexes
    ]
    default = {int(index) for index in _DEFAULT.findall(messages)}
    return tuple(sorted(tracks, key=lambda track: (track.stream not in default, track.stream)))


def _clock(messages: str) -> tuple[float, float | None]:
    """Return the file's `origin` and `duration`."""
    found, container = _DURATION.search(messages), _FORMAT.search(messages)
    if found is None or container is None:
        return 0.0, None
    hours, minutes, seconds, begin = found.groups()
    start = float(begin or 0)
    duration = None if hours is None else int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    # A piece of a longer recording says nothing of its own length; its clock goes on from the piece before.
    from_zero = duration is not None and 0 < start < min(duration, LONGEST_HOLE)
    if from_zero and not _FROM_ZERO.isdisjoint(container[1].split(",")):
        return 0.0, duration
    return start, duration


def _fraction(text: str) -> float:
    numerator, denominator = text.split("/")
    return int(numerator) / int(denominator)


def check_size(track: Track) -> None:
    """Raise `UnreadableAudio` for what would keep a decoder busy out of all proportion to the file."""
    if track.sample_rate and track.sample_rate not in _SAMPLE_RATES:
        raise UnreadableAudio(
            f"the audio has {track.sample_rate} samples per second: {_SAMPLE_RATES.start} to {_SAMPLE_RATES.stop - 1} "
            "are accepted; convert it, for example with ffmpeg -i FILE -vn -ar 16000 audio.flac"
        )
    if track.channels > _MAX_CHANNELS:
        raise UnreadableAudio(
            f"the audio has {track.channels} channels: at most {_MAX_CHANNELS} are accepted; convert it, for example "
            "with ffmpeg -i FILE -vn -ac 1 audio.flac"
        )
