"""What goes into an engine (`DecodeOptions`) and what comes out of it (`Transcript`): plain data, no behaviour.

Times are seconds as floats from the start of the audio. The classes cross process boundaries as JSON.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecodeOptions:
    """How one request wants its audio decoded."""

    language: str | None = None  # ISO 639-1 code; None: detect
    task: str = "transcribe"  # or "translate" (to English)
    temperature: float = 0.0  # 0 to 1; 0 decodes greedily
    prompt: str = ""  # words to expect; shown to the decoder before the first window
    word_timestamps: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DecodeOptions:
        return cls(**data)


@dataclass(frozen=True)
class Word:
    text: str
    start: float
    end: float
    probability: float  # mean of its tokens', 0 to 1


@dataclass(frozen=True)
class Segment:
    id: int  # counts from 0
    start: float
    end: float
    text: str  # stripped of surrounding white space
    tokens: tuple[int, ...]  # without special tokens
    avg_logprob: float
    no_speech_probability: float
    words: tuple[Word, ...] = ()  # empty unless asked for


@dataclass(frozen=True)
class Transcript:
    text: str  # the segments' texts, joined by one space
    language: str  # ISO 639-1 code, detected or as asked
    language_probability: float | None  # None when the request named the language
    duration: float  # seconds of audio
    task: str
    segments: tuple[Segment, ...]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Transcript:
        segments = tuple(
            Segment(**dict(s, tokens=tuple(s["tokens"]), words=tuple(Word(**w) for w in s["words"])))
            for s in data["segments"]
        )
        return cls(**dict(data, segments=segments))
