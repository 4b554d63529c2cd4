"""Decoding: WAV that is read directly, the limits, and what must never be read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import struct
import threading
import time
from pathlib import Path

import pytest

from audio_files import decode_bytes, decode_file, ffmpeg, values, wav
from paths import RECORDINGS
from whisper_xeon.audio.decode import SAMPLE_RATE, decode
from whisper_xeon.audio.errors import AudioTooLong, DecoderMissing, UnreadableAudio
from whisper_xeon.audio.ffmpeg import require_tools

CLIP_SECONDS = 30
SPEECH = RECORDINGS / "en-00.wav"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Half a minute of speech: 16 kHz mono 16-bit WAV."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    ffmpeg("-i", RECORDINGS / "long.wav", "-t", str(CLIP_SECONDS), path)
    return path


def test_16_khz_wav_is_read_without_ffmpeg(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with decode_file(SPEECH) as audio:
        assert audio.samples == (SPEECH.stat().st_size - 44) // 2


def test_reading_a_wav_gives_the_same_samples_as_ffmpeg(tmp_path):
    ffmpeg("-i", SPEECH, tmp_path / "same.flac")
    assert values(decode_file(SPEECH)) == values(decode_file(tmp_path / "same.flac"))


def test_full_scale_stays_within_one():
    samples = values(decode_bytes(wav(struct.pack("<4h", -32768, 32767, 0, -1))))
    assert samples.tolist() == [-1.0, 32767 / 32768, 0.0, -1 / 32768]


def test_a_wav_of_more_than_a_minute_has_all_its_samples():
    with decode_file(RECORDINGS / "long.wav") as audio:
        assert audio.samples == 75 * SAMPLE_RATE


def test_extensible_wav_is_read(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    guid = struct.pack("<H", 1) + b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    extra = struct.pack("<HHI", 22, 16, 4) + guid
    assert values(decode_bytes(wav(b"\x00\x40" * 10, tag=0xFFFE, extra=extra))).tolist() == [0.5] * 10


def test_chunks_before_the_samples_are_skipped(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    listing = b"LIST" + struct.pack("<I", 5) + b"abcde\x00"  # odd sizes are padded
    assert len(values(decode_bytes(wav(b"\x00\x40" * 10, before=listing)))) == 10


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFFF, 21])
def test_a_wav_header_that_promises_too_much_is_clipped(claimed):
    assert len(values(decode_bytes(wav(b"\x00\x40" * 10, size=claimed)))) == 10


def test_a_wav_whose_recorder_never_filled_in_the_size_is_read():
    assert len(values(decode_bytes(wav(b"\x00\x40" * SAMPLE_RATE, size=0)))) == SAMPLE_RATE


def test_half_a_sample_at_the_end_is_dropped():
    assert len(values(decode_bytes(wav(b"\x00\x40" * 10 + b"\x01")))) == 10


def test_a_wav_without_samples_is_an_empty_clip():
    with decode_bytes(wav(b"")) as audio:
        assert (audio.samples, audio.duration) == (0, 0.0)


def test_not_a_number_does_not_get_through():
    floats = struct.pack("<f", float("nan")) * 800 + struct.pack("<f", float("inf")) * 800
    samples = values(decode_bytes(wav(floats + struct.pack("<f", 0.5) * 8000, tag=3, bits=32)))
    assert all(-1 <= sample <= 1 for sample in samples)


def test_the_samples_are_sealed():
    with decode_file(SPEECH) as audio:
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(audio.fd, fcntl.F_GET_SEALS) == seals


def test_closing_twice_is_harmless():
    audio = decode_file(SPEECH)
    audio.close()
    audio.close()


def test_an_upload_is_read_from_its_beginning_wherever_its_offset_is(tmp_path, clip):
    ffmpeg("-i", clip, tmp_path / "clip.mp3")
    with open(tmp_path / "clip.mp3", "rb") as stream:
        stream.seek(1000)
        os.lseek(stream.fileno(), 0, os.SEEK_END)
        with decode(stream.fileno(), max_seconds=600) as audio:
            assert audio.duration == pytest.approx(CLIP_SECONDS, abs=0.15)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"hello, world\n" * 100, id="text"),
        pytest.param(os.urandom(5000), id="noise"),
        pytest.param(b"RIFF\xff\xff\xff\xffWAVE", id="bare wav header"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), id="png"),
        pytest.param(b"\x7fELF" + bytes(1000), id="program"),
        pytest.param(wav(b"\x00" * 100, channels=0), id="wav without channels"),
    ],
)
def test_what_is_no_audio_is_refused_with_what_is_accepted(data):
    with pytest.raises(UnreadableAudio, match="wav, mp3, m4a"):
        decode_bytes(data)


def test_an_empty_upload_is_refused():
    with pytest.raises(UnreadableAudio, match="the file is empty"):
        decode_bytes(b"")


def test_a_video_without_sound_is_said(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=1", tmp_path / "mute.mp4")
    with pytest.raises(UnreadableAudio, match="has no audio track"):
        decode_file(tmp_path / "mute.mp4")


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{target}\n#EXT-X-ENDLIST\n",
    "hls by http": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="a" '
    'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "ram": "{target}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_cannot_make_ffmpeg_read_another_file(kind, clip):
    with pytest.raises(UnreadableAudio):
        decode_bytes(PLAYLISTS[kind].format(target=clip).encode())


def test_audio_at_the_limit_is_accepted(clip):
    with decode_file(clip, max_seconds=CLIP_SECONDS) as audio:
        assert audio.duration == CLIP_SECONDS


def test_wav_over_the_limit_is_refused_with_the_limit(clip):
    with pytest.raises(AudioTooLong, match="longer than 29 s"):
        decode_file(clip, max_seconds=29)


def test_compressed_audio_over_the_limit_is_refused_with_the_limit(clip, tmp_path):
    ffmpeg("-i", clip, tmp_path / "clip.mp3")
    with pytest.raises(AudioTooLong, match="longer than 29 s"):
        decode_file(tmp_path / "clip.mp3", max_seconds=29)


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    """Six hours of silence in a file that anybody may upload."""
    path = tmp_path_factory.mktemp("bomb") / "silence.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", str(6 * 3600), path)
    assert path.stat().st_size < 8 << 20
    return path


def test_hours_in_a_small_file_are_decoded_no_further_than_the_limit(bomb):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(AudioTooLong):
        decode_file(bomb, max_seconds=10)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2


def test_decoding_that_takes_too_long_is_ended(bomb):
    with pytest.raises(UnreadableAudio, match=r"took longer than 0\.3 s"):
        decode_file(bomb, max_seconds=6 * 3600, timeout=0.3)


def test_whoever_counts_the_memory_sees_the_samples_grow_while_they_are_decoded(bomb):
    sizes: list[int] = []
    with pytest.raises(AudioTooLong):
        decode_file(bomb, max_seconds=3 * 3600, grown=sizes.append)
    assert len(sizes) > 2
    assert sizes == sorted(sizes)
    assert sizes[-1] == (3 * 3600 + 1) * SAMPLE_RATE * 4


def test_decoding_ends_with_what_whoever_counts_the_memory_raises(bomb):
    class Full(Exception):
        pass

    def refuse(size: int) -> None:
        if size > 1 << 20:
            raise Full

    children = sorted(Path("/proc/self/task").glob("*/children"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(Full):
        decode_file(bomb, max_seconds=6 * 3600, grown=refuse)
    assert not any(path.read_text() for path in children if path.exists())
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2


def test_ffmpeg_sees_no_environment_no_name_and_has_limits(bomb, monkeypatch):
    monkeypatch.setenv("SECRET", "42")
    thread = threading.Thread(target=lambda: decode_file(bomb, max_seconds=7 * 3600).close())
    thread.start()
    process = None
    while process is None and thread.is_alive():
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in children.read_text().split():
                with contextlib.suppress(OSError):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if command[0].startswith(b"/proc/self/fd/") and b"-filter_complex" in command:
                        process = Path(f"/proc/{pid}")
        time.sleep(0.001)
    names = ("environ", "cmdline", "limits", "oom_score_adj")
    seen = {name: (process / name).read_bytes().decode() for name in names}
    thread.join()
    assert seen["environ"].strip("\0") == "LC_ALL=C"
    assert bomb.name not in seen["cmdline"]
    assert seen["oom_score_adj"] == "1000\n"
    limits = {line[:25].strip(): line[25:].split()[0] for line in seen["limits"].splitlines()}
    assert limits["Max data size"] == str(400 << 20)
    assert limits["Max address space"] == str(800 << 20)
    assert limits["Max cpu time"] == "61"
    assert limits["Max file size"] == str((7 * 3600 + 1) * SAMPLE_RATE * 4)
    assert limits["Max open files"] == "32"
    assert limits["Max core file size"] == "0"


def test_tags_of_megabytes_take_no_time(clip, tmp_path):
    (tmp_path / "tags").write_text(f";FFMETADATA1\ntitle={': Audio: (drms ' * 200_000}\n")
    ffmpeg("-i", clip, "-i", tmp_path / "tags", "-map_metadata", "1", tmp_path / "clip.mp3")
    assert (tmp_path / "clip.mp3").stat().st_size > 2 << 20
    before = time.process_time()
    decode_file(tmp_path / "clip.mp3").close()
    assert time.process_time() - before < 2


def test_failed_decodings_leave_no_descriptor_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for data in (b"x" * 100, b"", wav(b"\x00\x00" * 100)):
        with contextlib.suppress(UnreadableAudio, AudioTooLong):
            decode_bytes(data, max_seconds=0.001)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_host_without_ffmpeg_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DecoderMissing, match="apt-get install ffmpeg"):
        require_tools()
    with pytest.raises(DecoderMissing):
        decode_bytes(b"ID3" + bytes(1000))
