"""OpenAI's own weights on recordings of people: the right words at the right times, on all CPU libraries that run here.

Everything that is about bytes and not about words is tested with the fixtures. The recordings, with their sources and
licences, are those of bench/speech; starts of words were set by hand, in spectrograms.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import jiwer
import numpy as np
import pytest

from paths import ROOT
from whisper_package.package import Package
from whisper_package.variants import cpu_flags
from whisper_xeon import WhisperLibraryAdapter
from whisper_xeon.audio.decode import SAMPLE_RATE, decode, map_samples
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.transcript import DecodeOptions, Transcript

CLIPS = ROOT / "bench" / "speech" / "clips"
SECONDS = 120  # for a clip; it takes longer only if something hangs
LATE = 0.2  # seconds by which a word may start earlier or later than a person set it


@dataclass(frozen=True)
class Said:
    """What is said in a recording, and when some of its words begin: number of the word → seconds."""

    language: str
    text: str
    starts: dict[int, float] = field(default_factory=dict)
    errors: int = 0  # words that a library that rounds differently may have wrong


BERTIE = Said("en", "Hello, Bertie, any good in your mind?", {0: 0.45, 1: 0.69, 3: 1.45, 4: 1.78, 6: 1.97})
UNLESS = Said(
    "en",
    "Unless to be rather cold-hearted and rather selfish is to be ill-disposed.",
    {0: 0.25, 1: 0.59, 4: 1.39, 7: 2.79},
    errors=1,
)
# What tiny.en attends to lags behind in the other words, also in openai-whisper.
TINY = {
    "en_ls0003.ogg": replace(BERTIE, starts={0: 0.45, 1: 0.69, 4: 1.78}),
    "en_sense0890.ogg": replace(UNLESS, starts={0: 0.25, 1: 0.59, 4: 1.39}),
}
BASE = {
    "en_ls0003.ogg": BERTIE,
    "en_sense0890.ogg": UNLESS,
    # Half a second of silence comes before "and".
    "en_lj16.ogg": Said(
        "en",
        "The Middle Ages brought calligraphy to perfection, and it was natural therefore",
        {7: 3.21, 9: 3.63, 10: 3.91},
    ),
    "fr_leopard.mp3": Said(
        "fr", "Sous le consulat, il devient conservateur des eaux et forêts et conseiller général.", errors=1
    ),
    "nl_nathalie860.webm": Said("nl", "Als je PC zegt dat er te weinig geheugen is, dan is dat ook zo.", errors=1),
    "ja_julius.wav": Said("ja", "今日はいい天気だ"),
}
TABLE = {"tiny.en": TINY, "base": BASE}


def plain(text: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter == "'" else " " for letter in text.lower())
    return " ".join(kept.split())


@pytest.fixture(scope="module", params=[(model, number) for model in TABLE for number in range(6)])
def heard(request, real_artifacts_dir) -> tuple[str, dict[str, Transcript]]:
    """A model, and what one of the CPU libraries that this processor runs made of its recordings."""
    model, number = request.param
    package = Package.find(real_artifacts_dir, model)
    variants = [each["name"] for each in package.manifest["variants"] if cpu_flags().issuperset(each["cpu_flags"])]
    if number >= len(variants):
        pytest.skip(f"this processor runs {len(variants)} libraries of the package")
    return model, transcribe(package, variants[number], TABLE[model])


def transcribe(package: Package, variant: str, clips: dict[str, Said]) -> dict[str, Transcript]:
    pool = EnginePool(package, engines=1, queue=1, threads=available_cores(), cpu_variant=variant)
    pool.start()
    try:
        found = {}
        for name in clips:
            with open(CLIPS / name, "rb") as stream, decode(stream.fileno(), max_seconds=60) as audio:
                options = DecodeOptions(word_timestamps=True)
                found[name] = pool.transcribe(
                    audio, options, deadline=time.monotonic() + SECONDS, cancelled=None
                ).transcript
        return found
    finally:
        pool.stop(grace=0)


def test_it_hears_what_was_said(heard):
    model, transcripts = heard
    wrong = {}
    for name, said in TABLE[model].items():
        compared = jiwer.process_words(plain(said.text), plain(transcripts[name].text))
        if compared.substitutions + compared.deletions + compared.insertions > said.errors:
            wrong[name] = transcripts[name].text
    assert not wrong
    assert {name: found.language for name, found in transcripts.items()} == {
        name: said.language for name, said in TABLE[model].items()
    }


def test_words_begin_when_they_are_spoken(heard):
    model, transcripts = heard
    wrong = {}
    for name, said in TABLE[model].items():
        words = [word for segment in transcripts[name].segments for word in segment.words]
        for number, start in said.starts.items():
            if abs(words[number].start - start) > LATE:
                wrong[name, words[number].text] = (words[number].start, start)
    assert not wrong


@pytest.mark.parametrize("model", TABLE)
def test_clips_that_are_decoded_together_say_what_each_says_alone(real_artifacts_dir, model):
    paths = [CLIPS / name for name in TABLE[model]]
    with WhisperLibraryAdapter(model, real_artifacts_dir) as adapter:
        assert adapter.transcribe_many(paths) == [adapter.transcript(path) for path in paths]


def test_what_less_than_the_window_leaves_in_doubt_is_decoded_again_with_all_of_it(real_artifacts_dir):
    """On the telephone German sounds English to an encoder that sees a third of its window, and noise is guessed at."""
    with (
        WhisperLibraryAdapter("base", real_artifacts_dir) as shorter,
        WhisperLibraryAdapter("base", real_artifacts_dir, audio_ctx="full") as full,
    ):
        for name in ("de_tel_alaw.wav", "en_noisy287_4.ogg"):
            assert shorter.transcript(CLIPS / name) == replace(full.transcript(CLIPS / name), decoded_again=True)
        certain, whole = (each.transcript(CLIPS / "en_sense0890.ogg") for each in (shorter, full))
    assert certain.text == whole.text
    assert not certain.decoded_again
    assert certain.language_probability != whole.language_probability  # the encoder did see less


def test_the_language_is_that_of_the_speech_and_not_of_the_hiss_before_it(real_artifacts_dir):
    """The hiss is louder than the voice, so that the voice detection alone cannot tell."""
    with open(CLIPS / "de_leopard.wav", "rb") as stream, decode(stream.fileno(), max_seconds=60) as audio:
        voice = np.frombuffer(map_samples(audio.fd, audio.samples), np.float32)
    silence = 32 * SAMPLE_RATE  # more than one window of Whisper's
    hiss = np.random.default_rng(0).standard_normal(silence + len(voice)) * np.sqrt(2 * np.mean(voice**2))
    hiss[silence:] += voice
    samples = (hiss / (2 * np.abs(hiss).max())).astype(np.float32)
    with WhisperLibraryAdapter("base", real_artifacts_dir) as whisper:
        transcript = whisper.transcribe_pcm(samples.tobytes())
    assert transcript.language == "de"
    assert transcript.segments[0].start >= 32
