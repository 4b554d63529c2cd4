"""`transcribe`: openai-whisper's function, its printing and its result."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whisper.audio import SAMPLE_RATE, samples_of
from whisper.command import cli
from whisper.engine import Listener
from whisper.options import Plan, plan, with_past
from whisper.utils import format_timestamp
from whisper_xeon.engine.decoding import compression_ratio
from whisper_xeon.engine.errors import WhisperLibraryError
from whisper_xeon.languages import LANGUAGES
from whisper_xeon.transcript import Segment, Transcript

if TYPE_CHECKING:
    from whisper.model import Whisper

__all__ = ["cli", "transcribe"]

_FRAMES_PER_SECOND = 100
_DETECTED_SAMPLES = 30 * SAMPLE_RATE


def transcribe(model: Whisper, audio: Any, *, verbose: bool | None = None, **options: Any) -> dict[str, Any]:
    """Return `text`, `segments` and `language` of a recording, as openai-whisper does.

    `audio` is a path or an array of float32 at 16 kHz. With `verbose`, segments are printed as soon as they are known;
    with False the language and the progress. `options` are those of openai-whisper's `transcribe` and
    `DecodingOptions`. Raises `Refused`, a `ValueError`, for options that cannot be followed, `TypeError` for those that
    there are not, `RuntimeError` when the audio cannot be read or not be decoded.
    """
    if not model.is_multilingual:
        options["language"] = "en"
    asked = plan(**options)
    samples = samples_of(audio)
    try:
        return _Run(model, asked, verbose).result(samples)
    except WhisperLibraryError as error:
        raise RuntimeError(str(error)) from None


class _Run:
    def __init__(self, model: Whisper, asked: Plan, verbose: bool | None):
        self._engine, self._asked, self._verbose = model.engine, asked, verbose
        self._detects = asked.decode.language is None
        self._live = bool(verbose) and not asked.decode.word_timestamps  # words change the times of segments
        self._segments: list[dict[str, Any]] = []

    def result(self, samples: memoryview[float]) -> dict[str, Any]:
        language = self._language(samples)
        for start, end in self._asked.clips:
            first = round(start * _FRAMES_PER_SECOND)
            clip = _between(samples, first, None if end is None else round(end * _FRAMES_PER_SECOND))
            if clip:
                language = self._clip(clip, first / _FRAMES_PER_SECOND, language).language
        if self._verbose is False:
            print(file=sys.stderr)
        return {"text": self._text(), "segments": self._segments, "language": language or "en"}

    def _language(self, samples: memoryview[float]) -> str | None:
        """Return the language where it is known before the first clip is transcribed."""
        if self._detects and self._verbose:
            print("Detecting language using up to the first 30 seconds. Use `--language` to specify the language")
        if not self._detects or self._asked.clips == ((0.0, None),):
            return self._asked.decode.language
        language = self._engine.language_of(samples[:_DETECTED_SAMPLES]) if samples else "en"
        self._say_language(language)
        return language

    def _clip(self, clip: memoryview[float], offset: float, language: str | None) -> Transcript:
        decode = self._asked.decode
        if decode.condition_on_previous_text and self._segments:
            decode = with_past(decode, self._text())
        listener = Listener(
            language=self._say_language if language is None else None,
            segment=(lambda start, end, text: self._say(offset + start, offset + end, text)) if self._live else None,
            percent=_show_percent if self._verbose is False else None,
        )
        transcript = self._engine.run(clip, replace(decode, language=language), self._asked.tuning, listener)
        for segment in transcript.segments:
            self._segments.append(_segment(segment, len(self._segments), offset, decode.word_timestamps))
            if self._verbose and not self._live:
                self._say(offset + segment.start, offset + segment.end, segment.text)
        return transcript

    def _text(self) -> str:
        return "".join(segment["text"] for segment in self._segments)

    def _say_language(self, language: str) -> None:
        if self._verbose is not None:
            print(f"Detected language: {LANGUAGES[language].title()}", flush=True)

    def _say(self, start: float, end: float, text: str) -> None:
        print(f"[{format_timestamp(start)} --> {format_timestamp(end)}] {text}", flush=True)


def _between(samples: memoryview[float], first: int, last: int | None) -> memoryview[float]:
    """Return the samples between two frames of 10 ms."""
    step = SAMPLE_RATE // _FRAMES_PER_SECOND
    return samples[first * step : None if last is None else last * step]


def _segment(segment: Segment, number: int, offset: float, words: bool) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round((offset + segment.start) * _FRAMES_PER_SECOND),
        "start": _moved(segment.start, offset),
        "end": _moved(segment.end, offset),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": compression_ratio(segment.text.encode("utf-8", "replace")),
        "no_speech_prob": segment.no_speech_probability,
        **({"words": _words(segment, offset)} if words else {}),
    }


def _words(segment: Segment, offset: float) -> list[dict[str, Any]]:
    """Return a segment's words with the spaces before them: joined they are its text."""
    words, done = [], 0
    for word in segment.words:
        end = segment.text.index(word.text, done) + len(word.text)
        words.append(
            {
                "word": segment.text[done:end],
                "start": _moved(word.start, offset),
                "end": _moved(word.end, offset),
                "probability": word.probability,
            }
        )
        done = end
    return words


def _moved(seconds: float, offset: float) -> float:
    return round(seconds + offset, 3)


def _show_percent(percent: int) -> None:
    print(f"\r{percent} %", end="", file=sys.stderr, flush=True)
