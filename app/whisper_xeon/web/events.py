"""Answers that come as server-sent events (HTML standard, 9.2), in the shape that OpenAI's API gives them.

`transcript.text.delta` has what is new of the text, `transcript.text.segment` a segment with its speaker, and
`transcript.text.done`, the last, all that the answer in one piece would have. An error that comes after the first event
is the last one instead: the body that it would have had as an answer, without a type.
"""

from __future__ import annotations

from typing import Any

from whisper_xeon.formats import encode_json

EVENTS_TYPE = "text/event-stream; charset=utf-8"
# nginx keeps what it gets of an answer to itself otherwise, until it has a few kilobytes.
HEADERS = {"X-Accel-Buffering": "no"}


def of(document: bytes) -> bytes:
    """Return the event that has a JSON document, which is one line with its end."""
    return b"data: " + document + b"\n"


def event(content: dict[str, Any]) -> bytes:
    """Return one event."""
    return of(encode_json(content))


def delta(text: str) -> bytes:
    """Return the event of further text."""
    return event({"type": "transcript.text.delta", "delta": text})


def done(answer: dict[str, Any]) -> bytes:
    """Return the last events, of what would be the answer in JSON."""
    spoken = [segment for segment in answer.get("segments", ()) if segment.get("type")]
    return b"".join(map(event, (*spoken, {"type": "transcript.text.done", **answer})))
