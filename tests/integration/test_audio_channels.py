"""Which track is taken, and what becomes of the two sides of a stereo recording."""

from __future__ import annotations

import array
from pathlib import Path

import pytest

from audio_files import decode_bytes, decode_file, ffmpeg, sides, sounding, values, wav
from paths import RECORDINGS
from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.audio.errors import NoSides

GERMAN, ENGLISH = RECORDINGS / "de-00.wav", RECORDINGS / "en-05.wav"  # 2.2 s and 1.8 s
FIRST, SECOND = 2.2, 1.8
BOTH = ["-i", GERMAN, "-i", ENGLISH, "-map", "0:a", "-map", "1:a"]
MUTED = ["-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=1", "-i", ENGLISH, "-map", "0:a", "-map", "1:a"]


def duration(path: Path) -> float:
    with decode_file(path) as audio:
        return audio.duration


def rms(samples: array.array) -> float:
    return (sum(sample * sample for sample in samples) / len(samples)) ** 0.5


def heard(samples: array.array, start: float, end: float) -> bool:
    return any(sounding(samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]))


def stereo(path: Path, expression: str) -> Path:
    """Write a stereo file whose sides are made of the recordings [0] and [1], six seconds long."""
    graph = f"[0]apad=whole_dur=6[a];[1]adelay=3000,apad=whole_dur=6[b];[a][b]join=channel_layout=stereo,{expression}"
    ffmpeg("-i", GERMAN, "-i", ENGLISH, "-filter_complex", graph, path)
    return path


# Tracks.


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "libopus"), ("mp4", "aac"), ("webm", "libvorbis"), ("mov", "pcm_s16le")]
)
@pytest.mark.parametrize(("default", "expected"), [(0, FIRST), (1, SECOND)])
def test_the_default_track_is_taken(ending, codec, default, expected, tmp_path):
    flags = ["-disposition:a:0", "0", "-disposition:a:1", "0", f"-disposition:a:{default}", "default"]
    ffmpeg(*BOTH, "-c:a", codec, *flags, tmp_path / f"two.{ending}")
    assert duration(tmp_path / f"two.{ending}") == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_without_a_default_the_first_track_is_taken_however_many_channels_others_have(ending, tmp_path):
    flags = ["-disposition:a:0", "0", "-disposition:a:1", "0", "-ac:a:1", "2", "-c:a", "ac3", "-ar", "48000"]
    ffmpeg(*BOTH, *flags, tmp_path / f"two.{ending}")
    assert duration(tmp_path / f"two.{ending}") == pytest.approx(FIRST, abs=0.15)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_of_a_muted_track_and_another_the_other_is_taken(ending, tmp_path):
    ffmpeg(*MUTED, "-c:a", "aac", tmp_path / f"muted.{ending}")
    assert any(sounding(values(decode_file(tmp_path / f"muted.{ending}"))))


def test_of_silent_tracks_the_first_is_taken(tmp_path):
    silence = ["-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono"]
    ffmpeg(*silence, *silence, "-map", "0:a", "-map", "1:a", "-t", "2", tmp_path / "silent.mkv")
    assert duration(tmp_path / "silent.mkv") == pytest.approx(2, abs=0.1)


# Mixing.


@pytest.mark.parametrize("ending", ["wav", "mp3", "m4a"])
def test_sides_that_cancel_out_are_heard(ending, tmp_path):
    opposite = "pan=stereo|c0=c0|c1=-1*c0"
    ffmpeg("-i", GERMAN, "-af", opposite, "-ar", "44100", tmp_path / f"opposite.{ending}")
    loudness = rms(values(decode_file(GERMAN)))
    assert rms(values(decode_file(tmp_path / f"opposite.{ending}"))) == pytest.approx(loudness * 0.7, rel=0.1)


def test_a_sentence_that_cancels_out_among_others_is_heard(tmp_path):
    path = stereo(tmp_path / "one.flac", "pan=stereo|c0=c0+c1|c1=c0-c1")
    samples = values(decode_file(path))
    assert (heard(samples, 0, 2.2), heard(samples, 3, 4.8)) == (True, True)


@pytest.mark.parametrize("mix", ["c0=c0+0.4*c1|c1=0.4*c0+c1", "c0=c0|c1=c1", "c0=c0|c1=0*c0"])
def test_a_mix_that_loses_nothing_is_ffmpegs_own(mix, tmp_path):
    path = stereo(tmp_path / "stereo.flac", f"pan=stereo|{mix}")
    mixed = "aformat=sample_fmts=s16:sample_rates=16000:channel_layouts=mono"
    ffmpeg("-i", path, "-af", mixed, "-c:a", "pcm_f32le", "-f", "f32le", tmp_path / "plain")
    assert values(decode_file(path)).tobytes() == (tmp_path / "plain").read_bytes()


# Sides.


@pytest.mark.parametrize("ending", ["wav", "mp3", "m4a", "ogg"])
def test_each_side_has_its_own_speaker(ending, tmp_path):
    left, right = sides(decode_file(stereo(tmp_path / f"call.{ending}", "anull"), sides=True))
    assert len(left) == len(right) == pytest.approx(6 * SAMPLE_RATE, abs=2000)
    assert [heard(side, 0, 2.2) for side in (left, right)] == [True, False]
    assert [heard(side, 3, 4.8) for side in (left, right)] == [False, True]


def test_sides_keep_their_place_on_the_clock(tmp_path):
    stereo(tmp_path / "call.flac", "anull")
    ffmpeg("-itsoffset", "5", "-i", tmp_path / "call.flac", "-c:a", "libopus", tmp_path / "late.mka")
    left, right = sides(decode_file(tmp_path / "late.mka", sides=True))
    assert [sounding(side).index(True) // 10 for side in (left, right)] == [5, 8]


@pytest.mark.parametrize("ending", ["wav", "mp3"])
@pytest.mark.parametrize("decibels", [-12, -20, -35])
def test_the_bleed_of_the_other_side_is_silenced(decibels, ending, tmp_path):
    echo = f"asplit[own][heard];[heard]adelay=40:all=1,volume={decibels}dB[late];[own][late]amerge,"
    path = stereo(tmp_path / f"bleed.{ending}", f"{echo}pan=stereo|c0=c0+c3|c1=c1+c2")
    left, right = sides(decode_file(path, sides=True))
    assert [heard(side, 0.3, 2.0) for side in (left, right)] == [True, False]
    assert [heard(side, 3.3, 4.6) for side in (left, right)] == [False, True]


def test_quiet_speech_is_no_bleed(tmp_path):
    path = stereo(tmp_path / "quiet.flac", "pan=stereo|c0=c0|c1=0.1*c1")
    _, right = sides(decode_file(path, sides=True))
    assert heard(right, 3, 4.8)


def test_who_speaks_quietly_over_another_is_kept(tmp_path):
    graph = "[0]aloop=-1:32000[loud];[1]adelay=3000,apad,volume=0.15[quiet];[loud][quiet]join=channel_layout=stereo"
    ffmpeg("-i", GERMAN, "-i", ENGLISH, "-filter_complex", graph, "-t", "10", tmp_path / "over.flac")
    _, right = sides(decode_file(tmp_path / "over.flac", sides=True))
    assert heard(right, 3, 4.8)


def test_a_mono_recording_has_no_sides():
    with pytest.raises(NoSides, match="this file has one channel"):
        decode_file(GERMAN, sides=True)


def test_surround_sound_has_no_two_sides(tmp_path):
    ffmpeg("-i", GERMAN, "-ac", "6", tmp_path / "six.flac")
    with pytest.raises(NoSides, match=r"other channels \(5\.1"):
        decode_file(tmp_path / "six.flac", sides=True)


@pytest.mark.parametrize("right", ["c0", "-1*c0"])
def test_the_same_sound_on_both_sides_is_mono_too(right, tmp_path):
    ffmpeg("-i", GERMAN, "-af", f"pan=stereo|c0=c0|c1={right}", tmp_path / "dual.mp3")
    with pytest.raises(NoSides, match="both channels of this file have the same sound"):
        decode_file(tmp_path / "dual.mp3", sides=True)


def test_two_silent_sides_are_decoded():
    left, right = sides(decode_bytes(wav(bytes(4 * SAMPLE_RATE), channels=2), sides=True))
    assert len(left) == len(right) == SAMPLE_RATE


def test_whoever_counts_the_memory_sees_both_sides(tmp_path):
    sizes: list[int] = []
    with decode_file(stereo(tmp_path / "call.flac", "anull"), sides=True, grown=sizes.append) as audio:
        assert sizes[-1] >= 2 * 4 * audio.samples
