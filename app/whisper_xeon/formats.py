"""A `Transcript` written in the formats that clients ask for: json, text, verbose_json, srt, vtt, tsv, diarized_json.

The JSON shapes are those of OpenAI's audio API, and of others where `render` says so. Nothing here knows about HTTP
beyond content types.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

from whisper_xeon.languages import LANGUAGES
from whisper_xeon.transcript import Segment, Transcript, Word

JSON_TYPE = "application/json"
_PLAIN_TYPE = "text/plain; charset=utf-8"

# response_format → content type
FORMATS = {
    "json": JSON_TYPE,
    "text": _PLAIN_TYPE,
    "verbose_json": JSON_TYPE,
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "diarized_json": JSON_TYPE,
}
JSON_FORMATS = tuple(name for name, content_type in FORMATS.items() if content_type == JSON_TYPE)
GRANULARITIES = ("segment", "word")


@dataclass(frozen=True)
class Shape:
    """What a JSON answer is to have beside the text."""

    segments: bool = False
    words: bool = False
    logprobs: bool = False
    words_in_segments: bool = False  # as whisper.cpp and openai-whisper have them, not in a list of their own


def render(transcript: Transcript, response_format: str, shape: Shape) -> tuple[bytes, str]:
    """Return the transcript's bytes and content type in one of `FORMATS`. `shape` shapes JSON only."""
    write = _WRITERS[response_format]
    return write(transcript, shape), FORMATS[response_format]


def _json(transcript: Transcript, shape: Shape) -> bytes:
    return encode_json({"text": transcript.text, **json_parts(transcript, shape), "usage": _usage(transcript)})


def _verbose(transcript: Transcript, shape: Shape) -> bytes:
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": LANGUAGES.get(transcript.language, transcript.language),
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
    }
    if transcript.language_probability is not None:
        body["language_probability"] = _probability(transcript.language_probability)
    return encode_json({**body, **json_parts(transcript, shape), "usage": _usage(transcript)})


def _diarized(transcript: Transcript, shape: Shape) -> bytes:
    segments = [
        {
            "type": "transcript.text.segment",
            "id": f"seg_{segment.id:03d}",
            "start": _seconds(segment.start),
            "end": _seconds(segment.end),
            "text": segment.text,
            "speaker": segment.speaker,
        }
        for segment in transcript.segments
    ]
    body = {"task": transcript.task, "duration": _seconds(transcript.duration), "text": transcript.text}
    return encode_json({**body, "segments": segments, "usage": _usage(transcript)})


def openai_whisper_json(transcript: Transcript, shape: Shape) -> bytes:
    """Return the JSON that openai-whisper's command writes: the language is its code."""
    return encode_json({"text": transcript.text, **json_parts(transcript, shape), "language": transcript.language})


def _text(transcript: Transcript, shape: Shape) -> bytes:
    return (transcript.text + "\n").encode("utf-8", "replace")


def encode_json(value: Any) -> bytes:
    """Return a JSON document as UTF-8 with a line end, as every answer has it."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def json_parts(transcript: Transcript, shape: Shape) -> dict[str, Any]:
    """Return the members of a JSON answer that `shape` asks for."""
    parts: dict[str, Any] = {}
    if shape.segments:
        parts["segments"] = [_segment(segment, words=shape.words_in_segments) for segment in transcript.segments]
    if shape.words and not shape.words_in_segments:
        parts["words"] = [_word(word) for segment in transcript.segments for word in segment.words]
    if shape.logprobs:
        parts["logprobs"] = [
            {
                "token": bytes(token.spells).decode("utf-8", "replace"),
                "logprob": round(token.logprob, 6),
                "bytes": list(token.spells),
            }
            for segment in transcript.segments
            for token in segment.token_logprobs
        ]
    return parts


def _segment(segment: Segment, *, words: bool) -> dict[str, Any]:
    return {
        "id": segment.id,
        "seek": round(
            segment.start * 100
        ),  # the segment's start in frames of 10 ms, the only one that libwhisper keeps
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": round(segment.temperature, 3),
        "avg_logprob": round(segment.avg_logprob, 6),
        "probability": _probability(math.exp(segment.avg_logprob)),
        "compression_ratio": round(_compression_ratio(segment.text), 6),
        "no_speech_prob": round(segment.no_speech_probability, 6),
        **({"speaker": segment.speaker} if segment.speaker else {}),
        **({"words": [_word(word) for word in segment.words]} if words and segment.words else {}),
    }


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": _seconds(word.start),
        "end": _seconds(word.end),
        "probability": _probability(word.probability),
    }


def _probability(value: float) -> float:
    return round(value, 4)


def _compression_ratio(text: str) -> float:
    """How well zlib compresses the text; above 2.4 it is likely a loop (openai/whisper's own measure)."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))


def _seconds(value: float) -> float:
    return round(value, 3)


def _srt(transcript: Transcript, shape: Shape) -> bytes:
    cues = []
    for number, segment in enumerate(_spoken(transcript), start=1):
        speaker = f"[{segment.speaker}]: " if segment.speaker else ""
        # "-->" inside a text would read as a second time line
        text = _one_line(segment.text).replace("-->", "->")
        cues.append(f"{number}\n{_span(segment, ',')}\n{speaker}{text}\n")
    return "\n".join(cues).encode("utf-8", "replace")


def _vtt(transcript: Transcript, shape: Shape) -> bytes:
    cues = ["WEBVTT\n"]
    for segment in _spoken(transcript):
        speaker = f"<v {segment.speaker}>" if segment.speaker else ""
        text = _one_line(segment.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_span(segment, '.')}\n{speaker}{text}\n")
    return "\n".join(cues).encode("utf-8", "replace")


def _tsv(transcript: Transcript, shape: Shape) -> bytes:
    """Return openai-whisper's table: milliseconds, and a text in which a tab would end the column."""
    rows = [
        f"{round(segment.start * 1000)}\t{round(max(segment.start, segment.end) * 1000)}\t{_one_line(segment.text)}\n"
        for segment in _spoken(transcript)
    ]
    return ("start\tend\ttext\n" + "".join(rows)).encode("utf-8", "replace")


def _span(segment: Segment, separator: str) -> str:
    return f"{_clock(segment.start, separator)} --> {_clock(max(segment.start, segment.end), separator)}"


def _spoken(transcript: Transcript) -> list[Segment]:
    return [segment for segment in transcript.segments if segment.text.strip()]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _clock(seconds: float, separator: str) -> str:
    """Return HH:MM:SS<separator>mmm; hours grow beyond two digits rather than wrap."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{separator}{milliseconds % 1000:03d}"


_WRITERS = {
    "json": _json,
    "text": _text,
    "verbose_json": _verbose,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "diarized_json": _diarized,
}
