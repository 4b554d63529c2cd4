"""A `Transcript` written in the formats that clients ask for: json, text, verbose_json, srt, vtt.

The JSON shapes are those of OpenAI's audio API. Nothing here knows about HTTP beyond content types.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection
from typing import Any

from whisper_xeon.languages import LANGUAGES
from whisper_xeon.transcript import Segment, Transcript

JSON_TYPE = "application/json"
_PLAIN_TYPE = "text/plain; charset=utf-8"

# response_format → content type
FORMATS = {
    "json": JSON_TYPE,
    "text": _PLAIN_TYPE,
    "verbose_json": JSON_TYPE,
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
GRANULARITIES = ("segment", "word")


def render(
    transcript: Transcript,
    response_format: str,
    *,
    temperature: float = 0.0,
    granularities: Collection[str] = ("segment",),
) -> tuple[bytes, str]:
    """Return the transcript's bytes and content type in one of `FORMATS`.

    `temperature` and `granularities` (of `GRANULARITIES`) shape verbose_json only.
    """
    if response_format == "json":
        body = encode_json({"text": transcript.text, "usage": _usage(transcript)})
    elif response_format == "verbose_json":
        body = encode_json(_verbose(transcript, temperature, granularities))
    elif response_format == "text":
        body = (transcript.text + "\n").encode()
    elif response_format == "srt":
        body = _srt(transcript).encode()
    else:
        body = _vtt(transcript).encode()
    return body, FORMATS[response_format]


def encode_json(value: Any) -> bytes:
    """Return a JSON document as UTF-8 with a line end, as every answer has it."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def _verbose(transcript: Transcript, temperature: float, granularities: Collection[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": LANGUAGES.get(transcript.language, transcript.language),
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
    }
    if transcript.language_probability is not None:
        body["language_probability"] = round(transcript.language_probability, 4)
    if "segment" in granularities:
        body["segments"] = [_segment(segment, temperature) for segment in transcript.segments]
    if "word" in granularities:
        body["words"] = [
            {
                "word": word.text,
                "start": _seconds(word.start),
                "end": _seconds(word.end),
                "probability": round(word.probability, 4),
            }
            for segment in transcript.segments
            for word in segment.words
        ]
    body["usage"] = _usage(transcript)
    return body


def _segment(segment: Segment, temperature: float) -> dict[str, Any]:
    return {
        "id": segment.id,
        "seek": round(
            segment.start * 100
        ),  # the segment's start in frames of 10 ms, the only one that libwhisper keeps
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": temperature,
        "avg_logprob": round(segment.avg_logprob, 6),
        "compression_ratio": round(_compression_ratio(segment.text), 6),
        "no_speech_prob": round(segment.no_speech_probability, 6),
    }


def _compression_ratio(text: str) -> float:
    """How well zlib compresses the text; above 2.4 it is likely a loop (openai/whisper's own measure)."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))


def _seconds(value: float) -> float:
    return round(value, 3)


def _srt(transcript: Transcript) -> str:
    # "-->" inside a text would read as a second time line
    cues = [
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(max(segment.start, segment.end), ',')}\n"
        f"{_one_line(segment.text).replace('-->', '->')}\n"
        for number, segment in enumerate(_spoken(transcript), start=1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript) -> str:
    cues = ["WEBVTT\n"]
    for segment in _spoken(transcript):
        text = _one_line(segment.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_clock(segment.start, '.')} --> {_clock(max(segment.start, segment.end), '.')}\n{text}\n")
    return "\n".join(cues)


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
