"""What voice detection and word times cost, in processor time of one thread: what else runs here does not count."""

from __future__ import annotations

import statistics
import time

from whisper_bench import voice
from whisper_bench.nonspeech import Samples
from whisper_bench.words.corpus import Clip
from whisper_bench.words.sound import samples
from whisper_package.package import Package
from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter
from whisper_xeon.transcript import DecodeOptions

ROUNDS = 5
TIMED_CLIPS = 10


def detection(package: Package) -> float:
    """Return the seconds of computing for a second of audio."""
    with WhisperLibraryAdapter(package=package, threads=1) as adapter:
        return voice.cost(adapter) / 100


def word_times(package: Package, clips: list[Clip]) -> float:
    """Return how many times as long computing takes with word times as without; medians of interleaved rounds."""
    timed = [samples(clip.path) for clip in clips[:TIMED_CLIPS]]
    with WhisperLibraryAdapter(package=package, threads=1) as adapter:
        ratios = [_seconds(adapter, timed, True) / _seconds(adapter, timed, False) for _ in range(ROUNDS)]
    return statistics.median(ratios)


def _seconds(adapter: WhisperLibraryAdapter, timed: list[Samples], words: bool) -> float:
    begun = time.thread_time()
    for each in timed:
        adapter.transcribe_pcm(each.copy(), DecodeOptions(language="en", word_timestamps=words))
    return time.thread_time() - begun
