"""Turns an uploaded file into 16 kHz float32 samples in sealed memfds: of a mix, or of the left and the right side.

16 kHz mono 16-bit WAV is read here; everything else goes through ffmpeg (`ffmpeg` runs it, `probe` asks it about the
file, `graph` tells it what to do). Nothing is written to a disk.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from whisper_xeon.audio import damage, graph, joined, ogg
from whisper_xeon.audio.errors import AudioTooLong, NoSides, UnreadableAudio
from whisper_xeon.audio.ffmpeg import RECOGNIZE, Ffmpeg
from whisper_xeon.audio.file_types import ACCEPTED, FileHint, raw_format, why_undecodable
from whisper_xeon.audio.graph import SAMPLE_RATE as SAMPLE_RATE
from whisper_xeon.audio.levels import LEVELS_PER_SECOND, Levels
from whisper_xeon.audio.probe import Media, Track, check_size, probe

_SAMPLE_BYTES = 4
# A minute takes 50 ms of the interpreter, which other requests need too; ffmpeg takes as long to start.
DIRECT_SECONDS = 60
_BLOCK_SAMPLES = 4096
_HEAD_BYTES = 512  # of a file, to tell what it is
# The file's own times reach the graph; one thread, whatever the host has.
_BEFORE = ("-copyts", "-vn", "-sn", "-dn", "-filter_complex_threads", "1")
_MAX_TRACKS = 8  # that are tried until one has sound
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class PcmAudio:
    """Samples in sealed memfds: float32, 16 kHz, within -1 to 1. Close it, or use it as a context manager."""

    def __init__(self, fd: int, samples: int, right_fd: int = -1):
        """`fd` has the mix of all channels, or the left side where `right_fd` has the right; each has `samples`."""
        self.fd = fd
        self.samples = samples
        self._right_fd = right_fd

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors: one, or the left side's and the right side's."""
        return (self.fd,) if self._right_fd < 0 else (self.fd, self._right_fd)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        fds = self.fds
        self.fd = self._right_fd = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> PcmAudio:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def plain_seconds(upload_fd: int) -> float | None:
    """Return the length of a 16 kHz mono 16-bit WAV, which takes hardly anything to decode; None for anything else."""
    span = _find_samples(upload_fd, os.fstat(upload_fd).st_size)
    return None if span is None else span.size / 2 / SAMPLE_RATE


def decode(
    upload_fd: int,
    *,
    max_seconds: float,
    timeout: float = 60,
    grown: Callable[[int], None] | None = None,
    hint: FileHint | None = None,
    sides: bool = False,
) -> PcmAudio:
    """Decode the file behind `upload_fd`, a descriptor that can seek, from its beginning.

    The file's own clock counts: sound that begins late, or has a hole, keeps its place. Of several tracks the default
    one is taken, or else the first, that is not silent. With `sides`, the two channels of a stereo recording are kept
    apart, each without what it has of the other's bleed.

    `timeout` bounds the wall time of ffmpeg in seconds. `grown` is called with the bytes that the samples take so
    far, while they grow; what it raises ends the decoding. `hint` says what the client said about the file. Raises
    `UnreadableAudio`, of which `DecodingTooSlow` is one kind, `AudioTooLong`, `NoSides` or `DecoderMissing`.
    """
    grown = grown or (lambda size: None)
    size = os.fstat(upload_fd).st_size
    if size == 0:
        raise UnreadableAudio(f"the file is empty: send audio as {ACCEPTED}")
    joined.check(upload_fd, size)
    damage.check(upload_fd, size)
    span = None if sides else _find_samples(upload_fd, size)
    if span is not None and span.size <= DIRECT_SECONDS * SAMPLE_RATE * 2:
        _check_length(span.size // 2, max_seconds)
        grown(span.size // 2 * _SAMPLE_BYTES)
        return _read_samples(upload_fd, span)
    head, hint = os.pread(upload_fd, _HEAD_BYTES, 0), hint or FileHint()
    ffmpeg = Ffmpeg(upload_fd, timeout=timeout)
    raw = raw_format(head, hint)
    media = probe(ffmpeg, head, hint, grown) if raw is None else Media((Track(0, raw.layout),), raw=raw)
    if head.startswith(b"OggS"):
        media = _check_chain(media, upload_fd, size)
    decoder = _TrackDecoder(ffmpeg, media, max_seconds, grown)
    return decoder.decode_sides() if sides else decoder.decode_mix()


def _check_chain(media: Media, fd: int, size: int) -> Media:
    """Return what is known of an Ogg file, in which streams may follow each other. Raises `UnreadableAudio`."""
    damaged = ogg.damage(fd, size)
    if damaged is not None:
        raise damage.damaged(damaged)
    first, later = ogg.codecs(fd, size)
    if not later <= first:
        every = " and ".join(sorted(first | later))
        raise UnreadableAudio(
            f"the file has streams of different codecs one after the other ({every}), of which only the first can be "
            "decoded: send them as files of their own"
        )
    return media._replace(has_clock=not later)


class _Span(NamedTuple):
    offset: int
    size: int


def _find_samples(fd: int, size: int) -> _Span | None:
    """Return where the samples of a 16 kHz mono 16-bit PCM WAV lie; None for anything else or unusual."""
    header = os.pread(fd, 12, 0)
    if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return None
    offset, understood = 12, False
    for _ in range(joined.MAX_CHUNKS):
        head = os.pread(fd, 8, offset)
        if len(head) < 8:
            return None
        name, length = struct.unpack("<4sI", head)
        offset += 8
        if name == b"fmt ":
            if understood or not 16 <= length <= 64:
                return None
            understood = _is_plain(os.pread(fd, length, offset))
            if not understood:
                return None
        elif name == b"data":
            rest = size - offset
            # A length of 0 before more bytes is from a recorder that never came back to fill it in: ffmpeg reads those.
            if not understood or (length == 0 and rest > 0):
                return None
            return _Span(offset, min(length, rest) & ~1)
        offset += length + (length & 1)
    return None


def _is_plain(fmt: bytes) -> bool:
    if len(fmt) < 16:
        return False
    tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == 0xFFFE and len(fmt) >= 40:  # WAVE_FORMAT_EXTENSIBLE: valid bits, speakers, then the tag in a GUID
        valid_bits, _, tag = struct.unpack_from("<HIH", fmt, 18)
        if valid_bits != bits or fmt[26:40] != b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71":
            return False
    return (tag, channels, rate, align, bits) == (1, 1, SAMPLE_RATE, 2, 16)


def _read_samples(fd: int, span: _Span) -> PcmAudio:
    values = array.array("h", _pread_all(fd, span))
    result = _new_memfd()
    try:
        with open(result, "wb", closefd=False) as stream:
            # In blocks: as a Python number a sample takes eight times the memory, and not all of it is returned.
            for start in range(0, len(values), _BLOCK_SAMPLES):
                array.array("f", [value / 32768 for value in values[start : start + _BLOCK_SAMPLES]]).tofile(stream)
        return _seal(result)
    except BaseException:
        os.close(result)
        raise


def _pread_all(fd: int, span: _Span) -> bytearray:
    data = bytearray()
    while len(data) < span.size:
        block = os.pread(fd, span.size - len(data), span.offset + len(data))
        if not block:
            raise UnreadableAudio("the file changed while it was read: send it again")
        data += block
    return data


class _TrackDecoder:
    """Decodes the tracks of one upload."""

    def __init__(self, ffmpeg: Ffmpeg, media: Media, max_seconds: float, grown: Callable[[int], None]):
        self._ffmpeg = ffmpeg
        self._media = media
        self._max_seconds = max_seconds
        self._grown = grown

    def decode_mix(self) -> PcmAudio:
        """Return the first track that has sound."""
        first, *others = self._media.tracks[:_MAX_TRACKS]
        # The first track is often that of a muted microphone.
        for track in (first, *others) if others else ():
            with contextlib.suppress(UnreadableAudio):
                audio, silent = self._mix(track, measured=True)
                if not silent:
                    return audio
                audio.close()
        return self._mix(first, measured=first.channels == 2)[0]

    def _mix(self, track: Track, *, measured: bool) -> tuple[PcmAudio, bool]:
        """Return the mix of a track and, if `measured`, whether it is silent; then also nothing cancels out."""
        filters = graph.mix(self._media, track, measured=measured)
        with self._run(track, filters, ["mono", "levels"] if measured else ["mono"]) as (mono, *rest):
            levels = Levels(rest[0]) if measured else None
            if levels is None or not levels.cancels:
                return _keep(mono), levels is not None and levels.silent
        with self._run(track, graph.mix_in_quadrature(self._media, track), ["mono"]) as (mono,):
            return _keep(mono), False

    def decode_sides(self) -> PcmAudio:
        """Return the two channels of the track to take, without each other's bleed."""
        track = self._media.tracks[0]
        if track.channels != 2:
            channels = "one channel" if track.channels == 1 else f"other channels ({track.layout})"
            raise NoSides(f"this file has {channels}; send a stereo recording, or leave diarize out")
        filters = graph.split(self._media, track)
        with self._run(track, filters, ["left", "right", "levels"]) as (left, right, measured):
            levels = Levels(measured)
            if levels.same_sides:
                raise NoSides("both channels of this file have the same sound; leave diarize out")
            for side, fd in enumerate((left, right)):
                for start, end in levels.bleed(side):
                    _silence(fd, start / LEVELS_PER_SECOND, end / LEVELS_PER_SECOND)
            return _keep(left, right)

    @contextlib.contextmanager
    def _run(self, track: Track, filters: str, labels: Sequence[str]) -> Iterator[list[int]]:
        """Run ffmpeg with a graph; the block has descriptors of what it wrote to each label."""
        check_size(track)
        with contextlib.ExitStack() as stack:
            outputs = []
            after = ["-filter_complex", filters]
            for label in labels:
                outputs.append(_new_memfd())
                stack.callback(os.close, outputs[-1])
                after += ["-map", f"[{label}]", "-c:a", "pcm_f32le", "-threads", "1"]
                after += ["-f", "f32le", f"pipe:{outputs[-1]}"]
            raw = self._media.raw
            before = [*_BEFORE, *(RECOGNIZE if raw is None else raw.options)]
            # One second more than allowed distinguishes a file that is too long from one just within the limit. With a
            # limit by time ffmpeg would end without a word where a hole leads beyond it.
            max_bytes = int(self._max_seconds + 1) * SAMPLE_RATE * _SAMPLE_BYTES
            succeeded = self._ffmpeg.run(before, after, outputs=outputs, max_bytes=max_bytes, grown=self._grown)
            samples = os.fstat(outputs[0]).st_size // _SAMPLE_BYTES
            _check_length(samples, self._max_seconds)
            if not succeeded or samples == 0:
                raise UnreadableAudio(why_undecodable(track.codec, encrypted=self._media.encrypted))
            yield outputs


def _check_length(samples: int, max_seconds: float) -> None:
    if samples > max_seconds * SAMPLE_RATE:
        raise AudioTooLong(f"the audio is longer than {max_seconds:g} s, the longest that is accepted: split it")


def _silence(fd: int, start: float, end: float) -> None:
    """Overwrite samples with silence, from second to second."""
    size = os.fstat(fd).st_size
    at, last = (min(round(seconds * SAMPLE_RATE) * _SAMPLE_BYTES, size) for seconds in (start, end))
    while at < last:
        at += os.pwrite(fd, bytes(min(last - at, 1 << 20)), at)


def _keep(fd: int, right_fd: int | None = None) -> PcmAudio:
    """Return the samples behind descriptors that will be closed."""
    left = _seal(os.dup(fd))
    return left if right_fd is None else PcmAudio(left.fd, left.samples, _seal(os.dup(right_fd)).fd)


def _new_memfd() -> int:
    return os.memfd_create("pcm", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _seal(fd: int) -> PcmAudio:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return PcmAudio(fd, os.fstat(fd).st_size // _SAMPLE_BYTES)


def map_samples(fd: int, samples: int) -> mmap.mmap:
    """Map the samples behind a `PcmAudio`'s descriptor privately: readable at once, without a copy."""
    if os.fstat(fd).st_size < samples * _SAMPLE_BYTES:
        raise ValueError(f"the descriptor has fewer than {samples} samples")
    return mmap.mmap(fd, samples * _SAMPLE_BYTES, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
