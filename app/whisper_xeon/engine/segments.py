"""Turns the segments that whisper.cpp reports into a `Transcript`: times within the audio, and words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from whisper_xeon.transcript import DecodeOptions, Segment, Transcript, Word

_NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue", "bo", "km"})
_WORST_LOGPROB = -100.0  # stands for minus infinity, which JSON cannot hold


class Token(NamedTuple):
    """One text token; special tokens are left out."""

    id: int
    piece: bytes  # may be part of a character
    p: float  # probability
    plog: float  # its logarithm
    t0: int  # in units of 10 ms, -1 when unknown
    t1: int


class RawSegment(NamedTuple):
    """One segment as whisper.cpp reports it."""

    text: str
    t0: int  # in units of 10 ms
    t1: int
    no_speech_probability: float
    tokens: Sequence[Token]
    temperature: float = 0.0


def build_transcript(
    reported: Iterable[RawSegment],
    options: DecodeOptions,
    *,
    language: str,
    language_probability: float | None,
    duration: float,
) -> Transcript:
    """Return the transcript of `duration` seconds of audio; segments without text are left out."""
    segments: list[Segment] = []
    for segment in reported:
        text, tokens = segment.text, segment.tokens
        if not text.strip() or not tokens:
            continue
        start = max(0.0, min(segment.t0 / 100, duration))
        end = max(start, min(segment.t1 / 100, duration))
        segments.append(
            Segment(
                id=len(segments),
                start=start,
                end=end,
                text=text,
                tokens=tuple(token.id for token in tokens),
                avg_logprob=max(_WORST_LOGPROB, sum(token.plog for token in tokens) / len(tokens)),
                no_speech_probability=segment.no_speech_probability,
                words=tuple(_words(tokens, language, start, end)) if options.word_timestamps else (),
                temperature=segment.temperature,
            )
        )
    text = "".join(segment.text for segment in segments).strip()
    return Transcript(text, language, language_probability, duration, options.task, tuple(segments))


def _words(tokens: Sequence[Token], language: str, start: float, end: float) -> Iterator[Word]:
    """Yield the words that the tokens spell, with times that never go backwards and stay between `start` and `end`."""
    earliest = start
    for group in _group(tokens, language):
        text = b"".join(token.piece for token in group).decode("utf-8", "replace").strip()
        if not text:
            continue
        word_start = min(max(group[0].t0 / 100, earliest), end)
        word_end = min(max(group[-1].t1 / 100, word_start), end)
        earliest = word_end
        yield Word(text, word_start, word_end, sum(token.p for token in group) / len(group))


def _group(tokens: Sequence[Token], language: str) -> Iterator[list[Token]]:
    """Group tokens into words: at spaces, or by character in languages without spaces; never inside a character."""
    group: list[Token] = []
    spelled = b""
    for token in tokens:
        begins = token.piece[:1].isspace() or (
            language in _NO_SPACES and _is_whole(spelled) and _starts_word(token.piece)
        )
        if group and begins:
            yield group
            group, spelled = [], b""
        group.append(token)
        spelled += token.piece
    if group:
        yield group


def _is_whole(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _starts_word(piece: bytes) -> bool:
    """Tell whether a token begins a word: punctuation and combining marks belong to what precedes them."""
    first = piece.decode("utf-8", "ignore")[:1]
    return not first or unicodedata.category(first)[0] not in "PM"
