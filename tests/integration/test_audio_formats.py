"""Each format that people send is decoded; the others are refused with what helps."""

from __future__ import annotations

import array
import ctypes
import statistics
import subprocess
from pathlib import Path

import pytest

from audio_files import decode_bytes, decode_file, ffmpeg, values, wav
from paths import RECORDINGS
from whisper_xeon.audio.decode import SAMPLE_RATE, PcmAudio
from whisper_xeon.audio.errors import UnreadableAudio
from whisper_xeon.audio.file_types import FileHint

CLIP_SECONDS = 30

# Ending of a file -> how ffmpeg writes it.
FORMATS = {
    "m4a": [],
    "mp4": ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=30", "-c:v", "libx264", "-preset", "ultrafast"],
    "mov": [],
    "3gp": ["-c:a", "aac", "-ar", "16000"],
    "mp3": [],
    "ogg": ["-c:a", "libvorbis"],
    "opus": [],
    "flac": [],
    "aac": [],
    "webm": ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=30", "-c:v", "libvpx", "-deadline", "realtime"],
    "aiff": [],
    "caf": [],
    "wma": [],
    "avi": [],
    "ts": [],
    "8bit.wav": ["-c:a", "pcm_u8"],
    "24bit.wav": ["-c:a", "pcm_s24le"],
    "32bit.wav": ["-c:a", "pcm_s32le"],
    "float.wav": ["-c:a", "pcm_f32le"],
    "stereo.wav": ["-ac", "2"],
    "8khz.wav": ["-ar", "8000"],
    "48khz.wav": ["-ar", "48000"],
    "mulaw.wav": ["-ar", "8000", "-c:a", "pcm_mulaw"],
    "alac.m4a": ["-c:a", "alac"],
    "mkv": ["-c:a", "aac"],
    "ac3": ["-ar", "48000"],
    "eac3": ["-ar", "48000"],
    "dts": ["-ar", "48000", "-ac", "2", "-c:a", "dca", "-strict", "-2"],
    "dts.mkv": ["-ar", "48000", "-ac", "2", "-c:a", "dca", "-strict", "-2"],
    "dts.wav": ["-ar", "48000", "-ac", "2", "-c:a", "dca", "-strict", "-2", "-f", "wav"],
    "thd": ["-ar", "48000", "-c:a", "truehd", "-strict", "-2"],
    "mlp": ["-ar", "48000", "-c:a", "mlp", "-strict", "-2", "-f", "mlp"],
    "truehd.mkv": ["-ar", "48000", "-c:a", "truehd", "-strict", "-2"],
    "flv": ["-ar", "44100", "-c:a", "mp3"],
    "aac.flv": ["-ar", "44100", "-c:a", "aac"],
    "nellymoser.flv": ["-ar", "44100", "-c:a", "nellymoser"],
    "adpcm.flv": ["-ar", "44100", "-c:a", "adpcm_swf"],
    "speex.flv": ["-c:a", "libspeex"],
    "mpg": ["-ar", "48000", "-c:a", "mp2", "-f", "mpeg"],
    "ac3.vob": ["-ar", "48000", "-c:a", "ac3"],
    "dts.vob": ["-ar", "48000", "-ac", "2", "-c:a", "dca", "-strict", "-2"],
    "pcm.vob": ["-ar", "48000", "-ac", "2", "-c:a", "pcm_dvd"],
    "wv": [],
    "w64": [],
    "wavpack.mkv": ["-c:a", "wavpack"],
    "m2ts": ["-ar", "48000", "-ac", "2", "-c:a", "pcm_bluray", "-mpegts_m2ts_mode", "1"],
    "au": [],
    "mulaw.au": ["-ar", "8000", "-c:a", "pcm_mulaw"],
    "g726.wav": ["-ar", "8000", "-c:a", "adpcm_g726"],
    "g726-16.wav": ["-ar", "8000", "-c:a", "adpcm_g726", "-code_size", "2"],
    "g722.wav": ["-c:a", "adpcm_g722"],
}


def loudness(samples: array.array) -> list[float]:
    """Mean magnitude of every second of the clip but the last; encoders shift the sound by up to a tenth."""
    step = SAMPLE_RATE
    return [sum(map(abs, samples[at : at + step])) / step for at in range(0, (CLIP_SECONDS - 1) * step, step)]


def encode_amr(clip: Path, path: Path) -> None:
    """Write AMR with the encoder that Debian keeps out of its ffmpeg (package libopencore-amrnb0)."""
    library = ctypes.CDLL("libopencore-amrnb.so.0")
    # void * Encoder_Interface_init(int dtx)
    library.Encoder_Interface_init.restype = ctypes.c_void_p
    # int Encoder_Interface_Encode(void * state, enum Mode mode, const short * speech, unsigned char * out, int force)
    library.Encoder_Interface_Encode.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int),
    ]
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", clip, "-ar", "8000", "-f", "s16le", "-"]
    pcm = subprocess.run(command, check=True, capture_output=True).stdout
    encoder = ctypes.c_void_p(library.Encoder_Interface_init(0))
    frame, best_quality = ctypes.create_string_buffer(64), 7
    data = b"#!AMR\n"
    for at in range(0, len(pcm) - 319, 320):
        size = library.Encoder_Interface_Encode(encoder, best_quality, pcm[at : at + 320], frame, 0)
        data += frame.raw[:size]
    library.Encoder_Interface_exit(encoder)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Half a minute of speech: 16 kHz mono 16-bit WAV."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    ffmpeg("-i", RECORDINGS / "long.wav", "-t", str(CLIP_SECONDS), path)
    return path


@pytest.fixture(scope="module")
def original(clip) -> array.array:
    return values(decode_file(clip))


def assert_sounds_like(audio: PcmAudio, original: array.array) -> None:
    assert audio.duration == pytest.approx(CLIP_SECONDS, abs=0.15)
    assert statistics.correlation(loudness(values(audio)), loudness(original)) > 0.95


@pytest.mark.parametrize("ending", FORMATS)
def test_half_a_minute_is_decoded_from(ending, clip, original, tmp_path):
    path = tmp_path / f"clip.{ending}"
    ffmpeg("-i", clip, *FORMATS[ending], path)
    assert_sounds_like(decode_file(path), original)


def test_half_a_minute_is_decoded_from_amr(clip, original, tmp_path):
    encode_amr(clip, tmp_path / "clip.amr")
    assert_sounds_like(decode_file(tmp_path / "clip.amr"), original)


def test_half_a_minute_is_decoded_from_3gp_with_amr(clip, original, tmp_path):
    encode_amr(clip, tmp_path / "clip.amr")
    ffmpeg("-i", tmp_path / "clip.amr", "-c:a", "copy", tmp_path / "clip.3gp")
    assert_sounds_like(decode_file(tmp_path / "clip.3gp"), original)


RAW = {"g722": ["-c:a", "adpcm_g722"], "mulaw": ["-ar", "8000"], "alaw": ["-ar", "8000"]}


@pytest.mark.parametrize(
    ("demuxer", "hint"),
    [
        pytest.param("g722", FileHint("audio/G722;rate=8000"), id="G.722 by type"),
        pytest.param("g722", FileHint("application/octet-stream", "call.g722"), id="G.722 by name"),
        pytest.param("mulaw", FileHint("audio/PCMU"), id="mu-law by type"),
        pytest.param("mulaw", FileHint("audio/basic", "call"), id="mu-law as basic"),
        pytest.param("mulaw", FileHint("", "call.ULAW"), id="mu-law by name"),
        pytest.param("alaw", FileHint("audio/x-alaw; rate=8000"), id="A-law by type"),
        pytest.param("alaw", FileHint("", "call.2026.al"), id="A-law by name"),
    ],
)
def test_half_a_minute_is_decoded_from_raw(demuxer, hint, clip, original, tmp_path):
    path = tmp_path / "clip"
    ffmpeg("-i", clip, *RAW[demuxer], "-f", demuxer, path)
    assert_sounds_like(decode_file(path, hint=hint), original)


def test_the_content_type_says_the_rate_and_the_channels_of_raw_samples(clip, original, tmp_path):
    ffmpeg("-i", clip, "-ar", "16000", "-ac", "2", "-f", "mulaw", tmp_path / "clip")
    hint = FileHint("audio/PCMU; rate=16000; channels=2")
    assert_sounds_like(decode_file(tmp_path / "clip", hint=hint), original)


@pytest.mark.parametrize("ending", ["au", "wav", "flac", "mp4"])
def test_a_file_that_says_what_it_is_is_believed_over_its_content_type(ending, clip, original, tmp_path):
    ffmpeg("-i", clip, tmp_path / f"clip.{ending}")
    hint = FileHint("audio/basic", "clip.ulaw")
    assert_sounds_like(decode_file(tmp_path / f"clip.{ending}", hint=hint), original)


@pytest.mark.parametrize(
    ("data", "hint", "message"),
    [
        pytest.param(b"MAC \x96\x0f" + bytes(500), FileHint(), r"Monkey's Audio.*ffmpeg -i FILE", id="Monkey's Audio"),
        pytest.param(b".RMF" + bytes(500), FileHint(), r"RealMedia.*ffmpeg -i FILE -vn audio\.flac", id="RealMedia"),
        pytest.param(
            b"#EXTM3U\nhttp://example.com/a.ts\n", FileHint(), "a playlist.*ffmpeg -i PLAYLIST", id="playlist"
        ),
        pytest.param(b"MThd" + bytes(100), FileHint(), "notes and no sound", id="MIDI"),
        pytest.param(b"PK\x03\x04" + bytes(100), FileHint(), "compressed: unpack it", id="zip"),
        pytest.param(b"<!DOCTYPE html><p>404</p>", FileHint(), "a web page", id="web page"),
        pytest.param(bytes(500), FileHint("audio/L16;rate=16000"), "ffmpeg -f s16be -ar 16000", id="L16"),
        pytest.param(bytes(500), FileHint("", "a.pcm"), "without a header.*ffmpeg -f s16le -ar 16000", id="raw PCM"),
        pytest.param(bytes(500), FileHint("", "a.gsm"), "ffmpeg -f gsm -i FILE audio.wav", id="GSM"),
    ],
)
def test_what_is_refused_says_what_it_is_and_what_helps(data, hint, message):
    with pytest.raises(UnreadableAudio, match=message) as refusal:
        decode_bytes(data, hint=hint)
    assert "\n" not in str(refusal.value)


def test_an_audio_track_that_cannot_be_decoded_is_named(clip, tmp_path):
    ffmpeg("-i", clip, "-c:a", "tta", tmp_path / "clip.mkv")
    with pytest.raises(UnreadableAudio, match=r"\(tta\) cannot be decoded here.*ffmpeg -i FILE -vn audio\.flac"):
        decode_file(tmp_path / "clip.mkv")


@pytest.mark.parametrize("rate", [1, 3999, 192_001, 655_350])
def test_rates_that_nobody_records_with_are_refused(rate):
    with pytest.raises(UnreadableAudio, match=rf"has {rate} samples per second: 4000 to 192000"):
        decode_bytes(wav(bytes(4000), rate=rate))


def test_absurdly_many_channels_are_refused():
    with pytest.raises(UnreadableAudio, match="has 64 channels: at most 32"):
        decode_bytes(wav(bytes(64 * 2 * 4000), channels=64))


def test_192_khz_is_decoded(clip, original, tmp_path):
    ffmpeg("-i", clip, "-ar", "192000", tmp_path / "clip.flac")
    assert_sounds_like(decode_file(tmp_path / "clip.flac"), original)


def test_surround_sound_is_mixed(clip, original, tmp_path):
    ffmpeg("-i", clip, "-ac", "6", tmp_path / "clip.wav")
    assert_sounds_like(decode_file(tmp_path / "clip.wav"), original)
