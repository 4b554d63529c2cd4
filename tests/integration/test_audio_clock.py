"""A file's own clock counts: sound keeps its place, and a broken clock neither loses sound nor adds hours."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from audio_files import decode_file, ffmpeg, sounding, values
from paths import RECORDINGS
from whisper_xeon.audio import ogg
from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.audio.errors import AudioTooLong, UnreadableAudio

CLIP = RECORDINGS / "en-00.wav"
CLIP_SECONDS = 3.17
PICTURE = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=9"]
X264 = ["-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-preset", "ultrafast"]
VPX = ["-map", "0:v", "-map", "1:a", "-c:v", "libvpx", "-deadline", "realtime"]

# Ending of a film -> how ffmpeg writes it; its sound begins late.
FILMS = {
    "mp4": [*X264, "-c:a", "aac"],
    "mov": [*X264, "-c:a", "pcm_s16le"],
    "mkv": [*X264, "-c:a", "aac"],
    "webm": [*VPX, "-c:a", "libopus"],
    "live.webm": [*VPX, "-c:a", "libopus", "-live", "1"],
    "ts": [*X264, "-c:a", "mp2"],
    "flv": ["-map", "0:v", "-map", "1:a", "-c:v", "flv", "-ar", "44100", "-c:a", "mp3"],
}


def begins(path: Path) -> float:
    """Return when the sound begins, in seconds."""
    return sounding(values(decode_file(path))).index(True) / 10


def duration(path: Path, **limits) -> float:
    with decode_file(path, **limits) as audio:
        return audio.duration


@pytest.fixture(scope="module")
def beginning() -> float:
    """When the sound of the clip itself begins."""
    return begins(CLIP)


def with_clock(path: Path, expression: str, codec: str = "libopus") -> Path:
    """Write the clip with other times: an expression of the time TS in milliseconds and the packet's number N."""
    plain, changed = path.with_name("plain.mka"), path.with_name("changed.mka")
    ffmpeg("-i", CLIP, "-c:a", codec, plain)
    ffmpeg("-i", plain, "-c", "copy", "-bsf:a", f"setts=ts='{expression}'", changed)
    ffmpeg("-i", changed, "-c", "copy", path)
    return path


@pytest.mark.parametrize("ending", FILMS)
def test_sound_that_begins_after_the_picture_keeps_its_place_in(ending, beginning, tmp_path):
    path = tmp_path / f"film.{ending}"
    ffmpeg(*PICTURE, "-itsoffset", "5", "-i", CLIP, *FILMS[ending], path)
    assert begins(path) == pytest.approx(beginning + 5, abs=0.15)
    assert duration(path) == pytest.approx(CLIP_SECONDS + 5, abs=0.15)


@pytest.mark.parametrize("ending", ["m4a", "mka", "webm"])
def test_late_sound_keeps_its_place_where_clocks_begin_at_zero(ending, beginning, tmp_path):
    ffmpeg("-itsoffset", "5", "-i", CLIP, tmp_path / f"late.{ending}")
    assert begins(tmp_path / f"late.{ending}") == pytest.approx(beginning + 5, abs=0.15)


def test_sound_that_begins_with_the_picture_is_not_moved(beginning, tmp_path):
    ffmpeg(*PICTURE, "-i", CLIP, *FILMS["mp4"], tmp_path / "film.mp4")
    assert begins(tmp_path / "film.mp4") == beginning


def test_an_edit_list_that_skips_the_start_is_followed(tmp_path):
    ffmpeg("-i", CLIP, "-c:a", "aac", "-ar", "16000", tmp_path / "whole.mp4")
    ffmpeg("-ss", "2", "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "cut.mp4")
    assert duration(tmp_path / "cut.mp4") == pytest.approx(CLIP_SECONDS - 2, abs=0.15)


@pytest.mark.parametrize("clock", ["1", "36000", "95443"])  # the last one: its 33 bits run over
def test_a_clock_that_begins_anywhere_adds_no_silence(clock, beginning, tmp_path):
    ffmpeg("-i", CLIP, "-c:a", "mp2", "-output_ts_offset", clock, "-muxdelay", "0", tmp_path / "clip.ts")
    assert begins(tmp_path / "clip.ts") == beginning
    assert duration(tmp_path / "clip.ts") == pytest.approx(CLIP_SECONDS, abs=0.15)


def test_a_piece_of_a_live_recording_begins_at_its_first_sound(beginning, tmp_path):
    ffmpeg("-itsoffset", "700", "-i", CLIP, "-live", "1", tmp_path / "piece.webm")
    assert begins(tmp_path / "piece.webm") == beginning


@pytest.mark.parametrize("ending", ["webm", "mkv", "mp4", "mov", "ts"])
def test_a_hole_keeps_its_length_in(ending, beginning, tmp_path):
    codec = {"webm": "libopus", "mkv": "libopus", "ts": "mp2"}.get(ending, "aac")
    path = with_clock(tmp_path / f"hole.{ending}", "TS+gt(N,30)*20000", codec)
    assert duration(path) == pytest.approx(CLIP_SECONDS + 20, abs=0.3)
    sound = sounding(values(decode_file(path)))
    assert (sound.index(True) / 10, any(sound[40:180]), any(sound[210:])) == (beginning, False, True)


def test_a_hole_in_a_live_recording_keeps_its_length(tmp_path):
    with_clock(tmp_path / "hole.webm", "TS+gt(N,30)*20000")
    ffmpeg("-i", tmp_path / "hole.webm", "-c", "copy", "-live", "1", tmp_path / "live.webm")
    assert duration(tmp_path / "live.webm") == pytest.approx(CLIP_SECONDS + 20, abs=0.1)


def test_a_hole_that_makes_a_recording_too_long_is_said(tmp_path):
    path = with_clock(tmp_path / "hole.webm", "TS+gt(N,30)*20000")
    with pytest.raises(AudioTooLong, match="longer than 10 s"):
        decode_file(path, max_seconds=10)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("TS+gt(N,30)*7200000", id="two hours ahead"),
        pytest.param("TS-gt(N,30)*1000", id="one second back"),
        pytest.param("TS+between(N,30,60)*7200000", id="ahead and back"),
        pytest.param("TS+mod(N,7)*20", id="jitter"),
    ],
)
def test_a_broken_clock_neither_loses_sound_nor_adds_silence(expression, tmp_path):
    path = with_clock(tmp_path / "broken.mkv", expression)
    assert duration(path) == pytest.approx(CLIP_SECONDS, abs=0.3)


def test_random_times_lose_no_sound_and_stay_within_the_files_own_duration(tmp_path):
    path = with_clock(tmp_path / "random.mkv", "TS+random(0)*40000")
    assert CLIP_SECONDS <= duration(path) <= 40 + 2 * CLIP_SECONDS


def test_transport_streams_one_after_the_other_are_one_recording(tmp_path):
    for number, clock in enumerate(("36000", "10", "60000")):
        ffmpeg("-i", CLIP, "-c:a", "mp2", "-output_ts_offset", clock, tmp_path / f"{number}.ts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(3)))
    assert duration(joined) == pytest.approx(3 * CLIP_SECONDS, abs=0.3)


def test_a_track_that_changes_its_form_loses_nothing(tmp_path):
    ffmpeg("-i", CLIP, "-c:a", "mp2", "-ar", "32000", tmp_path / "0.ts")
    ffmpeg("-i", CLIP, "-c:a", "mp2", "-ar", "48000", "-ac", "2", tmp_path / "1.ts")
    (tmp_path / "joined.ts").write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    assert duration(tmp_path / "joined.ts") == pytest.approx(2 * CLIP_SECONDS, abs=0.3)


def chained(directory: Path, *parts: list[str]) -> Path:
    """Write the clip into one Ogg stream after the other; each part has ffmpeg's options."""
    for number, options in enumerate(parts):
        ffmpeg("-i", CLIP, *options, "-f", "ogg", directory / f"{number}.ogg")
    path = directory / "chained.ogg"
    path.write_bytes(b"".join((directory / f"{number}.ogg").read_bytes() for number in range(len(parts))))
    return path


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([["-c:a", "libopus"], ["-c:a", "libopus", "-ac", "2"]], id="Opus"),
        pytest.param([["-c:a", "libvorbis"], ["-c:a", "libvorbis", "-ar", "44100"]], id="Vorbis at another rate"),
        pytest.param([["-c:a", "flac"], ["-c:a", "flac", "-ar", "8000"]], id="FLAC at another rate"),
    ],
)
def test_chained_ogg_is_one_recording(parts, tmp_path):
    assert duration(chained(tmp_path, *parts)) == pytest.approx(2 * CLIP_SECONDS, abs=0.1)


@pytest.mark.parametrize(
    "parts", [[["-c:a", "libopus"], ["-c:a", "libvorbis"]], [["-c:a", "flac"], ["-c:a", "libopus"]]]
)
def test_chained_ogg_of_two_codecs_is_refused_rather_than_cut(parts, tmp_path):
    with pytest.raises(UnreadableAudio, match=r"different codecs one after the other \(\w+ and \w+\)"):
        decode_file(chained(tmp_path, *parts))


def test_what_looks_like_many_beginnings_costs_nothing(tmp_path):
    path = chained(tmp_path, ["-c:a", "libopus"], ["-c:a", "libopus"])
    with path.open("ab") as stream:
        stream.write(b"OggS\x00\x02" * (4 << 20))
    with path.open("rb") as stream:
        tracemalloc.start()
        try:
            begun, later = ogg.codecs(stream.fileno(), path.stat().st_size)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert begun == later != set()
    assert peak < 1 << 20


def test_a_film_in_ogg_is_no_chain(beginning, tmp_path):
    theora = ["-map", "0:v", "-map", "1:a", "-c:v", "libtheora", "-c:a", "libvorbis"]
    ffmpeg(*PICTURE, "-i", CLIP, *theora, tmp_path / "film.ogg")
    assert begins(tmp_path / "film.ogg") == beginning


def test_a_clock_without_holes_changes_no_sample(tmp_path):
    ffmpeg("-i", RECORDINGS / "long.wav", "-c:a", "aac", "-ar", "44100", "-ac", "2", tmp_path / "clip.mp4")
    mixed = "aformat=sample_fmts=s16:sample_rates=16000:channel_layouts=mono"
    ffmpeg("-i", tmp_path / "clip.mp4", "-af", mixed, "-c:a", "pcm_f32le", "-f", "f32le", tmp_path / "plain")
    samples = values(decode_file(tmp_path / "clip.mp4"))
    assert len(samples) > 70 * SAMPLE_RATE
    assert samples.tobytes() == (tmp_path / "plain").read_bytes()
