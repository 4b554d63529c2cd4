"""Turns the segments that whisper.cpp reports into a `Transcript`: times within the audio, and words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from whisper_xeon.engine.words import Token, add_words
from whisper_xeon.transcript import DecodeOptions, Segment, TokenLogprob, Transcript

_WORST_LOGPROB = -100.0  # stands for minus infinity, which JSON cannot hold


class RawSegment(NamedTuple):
    """One segment as whisper.cpp reports it; one without text is left out of the transcript."""

    text: str
    t0: int  # in units of 10 ms
    t1: int
    no_speech_probability: float
    tokens: Sequence[Token]
    temperature: float = 0.0

    @property
    def has_text(self) -> bool:
        return bool(self.text.strip() and self.tokens)


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
    spelled: list[Sequence[Token]] = []
    for segment in reported:
        if not segment.has_text:
            continue
        text, tokens = segment.text, segment.tokens
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
                temperature=segment.temperature,
                token_logprobs=tuple(map(_token_logprob, tokens)) if options.token_logprobs else (),
            )
        )
        spelled.append(tokens)
    if options.word_timestamps:
        segments = add_words(segments, spelled, language, duration)
    return Transcript("", language, language_probability, duration, options.task, ()).with_segments(segments)


def _token_logprob(token: Token) -> TokenLogprob:
    return TokenLogprob(tuple(token.piece), max(_WORST_LOGPROB, token.plog))
