"""What voice detection costs, what it takes for speech, and which words it loses: figures of docs/voice-detection.md.

    python -m whisper_bench.voice dist/whisper_base_xeon --speech DIRECTORY

DIRECTORY holds `refs.json`, a list of recordings with `file`, `language` and `text` (empty where nobody speaks), and
`clips/`. A recording out of which detection cuts nothing reaches Whisper untouched and is transcribed once; only the
others can lose words, and are transcribed with detection and without.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import jiwer
import numpy as np

from whisper_bench import nonspeech
from whisper_bench.nonspeech import Samples
from whisper_bench.provenance import origin
from whisper_package.package import Package
from whisper_xeon.audio.decode import decode, map_samples
from whisper_xeon.engine import voice
from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter
from whisper_xeon.transcript import DecodeOptions

# What is done to each recording of speech; the number is the recording's, from which what is random follows.
CONDITIONS: dict[str, Callable[[Samples, int], Samples]] = {
    "as it is": lambda samples, number: samples,
    "30 dB quieter": lambda samples, number: nonspeech.quiet(samples),
    "telephone": lambda samples, number: nonspeech.telephone(samples),
    "noise, 5 dB": nonspeech.noisy,
    "sung": nonspeech.sung,
}
_WITHOUT_SPACES = ("ja", "ko", "zh")
_LONGEST_S = 120.0  # a longer recording is left out
_DRAWS = 10_000


@dataclass
class Lost:
    """The errors in one recording, in words, or in characters where a language writes no spaces."""

    words: int
    without: int  # errors without detection
    with_it: int


def main() -> int:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a package that has voice detection")
    parser.add_argument("--speech", type=Path, help="the directory with refs.json and clips/")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder (default 1); detection has one always")
    parser.add_argument("--count", type=int, default=200, help="recordings without speech to make (default 200)")
    arguments = parser.parse_args()
    with WhisperLibraryAdapter(package=Package(arguments.package), threads=arguments.threads) as adapter:
        if not adapter.package.vad_file:
            print(f"{arguments.package} is from before voice detection: build it again", file=sys.stderr)
            return 1
        print(f"cost: {cost(adapter):.3f} % of the audio's length on one thread", flush=True)
        print_nonspeech(adapter, arguments.count)
        if arguments.speech:
            print_speech(adapter, arguments.speech)
    print(origin())
    return 0


def cost(adapter: WhisperLibraryAdapter, seconds: int = 300, rounds: int = 5) -> float:
    """Return the time of detection in percent of the audio's: the best of some rounds, the dearer of loud and quiet."""
    samples = nonspeech.noisy(np.zeros(seconds * nonspeech.RATE, np.float32), 0)
    return max(min(_timed(adapter, samples * level) for _ in range(rounds)) for level in (1.0, 0.001)) / seconds * 100


def print_nonspeech(adapter: WhisperLibraryAdapter, count: int) -> None:
    """Transcribe recordings without speech, and print those that give words."""
    wrong = 0
    for name, samples in nonspeech.recordings(count):
        text = adapter.transcribe_pcm(samples, DecodeOptions()).text
        if text:
            wrong += 1
            print(f"{name}: {text[:80]!r}", flush=True)
    print(f"recordings without speech that give words: {wrong} of {count} of 60 s", flush=True)


def print_speech(adapter: WhisperLibraryAdapter, directory: Path) -> None:
    """Print what detection changes in the words of each condition."""
    references = json.loads((directory / "refs.json").read_text(encoding="utf-8"))
    clips = [(entry, _samples(directory / "clips" / entry["file"])) for entry in references]
    clips = [(entry, samples) for entry, samples in clips if len(samples) <= _LONGEST_S * nonspeech.RATE]
    silent = [entry["file"] for entry, samples in clips if not entry["text"] and _text(adapter, samples, vad=True)]
    print(
        f"of {sum(not entry['text'] for entry, _ in clips)} recordings without speech, words in: {silent}", flush=True
    )
    for condition, change in CONDITIONS.items():
        found: list[Lost] = []
        for number, (entry, samples) in enumerate(clips):
            if entry["text"]:
                lost = _lost(adapter, entry, change(samples, number))
                if lost.with_it > lost.without:
                    print(f"  {condition}, {entry['file']}: {lost.without} to {lost.with_it} of {lost.words}")
                found.append(lost)
        words = sum(each.words for each in found)
        more = 100 * sum(each.with_it - each.without for each in found) / words
        differ = sum(each.with_it != each.without for each in found)
        print(f"{condition}: {more:+.2f} points of {words} words, with 95 % below {_upper(found):+.2f}; ", end="")
        print(f"{differ} of {len(found)} recordings have another number of errors", flush=True)


def leaves_whole(adapter: WhisperLibraryAdapter, samples: Samples) -> bool:
    """Return whether detection cuts nothing out of a recording, so that its words are the same without detection."""
    options = DecodeOptions()
    speech = voice.find_speech(_probabilities(adapter, samples), options)
    return voice.kept_parts(speech, len(samples), options) == [(0, len(samples))]


def _lost(adapter: WhisperLibraryAdapter, entry: dict[str, str], samples: Samples) -> Lost:
    reference = _words(entry["text"], entry["language"])
    if leaves_whole(adapter, samples):
        return Lost(len(reference), 0, 0)
    errors = [_errors(reference, _words(_text(adapter, samples, vad=vad), entry["language"])) for vad in (False, True)]
    return Lost(len(reference), *errors)


def _upper(found: list[Lost]) -> float:
    """Return the upper 95 % bound of the change in points, by a bootstrap over recordings."""
    changes = np.array([each.with_it - each.without for each in found])
    words = np.array([each.words for each in found])
    drawn = np.random.default_rng(0).integers(0, len(found), (_DRAWS, len(found)))
    return float(np.percentile(100 * changes[drawn].sum(axis=1) / words[drawn].sum(axis=1), 97.5))


def _words(text: str, language: str) -> list[str]:
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in text.lower())
    return list(kept.replace(" ", "")) if language in _WITHOUT_SPACES else kept.split()


def _errors(reference: list[str], heard: list[str]) -> int:
    if not heard:
        return len(reference)
    counted = jiwer.process_words(" ".join(reference), " ".join(heard))
    return counted.substitutions + counted.deletions + counted.insertions


def _text(adapter: WhisperLibraryAdapter, samples: Samples, *, vad: bool) -> str:
    return adapter.transcribe_pcm(samples.copy(), DecodeOptions(vad=vad)).text


def _probabilities(adapter: WhisperLibraryAdapter, samples: Samples) -> list[float]:
    detector = adapter._detector
    assert detector, "the package has voice detection"
    return list(detector.probabilities(memoryview(samples).cast("B")))


def _timed(adapter: WhisperLibraryAdapter, samples: Samples) -> float:
    begun = time.thread_time()  # what else runs here does not count
    _probabilities(adapter, samples)
    return time.thread_time() - begun


def _samples(path: Path) -> Samples:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with decode(fd, max_seconds=3600, timeout=120) as audio:
            return np.frombuffer(map_samples(audio.fd, audio.samples), np.float32).copy()
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
