"""Voice detection on the real library: silence gives no text, speech loses none, and times are the recording's.

The small fixture model takes every sound for one of its words: that something was skipped can be seen at once.
"""

from __future__ import annotations

import array
import math
import random
import shutil

import pytest

from recordings import samples
from sealed_packages import rewrite
from whisper_package.errors import ModelFileError
from whisper_package.package import Package
from whisper_package.vad_file import check_vad_file
from whisper_xeon import ModelInitError, WhisperLibraryAdapter, WhisperLibraryError
from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.engine.cli_adapter import WhisperCliAdapter
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.engine.voice import FRAME, find_speech
from whisper_xeon.transcript import DecodeOptions

CLIP, TEXT = "en-00.wav", "five eight right eight down hello"


@pytest.fixture(scope="module", params=[WhisperLibraryAdapter, WhisperCliAdapter], ids=["library", "cli"])
def adapter(request, artifacts_dir):
    with request.param("small", artifacts_dir, threads=1) as adapter:
        yield adapter


@pytest.fixture(scope="module")
def library(artifacts_dir):
    with WhisperLibraryAdapter("small", artifacts_dir, threads=1) as adapter:
        yield adapter


@pytest.fixture
def older(small_package, tmp_path) -> Package:
    """The same package as it was before voice detection."""
    folder = tmp_path / small_package.name
    shutil.copytree(small_package.directory, folder)
    weights = small_package.vad_file.name
    (folder / weights).unlink()

    def change(manifest):
        del manifest["vad"]
        manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != weights]

    rewrite(folder, change)
    return Package(folder)


def noise(seconds: float, level: float = 0.01) -> array.array:
    chance = random.Random(1)
    return array.array("f", (chance.gauss(0, level) for _ in range(round(seconds * SAMPLE_RATE))))


def tone(seconds: float) -> array.array:
    return array.array("f", (0.3 * math.sin(number * 0.02) for number in range(round(seconds * SAMPLE_RATE))))


def transcribe(adapter, audio: array.array, **options):
    return adapter.transcribe_pcm(audio, DecodeOptions(**options))


def test_every_package_has_the_weights(small_package, medium_package):
    for package in (small_package, medium_package):
        check_vad_file(package.vad_file)
        assert package.vad_file.name == f"ggml-silero-v{package.manifest['vad']['version']}.bin"


@pytest.mark.parametrize(
    "audio",
    [array.array("f", bytes(4 * 40 * SAMPLE_RATE)), noise(40), tone(40)],
    ids=["digital zero", "hiss", "tone"],
)
def test_where_nobody_speaks_there_is_no_text(adapter, audio):
    transcript = transcribe(adapter, audio)
    assert (transcript.text, transcript.segments, transcript.speech_seconds) == ("", (), 0.0)
    assert (transcript.language, transcript.duration) == ("en", 40.0)


def test_the_language_of_silence_is_the_one_that_was_named(adapter):
    assert transcribe(adapter, noise(3), language="vi").language == "vi"


def test_without_detection_everything_is_transcribed(library):
    transcript = transcribe(library, samples(CLIP), vad=False)
    assert (transcript.text, transcript.speech_seconds) == (TEXT, None)


def test_words_are_those_without_detection_where_nothing_is_skipped(library, recordings):
    for entry in recordings:
        with_it, without = (transcribe(library, samples(entry["file"]), vad=vad) for vad in (True, False))
        assert (with_it.text, with_it.language) == (without.text, without.language)
        assert [segment.tokens for segment in with_it.segments] == [segment.tokens for segment in without.segments]


def test_speech_after_long_silence_keeps_words_language_and_place(adapter):
    alone = transcribe(adapter, samples("de-00.wav"))
    late = transcribe(adapter, noise(20) + samples("de-00.wav"))
    assert (late.text, late.language) == (alone.text, "de")
    assert late.duration == pytest.approx(20 + alone.duration)
    for ours, theirs in zip(late.segments, alone.segments):
        assert ours.start - 20 == pytest.approx(theirs.start, abs=0.3)
        assert ours.end - 20 == pytest.approx(theirs.end, abs=0.3)


def test_nothing_lies_in_a_pause(adapter):
    first, second = samples(CLIP), samples("en-09.wav")
    pause = len(first) / SAMPLE_RATE, len(first) / SAMPLE_RATE + 12
    transcript = transcribe(adapter, first + noise(12) + second, word_timestamps=True, language="en")
    assert transcript.text
    for segment in transcript.segments:
        for each in (segment, *segment.words):
            assert each.start < each.end
            assert each.end <= pause[0] + 0.1 or each.start >= pause[1] - 0.1


def test_segments_begin_and_end_with_speech(library):
    audio = samples("long.wav")
    probabilities = library._detector.probabilities(memoryview(audio))
    parts = [part.seconds for part in find_speech(probabilities, DecodeOptions())]
    segments = transcribe(library, audio, language="en").segments
    # The small network puts one now and then into the pause beside its words, where there is nothing to hold on to.
    spoken = [each for each in segments if any(start < each.end and each.start < end for start, end in parts)]
    assert len(spoken) >= 0.9 * len(segments)
    for segment in spoken:
        assert any(start <= segment.start < end for start, end in parts)
        assert any(start < segment.end <= end for start, end in parts)


@pytest.mark.parametrize("level", [1.0, 0.03])
def test_speech_is_found_however_quiet_it_is(library, recordings, level):
    for entry in recordings:
        audio = array.array("f", (sample * level for sample in samples(entry["file"])))
        assert find_speech(library._detector.probabilities(memoryview(audio)), DecodeOptions())


def test_there_is_a_probability_for_every_frame_and_a_part_of_one(library):
    for count in (1, FRAME, FRAME + 1, 250 * FRAME, 250 * FRAME + 1):
        probabilities = library._detector.probabilities(memoryview(array.array("f", bytes(4 * count))))
        assert len(probabilities) == math.ceil(count / FRAME)


def test_a_recording_gives_the_same_probabilities_again(library):
    audio = memoryview(samples(CLIP))
    first = library._detector.probabilities(audio)
    library._detector.probabilities(memoryview(samples("de-00.wav")))
    assert library._detector.probabilities(audio) == first
    assert library._detector.probabilities(audio.toreadonly()) == first


@pytest.mark.parametrize("sample", [math.nan, math.inf, -math.inf, 1e30])
def test_samples_that_are_no_sound_are_no_speech(adapter, sample):
    transcript = transcribe(adapter, array.array("f", [sample]) * (2 * SAMPLE_RATE))
    assert transcript.text == ""


def test_the_threshold_of_a_request_is_followed(library):
    low, high = (transcribe(library, samples(CLIP), vad_threshold=threshold) for threshold in (0.5, 0.99))
    assert high.speech_seconds < low.speech_seconds


def test_a_package_from_before_is_used_without(older, tmp_path):
    with WhisperLibraryAdapter("small", tmp_path, threads=1) as adapter:
        transcript = transcribe(adapter, samples(CLIP))
    assert (transcript.text, transcript.speech_seconds) == (TEXT, None)


@pytest.mark.parametrize("vad", [True, False])
def test_the_pool_says_once_why_detection_is_off(older, vad):
    events = []
    pool = EnginePool(
        older, engines=2, threads=1, queue=1, vad=vad, log=lambda level, event, **fields: events.append(event)
    )
    assert pool.stats()["vad"] == "off"
    assert [event.startswith("voice detection is off") for event in events] == [True] * vad


def test_damaged_weights_are_refused_before_the_library_reads_them(small_package, tmp_path):
    folder = tmp_path / small_package.name
    shutil.copytree(small_package.directory, folder)
    weights = folder / small_package.vad_file.name
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="in the middle of a field"):
        check_vad_file(weights)
    with pytest.raises(ModelInitError, match=f"{weights.name} is damaged"):
        WhisperLibraryAdapter("small", tmp_path)
    WhisperLibraryAdapter("small", tmp_path, vad=False).close()


def test_a_closed_adapter_detects_nothing(artifacts_dir):
    adapter = WhisperLibraryAdapter("small", artifacts_dir)
    adapter.close()
    with pytest.raises(WhisperLibraryError, match="closed"):
        transcribe(adapter, samples(CLIP))
