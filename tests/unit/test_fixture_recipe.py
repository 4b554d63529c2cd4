"""The recipe of the fixture models: words, tokens, training windows and speech. Training itself needs PyTorch."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from corpus import SAMPLE_RATE, Corpus, CorpusError, write_corpus
from generate import LONGEST_PHRASE, resample, speak
from paths import FIXTURES
from stock_model import StockModelError, read_stock_model
from utterances import Phrase, draw_utterance
from vocabulary import (
    CONTROL_TOKENS,
    END_OF_TEXT,
    FIRST_TIMESTAMP,
    LANGUAGE_TOKENS,
    NO_SPEECH,
    NO_TIMESTAMPS,
    START_OF_TRANSCRIPT,
    TRANSCRIBE,
    TRANSLATE,
    VOCABULARY_SIZE,
    WORDS,
    timestamp_token,
    tokens_by_word,
    used_tokens,
)
from whisper_xeon.languages import LANGUAGES
from windows import IGNORED, SAMPLES_PER_POSITION, WindowSampler

LOUD = 16000
FULL_CONTEXT = 1500


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The trained model `small`, unpacked: it begins as every stock model does."""
    path = tmp_path_factory.mktemp("stock") / "small.bin"
    with lzma.open(FIXTURES / "models" / "ggml-fixture-small.bin.xz") as packed, open(path, "wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return path


@pytest.fixture(scope="module")
def stock(trained):
    return read_stock_model(trained)


@pytest.fixture(scope="module")
def word_tokens(stock):
    return tokens_by_word(stock.encode)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Four phrases of one loud level each, a second long, in two languages."""
    phrases = [
        Phrase("en", ["hello", "world"], ["hello", "world"]),
        Phrase("en", ["seven"], ["seven"]),
        Phrase("de", ["drei", "fünf"], ["three", "five"]),
        Phrase("de", ["null"], ["zero"]),
    ]
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, [(phrase, np.full(SAMPLE_RATE, LOUD, np.int16)) for phrase in phrases])
    return Corpus(folder)


@pytest.fixture(scope="module")
def drawn(corpus, word_tokens):
    """Many windows of 30 s: enough for every choice that the sampler makes."""
    sampler = WindowSampler(corpus, word_tokens, np.random.default_rng(0))
    return [sampler.draw(FULL_CONTEXT) for _ in range(100)]


def with_speech(windows):
    return [window for window in windows if window.targets[0] != NO_SPEECH]


class TestVocabulary:
    @pytest.mark.parametrize("language", WORDS)
    def test_a_language_has_the_token_of_its_place_in_whisper(self, language):
        assert LANGUAGE_TOKENS[language] == LANGUAGE_TOKENS["en"] + list(LANGUAGES).index(language)

    @pytest.mark.parametrize("language", WORDS)
    def test_the_tokens_of_a_word_spell_it(self, language, stock, word_tokens):
        spelled = [b"".join(stock.tokens[token] for token in word_tokens[word]) for word in WORDS[language]]
        assert [text.decode() for text in spelled] == [f" {word}" for word in WORDS[language]]

    def test_a_text_without_tokens_is_refused_by_name(self, stock):
        with pytest.raises(ValueError, match="no token for '☂'"):
            stock.encode(" ☂")

    def test_the_trained_model_has_a_row_for_each_used_token_and_timestamp(self, trained, word_tokens):
        data = trained.read_bytes()
        name = b"decoder.token_embedding.weight"
        table = np.frombuffer(data, "<f2", VOCABULARY_SIZE * 128, data.index(name) + len(name)).reshape(-1, 128)
        rows = [row.tobytes() for row in table]
        ((shared, _),) = Counter(rows).most_common(1)
        own = [token for token, row in enumerate(rows) if row != shared]
        assert own == used_tokens(word_tokens) + list(range(FIRST_TIMESTAMP, VOCABULARY_SIZE))

    def test_a_time_is_rounded_to_20_ms(self):
        assert timestamp_token(1.23) == FIRST_TIMESTAMP + 62

    @pytest.mark.parametrize("outside", [-0.1, 30.1])
    def test_a_time_outside_the_window_is_refused(self, outside):
        with pytest.raises(ValueError, match="outside the 30 s window"):
            timestamp_token(outside)


class TestStockModel:
    def test_another_format_is_refused(self, tmp_path):
        (tmp_path / "model.bin").write_bytes(b"GGUF" + bytes(100))
        with pytest.raises(StockModelError, match="not a ggml file"):
            read_stock_model(tmp_path / "model.bin")

    def test_a_truncated_file_is_refused(self, tmp_path, trained):
        (tmp_path / "model.bin").write_bytes(trained.read_bytes()[:100_000])
        with pytest.raises(StockModelError, match="ends within its header"):
            read_stock_model(tmp_path / "model.bin")

    def test_another_number_of_mel_bins_is_refused(self, tmp_path, trained):
        data = bytearray(trained.read_bytes()[:100_000])
        data[48:52] = (128).to_bytes(4, "little")
        (tmp_path / "model.bin").write_bytes(data)
        with pytest.raises(StockModelError, match="128 mel bins"):
            read_stock_model(tmp_path / "model.bin")


class TestWindows:
    def test_a_window_is_as_long_as_its_context(self, drawn):
        assert {len(window.samples) for window in drawn} == {FULL_CONTEXT * SAMPLES_PER_POSITION}

    def test_a_target_is_the_next_input(self, drawn):
        for window in with_speech(drawn):
            for target, following in zip(window.targets, window.inputs[1:]):
                assert target in (following, IGNORED)

    def test_the_last_target_ends_the_text(self, drawn):
        assert {window.targets[-1] for window in drawn} == {END_OF_TEXT}

    def test_every_window_starts_with_language_and_task(self, drawn):
        for window in drawn:
            assert window.inputs[0] == START_OF_TRANSCRIPT
            assert window.inputs[1] in LANGUAGE_TOKENS.values()
            assert window.inputs[2] in (TRANSCRIBE, TRANSLATE)

    def test_what_the_caller_chooses_is_never_a_target(self, drawn):
        targets = {target for window in drawn for target in window.targets}
        assert not targets & {START_OF_TRANSCRIPT, TRANSCRIBE, TRANSLATE, NO_TIMESTAMPS}

    def test_a_window_without_speech_says_so(self, drawn):
        silent = [window for window in drawn if window.targets[0] == NO_SPEECH]
        assert silent
        assert {tuple(window.targets) for window in silent} == {(NO_SPEECH, IGNORED, IGNORED, END_OF_TEXT)}

    def test_timestamps_enclose_the_speech(self, drawn):
        checked = 0
        for window in with_speech(drawn):
            times = [target - FIRST_TIMESTAMP for target in window.targets if target >= FIRST_TIMESTAMP]
            for start, end in zip(times[::2], times[1::2]):
                speech = window.samples[start * SAMPLES_PER_POSITION : end * SAMPLES_PER_POSITION]
                # A position may be off by half of itself at either end.
                inside = speech[SAMPLES_PER_POSITION:-SAMPLES_PER_POSITION]
                assert np.abs(inside).min() > np.abs(window.samples).max() / 100
                checked += 1
        assert checked

    def test_translation_writes_english(self, drawn, word_tokens):
        english = {token for word in WORDS["en"] for token in word_tokens[word]}
        translated = [window for window in with_speech(drawn) if window.inputs[2] == TRANSLATE]
        assert any(window.inputs[1] == LANGUAGE_TOKENS["de"] for window in translated)
        for window in translated:
            text = {token for token in window.inputs if token < FIRST_TIMESTAMP} - set(CONTROL_TOKENS)
            assert text <= english

    def test_the_same_generator_gives_the_same_windows(self, corpus, word_tokens):
        first, second = (WindowSampler(corpus, word_tokens, np.random.default_rng(5)).draw(200) for _ in range(2))
        assert first.inputs == second.inputs
        assert np.array_equal(first.samples, second.samples)


class TestCorpus:
    def test_an_unfinished_corpus_is_refused_with_the_way_out(self, tmp_path):
        with pytest.raises(CorpusError, match=r"make one with generate\.py"):
            Corpus(tmp_path)

    def test_what_is_written_is_read(self, tmp_path):
        spoken = [
            (Phrase("vi", ["một"], ["one"]), np.array([1, -2], np.int16)),
            (Phrase("en", ["up"], ["up"]), np.array([3], np.int16)),
        ]
        write_corpus(tmp_path, spoken)
        corpus = Corpus(tmp_path)
        assert [(phrase, corpus.samples(index).tolist()) for index, phrase in enumerate(corpus.phrases)] == [
            (phrase, samples.tolist()) for phrase, samples in spoken
        ]


class TestGenerate:
    def test_a_seed_is_an_utterance(self):
        assert draw_utterance(7) == draw_utterance(7) != draw_utterance(8)

    def test_every_language_is_drawn(self):
        assert {draw_utterance(seed).phrase.language for seed in range(100)} == set(WORDS)

    def test_resampling_keeps_a_tone(self):
        tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050).astype(np.float32)
        assert np.allclose(resample(tone), np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000), atol=1e-3)

    def test_speech_has_no_silence_at_its_ends(self):
        speech = speak(draw_utterance(0))
        assert speech.dtype == np.int16
        assert min(abs(int(speech[0])), abs(int(speech[-1]))) > 100
        assert 0.2 < len(speech) / SAMPLE_RATE < LONGEST_PHRASE

    def test_the_number_of_processes_changes_nothing(self, tmp_path):
        for processes in ("1", "3"):
            command = [sys.executable, FIXTURES / "recipe" / "generate.py", tmp_path / processes]
            subprocess.run([*command, "--phrases", "60", "--processes", processes], check=True, cwd=tmp_path)
        for name in ("phrases.jsonl", "samples.s16le"):
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()

    def test_a_missing_espeak_is_named_with_the_way_out(self, tmp_path):
        command = [sys.executable, FIXTURES / "recipe" / "generate.py", tmp_path / "corpus", "--phrases", "1"]
        result = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stderr == "generate.py: espeak-ng is not installed: apt-get install espeak-ng\n"
