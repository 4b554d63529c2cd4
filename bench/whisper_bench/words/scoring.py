"""Word errors: how texts are made comparable, what is counted, and how sure a difference is.

Words are counted, and characters in languages that do not separate words (`corpus.BY_CHARACTERS`).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jiwer
import numpy as np

from whisper_bench.words.corpus import BY_CHARACTERS, Clip
from whisper_bench.words.transcripts import Heard

RESAMPLES = 10_000
SEED = 0
# So many words in a row, or characters, or all of a clip that has fewer, are a sentence.
SENTENCE_WORDS, SENTENCE_CHARACTERS = 4, 8

Normalizer = Callable[[str, str], str]  # of a text and its language


def simple(text: str, _language: str) -> str:
    """Return words in lower case and nothing between them but single spaces; apostrophes join."""
    bare = re.sub(r"['’]", "", unicodedata.normalize("NFKC", text).lower())
    return " ".join(re.sub(r"[^\w]+|_", " ", bare).split())


def openai(text: str, language: str) -> str:
    """Return the text as OpenAI normalizes it for its own figures: English numbers and spellings become one form."""
    english, others = _openai_normalizers()
    return " ".join((english if language == "en" else others)(text).split())


@functools.cache
def _openai_normalizers() -> tuple[Callable[[str], str], Callable[[str], str]]:
    # Only the venv of the measurement has it; the rest is tested without.
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer(), BasicTextNormalizer()


NORMALIZERS: dict[str, Normalizer] = {"simple": simple, "OpenAI's": openai}


@dataclass(frozen=True)
class Errors:
    """Counts over one clip or several; `said` are the words (or characters) of the reference."""

    said: int = 0
    inserted: int = 0
    deleted: int = 0
    substituted: int = 0

    @property
    def all(self) -> int:
        """Every error."""
        return self.inserted + self.deleted + self.substituted

    @property
    def rate(self) -> float:
        """Errors for each word of the reference; may exceed 1."""
        return self.all / self.said if self.said else 0.0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.said + other.said,
            self.inserted + other.inserted,
            self.deleted + other.deleted,
            self.substituted + other.substituted,
        )


@dataclass(frozen=True)
class Difference:
    """How much higher one rate is than another in the same clips, in points of percent, with its 95 % interval."""

    points: float
    low: float
    high: float


def errors(clips: list[Clip], heard: dict[str, Heard], normalizer: Normalizer) -> dict[str, Errors]:
    """Return the errors in each clip, by file name."""
    return {clip.file: _errors(clip, heard[clip.file]["text"], normalizer) for clip in clips}


def _compared(clip: Clip, text: str, normalizer: Normalizer) -> jiwer.WordOutput:
    reference, hypothesis = (_units(normalizer(each, clip.language), clip.language) for each in (clip.text, text))
    return jiwer.process_words([reference], [hypothesis])


def _errors(clip: Clip, text: str, normalizer: Normalizer) -> Errors:
    found = _compared(clip, text, normalizer)
    return Errors(
        found.hits + found.substitutions + found.deletions, found.insertions, found.deletions, found.substitutions
    )


def _units(text: str, language: str) -> str:
    return " ".join(text.replace(" ", "")) if language in BY_CHARACTERS else text


def said(clip: Clip) -> int:
    """Return how many words (or characters) are said in a clip."""
    return len(_units(simple(clip.text, clip.language), clip.language).split())


def deleted_words(clip: Clip, text: str) -> list[bool]:
    """Return for each word (or character) of what was said whether it is missing in `text`."""
    missing = [False] * said(clip)
    for chunk in _compared(clip, text, simple).alignments[0]:
        if chunk.type == "delete":
            missing[chunk.ref_start_idx : chunk.ref_end_idx] = [True] * (chunk.ref_end_idx - chunk.ref_start_idx)
    return missing


def lost_sentence(clip: Clip, without: str, text: str) -> bool:
    """Return whether a sentence that is in the text `without` something is missing in `text`."""
    before, after = deleted_words(clip, without), deleted_words(clip, text)
    wanted = min(SENTENCE_CHARACTERS if clip.language in BY_CHARACTERS else SENTENCE_WORDS, len(after))
    lost = "".join("x" if now and not then else " " for then, now in zip(before, after))
    return "x" * wanted in lost


def total(counts: Iterable[Errors]) -> Errors:
    """Return the sum."""
    return sum(counts, Errors())


def difference(one: dict[str, Errors], other: dict[str, Errors], what: str = "all") -> Difference:
    """Return how much higher the rate of errors, or of `what` of `Errors`, is in `one` than in `other`.

    By a paired bootstrap over clips: they are drawn with replacement, the same ones for both, so that a clip's
    difficulty cancels out.
    """
    files = sorted(one)
    said = np.array([one[file].said for file in files])
    more = np.array([getattr(one[file], what) - getattr(other[file], what) for file in files])
    drawn = np.random.default_rng(SEED).integers(0, len(files), (RESAMPLES, len(files)))
    points = 100 * more[drawn].sum(axis=1) / said[drawn].sum(axis=1)
    low, high = np.percentile(points, [2.5, 97.5])
    return Difference(100 * float(more.sum() / said.sum()), float(low), float(high))
