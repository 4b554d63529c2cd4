"""Words and their times, out of the times of tokens: openai-whisper's rules (whisper/timing.py).

A token's time says when the decoder looked at the audio for it. That is right where people speak and vague beside a
pause, over all of which a token may reach. So

* punctuation is part of a word but has no part in its time;
* a word that begins a sentence, or the first one after a pause, lasts at most twice the median;
* where a segment's own time and its first or last word's differ by more than half a second, the segment's counts.

Unlike openai-whisper's, a word ends at spaces only, where the language has them: `3.5` and `e-mail` are one.
"""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from whisper_xeon.transcript import Segment, Word

_NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue", "bo", "km"})
_OPENING = frozenset("\"'“¿([{-")
_CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
_SENTENCE_ENDS = frozenset(".。!！?？")

# All times below are in milliseconds, as those of the tokens are multiples of 10.
_LONGEST_MEDIAN = 700
_TOLERANCE = 500  # by which a segment's time may differ from the word's
_SHORTEST = 20


class Token(NamedTuple):
    """One text token; special tokens are left out."""

    id: int
    piece: bytes  # may be part of a character
    p: float  # probability
    plog: float  # its logarithm
    t0: int  # in units of 10 ms, -1 when unknown
    t1: int


@dataclass
class _Spoken:
    text: str
    start: float
    end: float
    probability: float
    ends_sentence: bool

    @property
    def duration(self) -> float:
        return self.end - self.start


def add_words(
    segments: Sequence[Segment], spelled: Sequence[Sequence[Token]], language: str, duration: float
) -> list[Segment]:
    """Return the segments of `duration` seconds of audio with the words that their tokens spell.

    Each word lasts; none begins before the one before it has ended, nor ends after the audio. A segment begins and
    ends with its words.
    """
    spoken = [[_spoken(group) for group in _group(tokens, language)] for tokens in spelled]
    spoken = [[word for word in words if word.text] for words in spoken]
    _shorten(spoken, segments)
    _separate([word for words in spoken for word in words], round(1000 * duration))
    return [
        replace(segment, start=words[0].start / 1000, end=words[-1].end / 1000, words=tuple(map(_word, words)))
        if words
        else segment
        for segment, words in zip(segments, spoken)
    ]


def _word(spoken: _Spoken) -> Word:
    return Word(spoken.text, spoken.start / 1000, spoken.end / 1000, spoken.probability)


def _group(tokens: Sequence[Token], language: str) -> Iterator[list[Token]]:
    """Group tokens into words: at spaces, or by character in languages without spaces; never inside a character."""
    group: list[Token] = []
    spelled = b""
    for token in tokens:
        begins = token.piece[:1].isspace() or (language in _NO_SPACES and _is_apart(spelled, token.piece))
        if group and begins:
            yield group
            group, spelled = [], b""
        group.append(token)
        spelled += token.piece
    if group:
        yield group


def _is_apart(spelled: bytes, piece: bytes) -> bool:
    """Tell whether a token begins another word where no spaces are.

    It does not inside a character or a word of Latin letters; after opening and before other punctuation; nor with a
    mark on the character before.
    """
    try:
        before = spelled.decode("utf-8").strip()
    except UnicodeDecodeError:
        return False
    first = piece.decode("utf-8", "ignore")[:1]
    if not before or not first:
        return bool(before)
    if before[-1].isascii() and before[-1].isalnum() and first.isascii() and first.isalnum():
        return False
    return not all(map(_opens, before)) and (_opens(first) or unicodedata.category(first)[0] not in "PM")


def _opens(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi")


def _spoken(tokens: Sequence[Token]) -> _Spoken:
    """Return a word by the times of those of its tokens that are not punctuation before or after it."""
    text = b"".join(token.piece for token in tokens).decode("utf-8", "replace").strip()
    first, last = 0, len(tokens) - 1
    while first < last and _consists_of(_OPENING, tokens[first]):
        first += 1
    while last > first and _consists_of(_CLOSING, tokens[last]):
        last -= 1
    return _Spoken(
        text,
        10 * tokens[first].t0,
        10 * tokens[last].t1,
        sum(token.p for token in tokens) / len(tokens),
        text[-1:] in _SENTENCE_ENDS,
    )


def _consists_of(characters: frozenset[str], token: Token) -> bool:
    text = token.piece.decode("utf-8", "replace").strip()
    return bool(text) and characters.issuperset(text)


def _shorten(spoken: Sequence[Sequence[_Spoken]], segments: Sequence[Segment]) -> None:
    """Shorten what reaches over a pause."""
    words = [word for each in spoken for word in each]
    durations = [word.duration for word in words if word.duration > 0]
    median = min(_LONGEST_MEDIAN, round(statistics.median(durations))) if durations else 0
    longest = 2 * median
    for before, word in zip(words, words[1:]):
        if before.ends_sentence and word.duration > longest:
            word.start = word.end - longest
    silent_since = 0.0
    for segment, own in zip(segments, spoken):
        if not own:
            continue
        first, last = own[0], own[-1]
        after_pause = first.end - silent_since > 4 * median
        if after_pause and (first.duration > longest or (len(own) > 1 and own[1].end - first.start > 2 * longest)):
            if len(own) > 1 and own[1].duration > longest and own[1].start == first.end:
                first.end = own[1].start = own[1].end - longest
            first.start = max(first.start, first.end - longest)
        start, end = round(1000 * segment.start), round(1000 * segment.end)
        if first.start + _TOLERANCE < start < first.end:
            first.start = max(first.start, min(first.end - median, start))
        if last.start < end < last.end - _TOLERANCE:
            last.end = min(last.end, max(last.start + median, end))
        silent_since = last.end


def _separate(words: Sequence[_Spoken], duration: int) -> None:
    """Let each word last and none overlap the next, with as little change as that takes."""
    if not words:
        return
    shortest = min(_SHORTEST, duration / len(words))
    earliest, latest = 0.0, float(duration)
    for word in words:
        word.start = max(word.start, earliest)
        word.end = earliest = max(word.end, word.start + shortest)
    for word in reversed(words):
        word.end = min(word.end, latest)
        word.start = latest = min(word.start, word.end - shortest)
