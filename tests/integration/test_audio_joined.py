"""Nothing of a file is passed over without a word: all of it is decoded, or the message says why not."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from audio_files import ffmpeg
from paths import RECORDINGS
from whisper_xeon.audio import damage, joined
from whisper_xeon.audio.decode import decode
from whisper_xeon.audio.errors import AudioTooLong, UnreadableAudio

SECONDS = 2
MINUTE = 60
# Name: how it is encoded.
FILES = {
    "16.wav": ("-ar", "16000"),
    "44.wav": ("-ar", "44100", "-ac", "2"),
    "law.wav": ("-ar", "8000", "-c:a", "pcm_mulaw"),
    "16.aiff": ("-ar", "16000"),
    "16.caf": ("-ar", "16000"),
    "16.w64": ("-ar", "16000"),
    "16.flac": ("-ar", "16000"),
    "44.flac": ("-ar", "44100", "-ac", "2"),
    "44.mp3": ("-ar", "44100", "-ac", "2"),
    "22.mp3": ("-ar", "22050"),
    "44.aac": ("-ar", "44100"),
    "22.aac": ("-ar", "22050"),
    "44.m4a": ("-ar", "44100"),
    "opus.webm": ("-c:a", "libopus"),
    "vorbis.mka": ("-c:a", "libvorbis"),
    "44.ts": ("-ar", "44100"),
    "44.wma": ("-ar", "44100", "-c:a", "wmav2"),
    "44.flv": ("-ar", "44100", "-c:a", "mp3"),
    "44.avi": ("-ar", "44100", "-c:a", "mp3"),
    "44.wv": ("-ar", "44100"),
    "opus.ogg": ("-c:a", "libopus"),
    "vorbis.ogg": ("-c:a", "libvorbis"),
}
DECODED = (
    *("44.mp3 44.mp3", "44.mp3 22.mp3", "22.aac 44.aac", "16.flac 16.flac", "opus.webm opus.webm"),
    *("44.ts 44.ts", "opus.ogg opus.ogg", "vorbis.ogg vorbis.ogg"),
)
REFUSED = (
    *("16.wav 16.wav", "16.wav 44.wav", "44.wav 16.wav", "law.wav law.wav", "16.wav 44.mp3", "44.mp3 16.wav"),
    *("16.aiff 16.aiff", "16.caf 16.caf", "16.w64 16.w64", "16.flac 44.flac", "44.flac 16.flac", "44.m4a 44.m4a"),
    *("44.mp3 44.m4a", "44.mp3 44.flac", "opus.webm vorbis.mka", "44.wma 44.wma", "44.flv 44.flv", "44.avi 44.avi"),
    *("44.wv 44.wv", "opus.ogg vorbis.ogg", "44.mp3 opus.ogg"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The directory of FILES."""
    directory = tmp_path_factory.mktemp("files")
    for name, options in FILES.items():
        ffmpeg("-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}", *options, directory / name)
    return directory


@pytest.fixture(scope="module")
def minutes(tmp_path_factory) -> Path:
    """A directory of files that are longer than one block of WavPack, which differ in all of their parts."""
    directory = tmp_path_factory.mktemp("minutes")
    for name in (
        "minute.wv",
        "minute.wma",
        "minute.flv",
        "minute.avi",
        "minute.ts",
        "minute.mka",
        "minute.caf",
        "minute.w64",
    ):
        codec = {"minute.wma": ("-c:a", "wmav2"), "minute.flv": ("-c:a", "mp3"), "minute.avi": ("-c:a", "mp3")}
        sound = ("-i", RECORDINGS / "long.wav", "-t", str(MINUTE), "-ar", "44100")
        ffmpeg(*sound, *codec.get(name, ()), directory / name)
    return directory


def decoded_seconds(data: bytes, max_seconds: float = 3600) -> float:
    fd = os.memfd_create("upload")
    try:
        os.write(fd, data)
        with decode(fd, max_seconds=max_seconds) as audio:
            return audio.duration
    finally:
        os.close(fd)


def join(files: Path, names: str) -> bytes:
    return b"".join((files / name).read_bytes() for name in names.split())


@pytest.mark.parametrize("name", FILES)
def test_a_file_by_itself_is_decoded(files, name):
    assert decoded_seconds((files / name).read_bytes()) == pytest.approx(SECONDS, abs=0.2)


@pytest.mark.parametrize("names", DECODED)
def test_files_that_can_be_read_as_one_are_decoded_whole(files, names):
    assert decoded_seconds(join(files, names)) == pytest.approx(2 * SECONDS, abs=0.3)


@pytest.mark.parametrize("names", REFUSED)
def test_a_second_file_that_would_be_lost_is_told_of(files, names):
    with pytest.raises(UnreadableAudio, match="as files of their own"):
        decoded_seconds(join(files, names))


def with_length(wav: bytes, length: int) -> bytes:
    """Let the header of a WAV file tell of `length` bytes of samples."""
    at = wav.index(b"data")
    riff = min(0xFFFFFFFF, length + at)
    return wav[:4] + struct.pack("<I", riff) + wav[8 : at + 4] + struct.pack("<I", length) + wav[at + 8 :]


@pytest.mark.parametrize("name", ["16.wav", "44.wav"])
def test_samples_behind_the_end_that_a_header_tells_of_are_told_of(files, name):
    wav = (files / name).read_bytes()
    with pytest.raises(UnreadableAudio, match=r"goes on for \d+ bytes behind the end .* -ignore_length 1"):
        decoded_seconds(with_length(wav, len(wav) // 2 & ~3))


@pytest.mark.parametrize("name", ["16.wav", "44.wav"])
@pytest.mark.parametrize("length", [0, 1 << 28, 0xFFFFFFFF])
def test_a_header_that_promises_more_than_there_is_loses_nothing(files, name, length):
    wav = with_length((files / name).read_bytes(), length)
    assert decoded_seconds(wav) == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize(
    "rest",
    [
        b"LIST" + struct.pack("<I", 300) + bytes(300),
        b"TAG" + b"title".ljust(125),
        b"ID3\x04\0\0\0\0\x04\0" + b"x" * 512,
        bytes(4096),
        b"junk" * 10,
    ],
    ids=["chunk", "tag", "ID3", "padding", "a few bytes"],
)
def test_what_is_no_sound_may_follow_the_samples(files, rest):
    assert decoded_seconds((files / "16.wav").read_bytes() + rest) == pytest.approx(SECONDS, abs=0.01)


@pytest.mark.parametrize("name", ["16.wav", "16.aiff"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_file_of_countless_chunks_is_refused_unread(files, name, before):
    sound = (files / name).read_bytes()
    own = sound.index(b"data" if name == "16.wav" else b"SSND")
    reads = []

    def chunks(number: int) -> bytes:
        at = own if before else len(sound)
        return sound[:at] + b"JUNK\0\0\0\0" * number + sound[at:]

    assert decoded_seconds(chunks(40)) == pytest.approx(SECONDS, abs=0.01)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joined.os, "pread", lambda *asked, read=os.pread: reads.append(asked) or read(*asked))
        with pytest.raises(UnreadableAudio, match="more than 64 chunks"):
            decoded_seconds(chunks(1 << 19))
    assert len(reads) < 100


def test_an_ogg_file_with_a_broken_middle_is_told_of(files):
    ogg = (files / "vorbis.ogg").read_bytes() * 2
    with pytest.raises(UnreadableAudio, match="damaged from byte"):
        decoded_seconds(ogg[: len(ogg) // 2] + bytes(100_000) + ogg[len(ogg) // 2 :])


def damaged(sound: bytes, how: str, junk: bytes) -> bytes:
    middle = len(sound) // 2
    return sound[:middle] + junk + sound[middle + (len(junk) if how == "overwritten" else 0) :]


JUNK = [bytes(10_000), random.Random(1).randbytes(10_000)]


@pytest.mark.parametrize("junk", JUNK, ids=["zeros", "noise"])
@pytest.mark.parametrize(
    ("name", "how", "why"),
    [
        ("minute.wv", "inserted", "damaged from byte"),
        ("minute.wma", "inserted", "goes on for 10000 bytes behind the end of the sound"),
        ("minute.caf", "inserted", "goes on for 10000 bytes behind the end of the sound"),
        ("minute.w64", "inserted", "goes on for 10000 bytes behind the end of the sound"),
        ("minute.wma", "overwritten", ""),
        ("minute.flv", "inserted", ""),
        ("minute.avi", "inserted", ""),
        ("minute.ts", "inserted", ""),
        ("minute.mka", "inserted", ""),
    ],
)
def test_sound_behind_a_broken_place_is_decoded_or_told_of(minutes, name, how, why, junk):
    sound = damaged((minutes / name).read_bytes(), how, junk)
    if why:
        with pytest.raises(UnreadableAudio, match=why):
            decoded_seconds(sound)
    else:
        assert decoded_seconds(sound) == pytest.approx(MINUTE, abs=0.6)


def test_a_wavpack_file_that_lost_a_part_is_told_of(minutes):
    sound = (minutes / "minute.wv").read_bytes()
    with pytest.raises(UnreadableAudio, match="damaged from byte"):
        decoded_seconds(sound[: len(sound) // 2] + sound[len(sound) // 2 + 1000 :])


@pytest.mark.parametrize("rest", [b"", b"TAG" + b"title".ljust(125), bytes(4096)], ids=["nothing", "tag", "padding"])
@pytest.mark.parametrize("name", ["minute.wv", "minute.wma", "minute.caf"])  # ffmpeg takes no W64 with padding
def test_what_is_no_sound_may_follow_them(minutes, name, rest):
    assert decoded_seconds((minutes / name).read_bytes() + rest) == pytest.approx(MINUTE, abs=0.2)


@pytest.mark.parametrize("name", ["minute.wv", "minute.wma", "minute.caf", "minute.w64"])
def test_a_file_that_was_cut_off_is_decoded_as_far_as_it_goes(minutes, name):
    sound = (minutes / name).read_bytes()
    assert decoded_seconds(sound[: len(sound) // 2]) == pytest.approx(MINUTE / 2, abs=4)


def test_a_file_that_ends_within_its_header_is_refused(minutes):
    sound = (minutes / "minute.wma").read_bytes()
    own, properties = damage._ASF_DATA, damage._ASF_PROPERTIES
    header = sound[:16] + struct.pack("<Q", 40) + properties + own + struct.pack("<Q", 1000)
    for upload in (header, sound[: sound.index(properties) + 40], header + bytes(2000)):
        with pytest.raises(UnreadableAudio):
            decoded_seconds(upload)


def test_wavpack_of_countless_blocks_is_refused():
    block = struct.pack("<4sIH", b"wvpk", 24, 0x410).ljust(32, b"\0")
    with pytest.raises(UnreadableAudio, match="more than 1048576 blocks"):
        decoded_seconds(block * ((1 << 20) + 1))


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("minute.wma", bytes.fromhex("90080033b1e5cf1189f400a0c90349cb") + struct.pack("<Q", 1024) + b"i" * 1000),
        ("minute.caf", b"info" + struct.pack(">q", 1000) + b"i" * 1000),
        ("minute.w64", b"junk".ljust(16, b"x") + struct.pack("<Q", 1021) + b"i" * 997),
    ],
)
def test_a_further_chunk_may_follow_the_sound(minutes, name, chunk):
    assert decoded_seconds((minutes / name).read_bytes() + chunk) == pytest.approx(MINUTE, abs=0.2)


def test_an_mp3_file_with_a_broken_middle_is_decoded_around_it(files):
    mp3 = (files / "44.mp3").read_bytes()
    broken = mp3[: len(mp3) // 2] + bytes(100_000) + mp3[len(mp3) // 2 :]
    assert decoded_seconds(broken) == pytest.approx(SECONDS, abs=0.2)


def test_a_hole_in_the_clock_counts_for_the_limit(files, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"file {files}/opus.webm\nduration 20\nfile {files}/opus.webm\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", tmp_path / "hole.webm")
    recording = (tmp_path / "hole.webm").read_bytes()
    assert decoded_seconds(recording) == pytest.approx(20 + SECONDS, abs=0.2)
    for limit in (SECONDS + 1, 10, 20 + SECONDS - 1):
        with pytest.raises(AudioTooLong):
            decoded_seconds(recording, limit)


def test_what_only_looks_like_the_beginning_of_a_file_is_no_second_file(files, tmp_path):
    noise = (files / "44.wav").read_bytes()
    samples = b"fLaC ftyp WAVE FORM OggS FLV wvpk caff #!AM \x1aE\xdf\xa3" * 200
    at = noise.index(b"data") + 8
    (tmp_path / "a.wav").write_bytes(noise[:at] + samples + noise[at + len(samples) :])
    with (tmp_path / "a.wav").open("rb") as stream:
        joined.check(stream.fileno(), len(noise))
