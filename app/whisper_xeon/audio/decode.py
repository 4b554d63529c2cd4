"""Turns an uploaded file into 16 kHz mono float32 samples, in a sealed memfd.

16 kHz mono 16-bit WAV is read here; everything else goes through ffmpeg, which parses hostile input: it gets an open
file descriptor, never a name or a URL from a user, a list of the formats and the protocol it may use, an empty
environment, and hard limits on memory, processor time, output and wall time. Nothing is written to a disk.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

SAMPLE_RATE = 16_000
ACCEPTED = "wav, mp3, m4a, mp4, mov, 3gp, ogg, opus, flac, aac, webm, aiff, caf, wma, avi, ts or amr"

_SAMPLE_BYTES = 4
# ffmpeg's names of the containers behind ACCEPTED. None of them can refer to another file: no playlist, no concat.
_DEMUXERS = "wav,w64,mp3,flac,ogg,mov,matroska,aac,aiff,caf,asf,avi,mpegts,amr"
# The audio in them. Pictures and video are never decoded, not even to identify them.
_CODECS = (
    "aac,aac_latm,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,alac,amrnb,amrwb,eac3,flac,gsm_ms,libopus,libspeex,mp1,mp2,"
    "mp2float,mp3,mp3float,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,"
    "pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,vorbis,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
_FFMPEG_MEMORY = 1 << 30
_GROWTH_SECONDS = 0.05  # how often ffmpeg's output is measured: it writes some MB in that time
_MAX_CHUNKS = 64
# A minute takes 50 ms of the interpreter, which other requests need too; ffmpeg takes as long to start.
_DIRECT_SECONDS = 60
_BLOCK_SAMPLES = 4096
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class AudioError(Exception):
    """The uploaded bytes cannot be decoded; the message is for the person who sent them."""


class UnreadableAudio(AudioError):
    """No audio can be decoded from the bytes."""


class DecodingTooSlow(UnreadableAudio):
    """ffmpeg did not finish in time."""


class AudioTooLong(AudioError):
    """The audio is longer than the limit."""


class DecoderMissing(AudioError):
    """ffmpeg or prlimit is not installed on this host."""


class PcmAudio:
    """Samples in a sealed memfd: float32, mono, 16 kHz, within -1 to 1. Close it, or use it as a context manager."""

    def __init__(self, fd: int, samples: int):
        self.fd = fd
        self.samples = samples

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> PcmAudio:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def decode(
    upload_fd: int, *, max_seconds: float, timeout: float = 60, grown: Callable[[int], None] | None = None
) -> PcmAudio:
    """Decode the file behind `upload_fd`, a descriptor that can seek, from its beginning.

    `timeout` bounds the wall time of ffmpeg in seconds. `grown` is called with the bytes that the samples take so
    far, while they grow; what it raises ends the decoding. Raises `UnreadableAudio`, of which `DecodingTooSlow` is one
    kind, `AudioTooLong` or `DecoderMissing`.
    """
    grown = grown or (lambda size: None)
    size = os.fstat(upload_fd).st_size
    if size == 0:
        raise UnreadableAudio(f"the file is empty: send audio as {ACCEPTED}")
    span = _find_samples(upload_fd, size)
    if span is not None and span.size <= _DIRECT_SECONDS * SAMPLE_RATE * 2:
        _check_length(span.size // 2, max_seconds)
        grown(span.size // 2 * _SAMPLE_BYTES)
        return _read_samples(upload_fd, span)
    return _run_ffmpeg(upload_fd, max_seconds, timeout, grown)


def require_tools() -> None:
    """Raise `DecoderMissing` unless everything that `decode` runs is installed."""
    for tool, source in (("ffmpeg", "ffmpeg"), ("prlimit", "util-linux")):
        _find_tool(tool, source)


class _Span(NamedTuple):
    offset: int
    size: int


def _find_samples(fd: int, size: int) -> _Span | None:
    """Return where the samples of a 16 kHz mono 16-bit PCM WAV lie; None for anything else or unusual."""
    header = os.pread(fd, 12, 0)
    if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return None
    offset, understood = 12, False
    for _ in range(_MAX_CHUNKS):
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


def _run_ffmpeg(upload_fd: int, max_seconds: float, timeout: float, grown: Callable[[int], None]) -> PcmAudio:
    # One second more than allowed distinguishes a file that is too long from one just within the limit.
    limit = max_seconds + 1
    result = _new_memfd()
    try:
        limits = {
            "as": _FFMPEG_MEMORY,
            "cpu": int(timeout) + 1,
            "fsize": int(limit + 1) * SAMPLE_RATE * _SAMPLE_BYTES,
            "nofile": 32,
            "core": 0,
        }
        command = [
            *(_find_tool("prlimit", "util-linux"), *(f"--{name}={value}" for name, value in limits.items()), "--"),
            *(_find_tool("ffmpeg", "ffmpeg"), "-nostdin", "-hide_banner", "-loglevel", "error"),
            *(
                "-protocol_whitelist",
                "file",
                "-format_whitelist",
                _DEMUXERS,
                "-codec_whitelist",
                _CODECS,
                "-threads",
                "1",
            ),
            *("-i", f"/proc/self/fd/{upload_fd}", "-map", "0:a:0", "-vn", "-sn", "-dn", "-t", f"{limit:.3f}"),
            # Through 16-bit integers, so that a float input cannot smuggle in infinities or not-a-number.
            *("-af", f"aformat=sample_fmts=s16:sample_rates={SAMPLE_RATE}:channel_layouts=mono"),
            *("-threads", "1", "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"),
        ]
        status, messages = _watch(command, upload_fd, result, timeout, grown)
        audio = _seal(result)
        if status != 0 or audio.samples == 0:
            if b"matches no streams" in messages:
                raise UnreadableAudio(f"the file has no audio track: send audio as {ACCEPTED}")
            raise UnreadableAudio(f"the file cannot be decoded as audio: send {ACCEPTED}")
        _check_length(audio.samples, max_seconds)
        return audio
    except BaseException:
        os.close(result)
        raise


def _watch(
    command: list[str], upload_fd: int, output: int, timeout: float, grown: Callable[[int], None]
) -> tuple[int, bytes]:
    """Run ffmpeg and return its exit status and what it wrote to stderr."""
    deadline = time.monotonic() + timeout
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        pass_fds=(upload_fd,),
        env={"LC_ALL": "C"},
        cwd="/",
    ) as process:
        try:
            while True:
                try:
                    _, messages = process.communicate(timeout=_GROWTH_SECONDS)
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        raise DecodingTooSlow(
                            f"decoding the audio took longer than {timeout:g} s: send a shorter file, or a simpler "
                            "format such as wav"
                        ) from None
                    grown(os.fstat(output).st_size)
                else:
                    grown(os.fstat(output).st_size)
                    return process.returncode, messages
        finally:
            process.kill()  # does nothing once it has ended


def _check_length(samples: int, max_seconds: float) -> None:
    if samples > max_seconds * SAMPLE_RATE:
        raise AudioTooLong(f"the audio is longer than {max_seconds:g} s, the longest that is accepted: split it")


def _find_tool(name: str, source: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise DecoderMissing(f"{name} is not installed on this host: apt-get install {source}")
    return path


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
