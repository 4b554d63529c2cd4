"""What goes into an engine (`DecodeOptions`) and what comes out of it (`Transcript`): plain data, no behaviour.

Times are seconds as floats from the start of the audio. The classes cross process boundaries as JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NON_SPEECH = -1  # among the tokens to suppress: all that are no speech
MAX_SUPPRESSED = 512  # tokens of a list to suppress
LARGEST_TOKEN = 60_000  # more than any Whisper's vocabulary has


@dataclass(frozen=True)
class DecodeOptions:
    """How one request wants its audio decoded; names, meaning and units as in openai-whisper where it has them."""

    language: str | None = None  # ISO 639-1 code; None: detect
    task: str = "transcribe"  # or "translate" (to English)
    temperature: float = 0.0  # 0 to 1; 0 decodes greedily, or with beams
    prompt: str = ""  # words to expect; shown to the decoder before the first window
    word_timestamps: bool = False
    temperature_increment: float = 0.4  # of each further try of a window that decoded badly; 0: no further try
    beam_size: int = 1  # 1 to 8, at temperature 0
    best_of: int = 1  # 1 to 8 samples, above temperature 0
    patience: float = 1.0
    condition_on_previous_text: bool = False
    hotwords: str = ""  # words to expect, shown to the decoder before every window
    suppress_tokens: tuple[int, ...] = (NON_SPEECH,)  # ids never to choose, `NON_SPEECH` among them
    compression_ratio_threshold: float = 2.4  # a window whose text compresses better has decoded badly
    logprob_threshold: float = -1.0  # … and one whose mean log probability is lower
    no_speech_threshold: float = 0.6  # a window of low probability and of at least this one is silence
    vad: bool = True  # skip what is not speech, where the package can tell
    vad_threshold: float = 0.5  # probability from which sound is speech
    vad_min_speech_ms: int = 250  # shorter speech is noise
    vad_min_silence_ms: int = 5000  # silence is skipped where more than this would go
    vad_speech_pad_ms: int = 400  # kept before and after speech
    diarize: str = ""  # or "channel": which side of a stereo recording speaks
    token_logprobs: bool = False  # also what each token of a segment spells, and how probable it was

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DecodeOptions:
        return cls(**dict(data, suppress_tokens=tuple(data["suppress_tokens"])))


@dataclass(frozen=True)
class Word:
    text: str
    start: float
    end: float
    probability: float  # mean of its tokens', 0 to 1


@dataclass(frozen=True)
class TokenLogprob:
    spells: tuple[int, ...]  # bytes of UTF-8, which may be part of a character
    logprob: float


@dataclass(frozen=True)
class Segment:
    id: int  # counts from 0
    start: float
    end: float
    text: str  # as the model wrote it, with its leading space: the texts of all segments joined are the transcript
    tokens: tuple[int, ...]  # without special tokens
    avg_logprob: float
    no_speech_probability: float
    words: tuple[Word, ...] = ()  # empty unless asked for
    temperature: float = 0.0  # at which it was decoded
    speaker: str = ""  # "left" or "right", where asked for
    token_logprobs: tuple[TokenLogprob, ...] = ()  # of `tokens`, where asked for


@dataclass(frozen=True)
class Transcript:
    text: str  # the segments' texts joined, without surrounding white space
    language: str  # ISO 639-1 code, detected or as asked
    language_probability: float | None  # None when the request named the language
    duration: float  # seconds of audio
    task: str
    segments: tuple[Segment, ...]
    speech_seconds: float | None = None  # of the audio; None where nothing looked for speech
    decoded_again: bool = False  # with all of a window, since less of it gave a doubtful text

    def with_segments(self, segments: Iterable[Segment]) -> Transcript:
        """Return the transcript with other segments: numbered in their order, and with their text."""
        numbered = tuple(dataclasses.replace(segment, id=number) for number, segment in enumerate(segments))
        text = "".join(segment.text for segment in numbered).strip()
        return dataclasses.replace(self, text=text, segments=numbered)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Transcript:
        return cls(**dict(data, segments=tuple(map(_segment, data["segments"]))))


def _segment(data: dict[str, Any]) -> Segment:
    words = tuple(Word(**word) for word in data["words"])
    logprobs = tuple(TokenLogprob(tuple(token["spells"]), token["logprob"]) for token in data["token_logprobs"])
    return Segment(**dict(data, tokens=tuple(data["tokens"]), words=words, token_logprobs=logprobs))
