"""WhisperLibraryAdapter on the real library and the real fixture models."""

from __future__ import annotations

import array
import concurrent.futures
import difflib
import functools
import gc
import json
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from paths import APP, RECORDINGS
from recordings import samples
from sealed_packages import rewrite
from whisper_package.package import Package
from whisper_package.selftest import same_words
from whisper_package.variants import choose_variant, cpu_flags
from whisper_xeon import LibraryLoadError, ModelInitError, WhisperLibraryAdapter, WhisperLibraryError
from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.audio.errors import AudioError
from whisper_xeon.engine import UnsupportedOptionError, context
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.languages import LANGUAGES
from whisper_xeon.transcript import DecodeOptions, Transcript


@pytest.fixture(scope="module", params=["small", "medium"])
def model(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def adapter(model, artifacts_dir):
    """One adapter for all tests of this module that only use it. As whisper-cli, it computes all of each window."""
    with WhisperLibraryAdapter(model, artifacts_dir, audio_ctx="full") as adapter:
        yield adapter


@pytest.fixture(scope="module")
def small(artifacts_dir):
    with WhisperLibraryAdapter("small", artifacts_dir, audio_ctx="full") as adapter:
        yield adapter


def listen(adapter: WhisperLibraryAdapter, name: str, **options) -> Transcript:
    """Transcribe a recording now."""
    return adapter.transcribe_pcm(samples(name), DecodeOptions(**options))


@functools.cache
def heard(adapter: WhisperLibraryAdapter, name: str, **options) -> Transcript:
    """Transcribe a recording, or remember what it gave before: for tests of what a transcript is made of."""
    return listen(adapter, name, **options)


def whisper_cli(package: Package, name: str, *arguments: str) -> str:
    """Return what the package's own whisper-cli transcribes, decoding greedily and each window by itself.

    It computes with the CPU library that the adapter chooses: over minutes, another one's rounding changes words.
    """
    command = [
        *(package.path("whisper-cli"), "--no-prints", "--model", package.model_file),
        *("--beam-size", "1", "--best-of", "1", "--max-context", "0", "--temperature-inc", "0.4", *arguments),
        *("--file", RECORDINGS / name),
    ]
    folder = package.path(choose_variant(package, cpu_flags()).path).parent
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "LD_LIBRARY_PATH": str(folder)}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout
    return " ".join(line.partition("]")[2].strip() for line in output.splitlines() if line)


def load_elsewhere(folder: Path) -> str:
    """Return the error that a process of its own gets with the package in `folder`.

    A process loads one build of libwhisper; this one has its already.
    """
    code = (
        "import sys\n"
        "from whisper_xeon import LibraryLoadError, WhisperLibraryAdapter\n"
        "try:\n"
        "    WhisperLibraryAdapter('small', sys.argv[1])\n"
        "except LibraryLoadError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(folder.parent)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(APP)}, check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


# What it transcribes.


def test_every_exact_recording_is_transcribed_word_for_word(adapter, exact_recordings):
    actual = {entry["file"]: heard(adapter, entry["file"]).text for entry in exact_recordings}
    assert actual == {entry["file"]: entry["text"] for entry in exact_recordings}


def test_a_file_is_transcribed_to_its_text(adapter):
    assert adapter.transcribe(RECORDINGS / "en-09.wav") == "hello open juliet oscar"


def test_every_recording_is_transcribed_as_it_was_by_whisper_cli(adapter, model, recordings):
    actual = {entry["file"]: heard(adapter, entry["file"]).text for entry in recordings}
    assert actual == {entry["file"]: entry[model] for entry in recordings}


def word_errors(adapter: WhisperLibraryAdapter, recordings: list[dict]) -> int:
    errors = 0
    for entry in recordings:
        expected, actual = entry["text"].split(), listen(adapter, entry["file"]).text.split()
        same = difflib.SequenceMatcher(None, expected, actual, autojunk=False).get_matching_blocks()
        errors += max(len(expected), len(actual)) - sum(block.size for block in same)
    return errors


def test_an_encoder_that_sees_less_of_a_short_clip_hears_no_worse(adapter, model, artifacts_dir, recordings):
    with WhisperLibraryAdapter(model, artifacts_dir, audio_ctx="auto") as shorter:
        assert word_errors(shorter, recordings) <= word_errors(adapter, recordings)
        ours, full = (listen(one, "en-00.wav").segments[0] for one in (shorter, adapter))
        assert ours.avg_logprob != full.avg_logprob  # it did see less
        assert listen(shorter, "long.wav") == heard(adapter, "long.wav")  # of which nothing is left out


def test_more_than_a_window_is_transcribed_as_whisper_cli_does(adapter):
    expected = whisper_cli(adapter.package, "long.wav", "--language", "en")
    assert heard(adapter, "long.wav", language="en", vad=False).text == expected


def test_the_language_is_detected(adapter, recordings):
    detected = {entry["file"]: heard(adapter, entry["file"]).language for entry in recordings}
    assert detected == {entry["file"]: entry["language"] for entry in recordings}


def test_detecting_the_language_takes_no_encoder_pass_of_its_own(small):
    command = [small.package.path("whisper-cli"), "--model", small.package.model_file, "--language", "auto"]
    finished = subprocess.run(
        [*command, "--file", RECORDINGS / "de-00.wav"], check=True, capture_output=True, text=True
    )
    assert "auto-detected language: de" in finished.stderr
    assert re.search(r"encode time = .* /     1 runs", finished.stderr)


def test_a_detected_language_has_a_probability(adapter):
    assert 0.9 < heard(adapter, "en-00.wav").language_probability <= 1


def test_a_named_language_has_none(adapter):
    transcript = listen(adapter, "de-00.wav", language="de")
    assert (transcript.language, transcript.language_probability) == ("de", None)


def test_the_named_language_is_the_one_that_is_decoded(adapter):
    assert listen(adapter, "de-00.wav", language="fr").text != listen(adapter, "de-00.wav", language="de").text


def test_speech_is_translated_to_english(adapter, recordings):
    exact = [entry for entry in recordings if entry["exact_translation"]]
    actual = {entry["file"]: listen(adapter, entry["file"], task="translate").text for entry in exact}
    assert actual == {entry["file"]: entry["english"] for entry in exact}


@pytest.mark.parametrize("name", ["silence.wav", "noise.wav"])
def test_without_speech_there_is_no_text(adapter, name):
    transcript = listen(adapter, name)
    assert (transcript.text, transcript.segments) == ("", ())


@pytest.mark.parametrize("name", ["en-00.wav", "de-00.wav", "long.wav"])
def test_the_probability_of_silence_is_that_of_the_audio(adapter, name):
    detected, named = (
        [segment.no_speech_probability for segment in heard(adapter, name, language=language).segments]
        for language in (None, "en")
    )
    assert 0 < max(detected) < 1e-6
    assert named == detected  # what is known of the language has no part in it


def test_a_prompt_leaves_the_probability_of_silence_in_its_place(adapter):
    (segment,) = heard(adapter, "en-01.wav", language="en", prompt="five eight").segments
    assert segment.no_speech_probability < 1e-5  # any of 51,865 tokens: 1.9e-5


def test_silence_after_speech_has_none_of_its_words(adapter):
    assert listen(adapter, "en-00.wav").text
    assert listen(adapter, "silence.wav").text == ""


def test_the_same_clip_gives_the_same_transcript_again(adapter):
    assert listen(adapter, "long.wav", language="en") == heard(adapter, "long.wav", language="en")


DIFFERENT_REQUESTS = [
    ("en-00.wav", {}),
    ("noise.wav", {"temperature": 1.0}),
    ("de-00.wav", {"word_timestamps": True}),
    ("en-00.wav", {"temperature": 1.0, "language": "en"}),
    ("silence.wav", {}),
    ("fr-01.wav", {"task": "translate"}),
    ("en-01.wav", {"language": "en", "prompt": "juliet golf india"}),
    ("long.wav", {"word_timestamps": True, "language": "en"}),
    ("de-00.wav", {"temperature": 1.0}),
    ("en-00.wav", {"word_timestamps": True}),
    ("de-00.wav", {"language": "en", "beam_size": 8, "patience": 2.0}),
    ("vi-00.wav", {"language": "en", "temperature": 1.0, "best_of": 5}),
    ("en-01.wav", {"hotwords": "hello", "prompt": "open", "suppress_tokens": (3180,)}),
    ("en-02.wav", {"language": "en", "condition_on_previous_text": True, "beam_size": 2}),
    ("vi-00.wav", {"language": "fr", "compression_ratio_threshold": 0.8, "logprob_threshold": -0.2}),
]


@pytest.mark.parametrize("audio_ctx", ["full", "auto"])
def test_a_used_state_is_as_good_as_a_new_one(audio_ctx, model, artifacts_dir):
    with WhisperLibraryAdapter(model, artifacts_dir, audio_ctx=audio_ctx) as adapter:
        expected = []
        for name, options in DIFFERENT_REQUESTS:
            adapter._free_state()
            expected.append(listen(adapter, name, **options))
        for seed in range(3):
            order = random.Random(seed).sample(range(len(expected)), len(expected))
            for number in order:
                name, options = DIFFERENT_REQUESTS[number]
                state = adapter._state
                assert listen(adapter, name, **options) == expected[number]
                # One that followed several sequences would keep their memory.
                several = max(options.get("beam_size", 1), options.get("best_of", 1)) > 1
                assert adapter._state == (None if several else state or adapter._state)


def test_after_long_audio_and_after_a_failure_there_is_a_new_state(artifacts_dir, monkeypatch):
    minutes = array.array("f", bytes(4 * 121 * SAMPLE_RATE))
    with WhisperLibraryAdapter("small", artifacts_dir) as adapter:
        adapter.transcribe_pcm(minutes)
        assert adapter._state is None
        expected = listen(adapter, "en-00.wav")
        with monkeypatch.context() as broken:
            broken.setattr(context, "positions", lambda count, available: 1_000_000)
            with pytest.raises(WhisperLibraryError, match="-5"):
                listen(adapter, "en-00.wav")
        assert adapter._state is None
        assert listen(adapter, "en-00.wav") == expected


def test_clips_that_are_decoded_together_say_what_each_says_alone(adapter, recordings):
    paths = [entry["path"] for entry in recordings]
    for options in ({}, {"language": "en", "word_timestamps": True, "beam_size": 3}):
        assert adapter.transcribe_many(paths, **options) == [adapter.transcript(path, **options) for path in paths]


def test_a_clip_that_fails_beside_others_is_reported_when_they_are_done(small, tmp_path, monkeypatch):
    (tmp_path / "noise.bin").write_bytes(b"no sound" * 1000)
    begun = []
    monkeypatch.setattr(small, "window_begins", lambda: begun.append("window"))
    with pytest.raises(AudioError):
        small.transcribe_many([tmp_path / "noise.bin", *[RECORDINGS / "en-00.wav"] * 9])
    assert len(begun) == 9
    with pytest.raises(TypeError, match="loud"):
        small.transcribe_many([RECORDINGS / "en-00.wav"] * 2, loud=True)
    assert len(set(map(str, small.transcribe_many([RECORDINGS / "en-00.wav"] * 9)))) == 1


def test_any_format_is_transcribed(small, tmp_path):
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", RECORDINGS / "en-00.wav", tmp_path / "clip.flac"]
    subprocess.run(command, check=True)
    assert small.transcribe(tmp_path / "clip.flac") == "five eight right eight down hello"


# How a transcript is made up.


def test_the_text_is_the_segments_joined(adapter):
    transcript = heard(adapter, "long.wav", language="en")
    assert len(transcript.segments) > 1
    assert transcript.text == "".join(segment.text for segment in transcript.segments).strip()


def test_segments_start_and_end_where_whisper_cli_says(adapter, model, exact_recordings):
    for entry in exact_recordings:
        first = heard(adapter, entry["file"], vad=False).segments[0]
        assert [first.start, first.end] == pytest.approx([ms / 1000 for ms in entry[f"{model}_ms"]])


def test_segments_start_near_the_phrases(adapter):
    phrases = json.loads((RECORDINGS / "long.json").read_text("utf-8"))["phrases"]
    expected = [phrase["start"] for phrase in phrases if phrase["end"] < 8]
    segments = heard(adapter, "long.wav", language="en").segments
    assert [segment.start for segment in segments[: len(expected)]] == pytest.approx(expected, abs=0.3)


def test_segments_never_run_backwards_nor_past_the_end(adapter):
    transcript = heard(adapter, "long.wav", language="en")
    times = [time for segment in transcript.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= transcript.duration


def test_segments_count_from_zero(adapter):
    assert [segment.id for segment in heard(adapter, "long.wav", language="en").segments[:3]] == [0, 1, 2]


def test_segments_have_probabilities_that_json_can_hold(adapter):
    for segment in heard(adapter, "long.wav", language="en").segments:
        assert -100 <= segment.avg_logprob <= 0
        assert 0 <= segment.no_speech_probability <= 1


def test_a_transcript_crosses_a_process_border_unchanged(adapter):
    transcript = heard(adapter, "long.wav", language="en", word_timestamps=True)
    assert Transcript.from_dict(json.loads(json.dumps(transcript.to_dict(), allow_nan=False))) == transcript


def test_there_are_no_words_unless_asked_for(adapter):
    assert heard(adapter, "en-00.wav").segments[0].words == ()


@pytest.mark.parametrize("name", ["en-00.wav", "vi-01.wav", "fr-01.wav", "de-01.wav", "es-01.wav", "long.wav"])
def test_words_spell_the_text(adapter, name):
    for segment in heard(adapter, name, word_timestamps=True).segments:
        assert [word.text for word in segment.words] == segment.text.split()


def test_words_last_and_follow_each_other_within_their_segment(adapter, recordings):
    for entry in recordings:
        transcript = heard(adapter, entry["file"], word_timestamps=True)
        every = [word for segment in transcript.segments for word in segment.words]
        times = [time for word in every for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(word.start < word.end for word in every)
        assert all(0 <= time <= transcript.duration for time in times)
        for segment in transcript.segments:
            assert segment.start <= segment.words[0].start
            assert segment.words[-1].end <= segment.end


def test_asking_for_words_changes_no_text(adapter):
    plain, words = (heard(adapter, "long.wav", word_timestamps=asked) for asked in (False, True))
    assert [segment.tokens for segment in words.segments] == [segment.tokens for segment in plain.segments]


def test_words_begin_where_sound_does(adapter):
    clip = samples("en-00.wav")
    after_silence = array.array("f", bytes(4 * 3 * SAMPLE_RATE)) + clip
    first, later = (
        adapter.transcribe_pcm(pcm, DecodeOptions(language="en", word_timestamps=True)).segments[0].words
        for pcm in (clip, after_silence)
    )
    assert first[0].start < 1
    assert 3 <= later[0].start < 4


def test_a_package_from_before_has_words_too(package_copy, adapter):
    rewrite(package_copy, lambda manifest: manifest["model"].pop("alignment_heads"))
    with WhisperLibraryAdapter("small", package_copy.parent) as older:
        estimated = heard(older, "long.wav", language="en", word_timestamps=True)
    for segment in estimated.segments:
        assert [word.text for word in segment.words] == segment.text.split()
        assert all(word.start < word.end for word in segment.words)


def test_words_lie_where_they_do_when_the_language_is_named(adapter):
    detected, named = (heard(adapter, "de-00.wav", word_timestamps=True, language=each) for each in (None, "de"))
    assert detected.segments == named.segments


def test_words_have_probabilities(adapter):
    words = heard(adapter, "en-00.wav", word_timestamps=True).segments[0].words
    assert all(0 < word.probability <= 1 for word in words)


# Options and short clips.


def test_a_prompt_reaches_the_decoder(small):
    plain = listen(small, "en-01.wav", language="en")
    assert listen(small, "en-01.wav", language="en", prompt="juliet golf india") != plain


def test_a_prompt_is_not_remembered(small):
    plain = listen(small, "en-01.wav", language="en")
    listen(small, "en-01.wav", language="en", prompt="juliet golf india")
    assert listen(small, "en-01.wav", language="en") == plain


@pytest.mark.parametrize(
    "prompt",
    [
        "a" * 100_000,
        "!" * 100_000,
        " " * 100_000,
        "é" * 50_000,
        "word " * 20_000,
        "a\0b",
        "\udcff",
        "[_BEG_]<|endoftext|>",
    ],
    ids=["letters", "signs", "spaces", "accents", "words", "zero", "surrogate", "special tokens"],
)
def test_a_hostile_prompt_does_no_harm(small, prompt):
    assert listen(small, "en-00.wav", language="en", prompt=prompt).duration > 3


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_a_temperature_is_accepted(small, temperature):
    assert listen(small, "en-00.wav", temperature=temperature).language == "en"


@pytest.mark.parametrize("count", [0, 1, 200, 201, 1639])
def test_a_clip_too_short_to_hear_has_an_empty_transcript(small, count):
    transcript = small.transcribe_pcm(array.array("f", [0.1] * count))
    assert (transcript.text, transcript.segments, transcript.duration) == ("", (), count / SAMPLE_RATE)


def test_the_shortest_clip_that_is_heard_is_transcribed(small):
    assert small.transcribe_pcm(array.array("f", [0.0] * 1640)).text == ""


def test_read_only_samples_are_accepted(small):
    data = samples("en-00.wav").tobytes()
    assert small.transcribe_pcm(data).text == "five eight right eight down hello"


@pytest.mark.parametrize("language", ["yue", "xx", "english", ""])
def test_a_language_that_the_model_does_not_know_is_refused(small, language):
    """`yue` is a language of large-v3; its token is another one in the models before."""
    with pytest.raises(UnsupportedOptionError, match="does not know the language"):
        listen(small, "en-00.wav", language=language)


def test_the_languages_are_whispers():
    assert (len(LANGUAGES), LANGUAGES["vi"], LANGUAGES["yue"]) == (100, "vietnamese", "cantonese")


def test_a_missing_file_raises_what_open_raises(small):
    with pytest.raises(FileNotFoundError):
        small.transcribe("/nonexistent.wav")


def test_a_file_without_sound_is_an_audio_error(small):
    with pytest.raises(AudioError):
        small.transcribe(__file__)


# Life and death.


def test_threads_may_share_an_adapter(small, exact_recordings):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(small.transcribe, [entry["path"] for entry in exact_recordings[:6]]))
    assert texts == [entry["text"] for entry in exact_recordings[:6]]


def test_the_default_folder_is_a_setting(artifacts_dir, monkeypatch):
    monkeypatch.setenv("WHISPER_ARTIFACTS_DIR", str(artifacts_dir))
    with WhisperLibraryAdapter() as adapter:
        assert adapter.model_size == "small"
    monkeypatch.setenv("WHISPER_MODEL_SIZE", "medium")
    with WhisperLibraryAdapter() as adapter:
        assert adapter.model_size == "medium"


def test_a_file_becomes_text_or_a_whole_transcript_with_options(small, exact_recordings):
    entry = exact_recordings[0]
    assert small.transcribe(entry["path"], language="English") == entry["text"]
    transcript = small.transcript(entry["path"], language="en_GB", word_timestamps=True)
    assert (transcript.text, transcript.language) == (entry["text"], "en")
    words = [word.text.strip() for segment in transcript.segments for word in segment.words]
    assert words == entry["text"].split()
    with pytest.raises(UnsupportedOptionError, match="Klingon"):
        small.transcript(entry["path"], language="Klingon")


@pytest.fixture
def freed(artifacts_dir, monkeypatch):
    """An adapter with a state, and the calls of the library's two free functions, in order."""
    adapter = WhisperLibraryAdapter("small", artifacts_dir)
    adapter.prepare()
    calls = []
    for name in ("whisper_free_state", "whisper_free"):
        real = getattr(adapter._library, name)
        monkeypatch.setattr(adapter._library, name, lambda p, n=name, real=real: (calls.append((n, p)), real(p)))
    expected = [("whisper_free_state", adapter._state), ("whisper_free", adapter._context)]
    return adapter, calls, expected


def test_closing_frees_state_and_context_once(freed):
    adapter, calls, expected = freed
    adapter.close()
    adapter.close()
    adapter.__del__()
    assert calls == expected


def test_leaving_the_block_frees(freed):
    adapter, calls, expected = freed
    with adapter:
        pass
    assert calls == expected


def test_collecting_an_adapter_frees(artifacts_dir, monkeypatch):
    adapter = WhisperLibraryAdapter("small", artifacts_dir)
    calls = []
    real = adapter._library.whisper_free
    monkeypatch.setattr(adapter._library, "whisper_free", lambda context: (calls.append(context), real(context)))
    expected = [adapter._context]
    del adapter
    gc.collect()
    assert calls == expected


def test_a_closed_adapter_says_so(artifacts_dir):
    adapter = WhisperLibraryAdapter("small", artifacts_dir)
    adapter.close()
    with pytest.raises(WhisperLibraryError, match="closed"):
        adapter.transcribe(RECORDINGS / "en-00.wav")


def test_nothing_is_printed_but_the_text(artifacts_dir):
    code = "import sys; from whisper_xeon import WhisperLibraryAdapter as A; print(A().transcribe(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(APP), "WHISPER_ARTIFACTS_DIR": str(artifacts_dir)}
    command = [sys.executable, "-c", code, str(RECORDINGS / "en-00.wav")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("five eight right eight down hello\n", "")


def test_importing_the_package_loads_no_library():
    code = "import whisper_xeon.engine.pool, whisper_xeon.settings; print(open('/proc/self/maps').read())"
    command = [sys.executable, "-c", code]
    maps = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(APP)}, capture_output=True, text=True).stdout
    assert "libc.so" in maps
    assert "ggml" not in maps


# Errors of a package.


def test_the_errors_have_the_specified_hierarchy():
    assert issubclass(LibraryLoadError, WhisperLibraryError)
    assert issubclass(ModelInitError, WhisperLibraryError)


def test_a_missing_package_is_a_load_error_that_says_where(tmp_path):
    with pytest.raises(LibraryLoadError, match=f"{tmp_path}/whisper_small_xeon does not exist"):
        WhisperLibraryAdapter("small", tmp_path)


def test_an_unknown_model_is_a_load_error_that_names_the_models_that_are_there(artifacts_dir):
    with pytest.raises(LibraryLoadError, match=r"whisper_smal_xeon does not exist; .*small.*\(did you mean small\?\)"):
        WhisperLibraryAdapter("smal", artifacts_dir)


def test_what_cannot_be_a_model_is_a_load_error(artifacts_dir):
    with pytest.raises(LibraryLoadError, match=r"'\.\./small' is not a model's name"):
        WhisperLibraryAdapter("../small", artifacts_dir)


def test_a_missing_model_file_is_a_model_error(package_copy):
    Package(package_copy).model_file.unlink()
    with pytest.raises(ModelInitError, match=r"ggml-small-q5_1\.bin does not exist"):
        WhisperLibraryAdapter("small", package_copy.parent)


def test_a_damaged_model_is_refused_before_a_library_is_loaded(package_copy):
    package = Package(package_copy)
    weights = bytearray(package.model_file.read_bytes())
    struct.pack_into("<i", weights, 4, 50300)  # the first hyper-parameter, after the magic number
    package.model_file.write_bytes(weights)
    package.path("libwhisper.so.1").unlink()
    with pytest.raises(ModelInitError, match="n_vocab is 50300"):
        WhisperLibraryAdapter(package=package)


@pytest.mark.parametrize("name", ["libggml-base.so.0", "libggml-cpu.so.0", "libggml.so.0", "libwhisper.so.1"])
def test_a_missing_library_is_said(package_copy, name):
    if name == "libggml-cpu.so.0":
        name = choose_variant(Package(package_copy), cpu_flags()).path
    (package_copy / name).unlink()
    assert load_elsewhere(package_copy) == f"{package_copy / name} is missing: fetch the package again"


def test_a_damaged_library_is_said(package_copy):
    (package_copy / "libwhisper.so.1").write_bytes(b"\x7fELF" + bytes(1000))
    assert load_elsewhere(package_copy).startswith("libwhisper.so.1 cannot be loaded (")


def test_a_processor_without_the_instructions_is_refused_before_anything_is_mapped(package_copy):
    def demand(manifest):
        for variant in manifest["variants"]:
            variant["cpu_flags"].append("avx9000")

    rewrite(package_copy, demand)
    (package_copy / "libggml-base.so.0").unlink()
    assert load_elsewhere(package_copy).startswith("this host's processor lacks avx9000: whisper_small_xeon needs")


def test_the_flags_of_this_processor_are_known():
    assert {"fpu", "sse2"} <= cpu_flags()


LAYOUT = "libwhisper's memory layout is not the expected one"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda abi: abi.pop("whisper_full_params"), "the manifest does not describe whisper_full_params"),
        (
            lambda abi: abi["whisper_full_params"]["fields"].pop("language"),
            "does not describe whisper_full_params.language",
        ),
        (lambda abi: abi["whisper_full_params"].update(size=100), "whisper_full_params has 100 bytes"),
        (lambda abi: abi["whisper_full_params"].update(size="304"), "whisper_full_params has 304 bytes"),
        (lambda abi: abi["whisper_token_data"]["fields"]["t0"].update(size=4), "whisper_token_data.t0 has 4 bytes"),
        (lambda abi: abi["whisper_token_data"]["fields"]["plog"].update(offset=13), "does not have C's alignment"),
        (lambda abi: abi["whisper_token_data"]["fields"]["t0"].update(offset=-8), "t0 has 8 bytes at offset -8"),
        (lambda abi: abi["whisper_token_data"]["fields"]["t0"].update(offset=8), "bytes at offset"),
    ],
)
def test_an_impossible_layout_is_refused(package_copy, change, message):
    rewrite(package_copy, lambda manifest: change(manifest["abi"]))
    error = load_elsewhere(package_copy)
    assert error.startswith(LAYOUT)
    assert message in error


def test_the_layout_of_another_release_is_noticed_by_the_librarys_defaults(package_copy):
    """As between whisper.cpp 1.8.0 and 1.8.1: a new field, and everything after it eight bytes later."""

    def newer(manifest):
        layout = manifest["abi"]["whisper_full_params"]
        layout["size"] += 8
        for field in layout["fields"].values():
            field["offset"] += 8 if field["offset"] > 72 else 0

    rewrite(package_copy, newer)
    assert load_elsewhere(package_copy).startswith(f"{LAYOUT} (whisper_full_params.prompt_n_tokens defaults to")


def test_a_library_of_another_version_than_the_manifest_says_is_refused(package_copy):
    rewrite(package_copy, lambda manifest: manifest["whisper_cpp"].update(version="1.7.4"))
    assert "its manifest says 1.7.4: fetch the package again" in load_elsewhere(package_copy)


def test_a_second_build_in_the_same_process_is_refused(package_copy, small):
    (package_copy / "libwhisper.so").unlink()
    rewrite(
        package_copy,
        lambda manifest: manifest["files"].remove(next(f for f in manifest["files"] if f["path"] == "libwhisper.so")),
    )
    with pytest.raises(LibraryLoadError, match="from a build other than"):
        WhisperLibraryAdapter("small", package_copy.parent)


# The rest.


def test_cores_are_at_least_one_and_at_most_those_of_the_affinity():
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_cores_follow_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("And so, my fellow Americans:", "and so my fellow americans", True),
        ("  two\n three ", "Two three.", True),
        ("don't", "dont", True),
        ("Größe", "GRÖSSE", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("two three", "twothree", False),
        ("two", "three", False),
        ("không", "khong", False),
    ],
)
def test_texts_are_compared_as_words(a, b, same):
    assert same_words(a, b) is same
