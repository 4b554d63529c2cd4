"""The fields of one request: read from a form, a query or a JSON object, and checked one by one.

A request is told which field is wrong and what is allowed. A field that would be ignored is rejected instead.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from whisper_xeon.formats import GRANULARITIES
from whisper_xeon.languages import LANGUAGES
from whisper_xeon.web.errors import HttpError, invalid_value, shown

FILE = "file"
AUDIO_URL = "audio_url"
OPTION_FIELDS = ("model", "language", "prompt", "temperature")
OPENAI_FIELDS = (
    *OPTION_FIELDS,
    "response_format",
    "timestamp_granularities[]",
    "timestamp_granularities",
    "stream",
    "chunking_strategy",
)

_MAX_PROMPT_CHARACTERS = 4096  # of which the model sees the last 224 tokens
_MAX_QUERY_FIELDS = 64

Values = dict[str, list[str]]  # of each field, in the order in which they came


class Fields:
    """The fields of one request beside the file."""

    def __init__(self, values: Values, allowed: tuple[str, ...], file_field: str):
        """Raises `HttpError` for a field that is not in `allowed`; `file_field` is the one that brings the file."""
        for name in values:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                every = ", ".join(dict.fromkeys((file_field, *allowed)))
                hint = f"did you mean {near[0]}?" if near else f"allowed are {every}"
                raise HttpError(400, f"unknown field {shown(name)}: {hint}", param=name, code="unknown_field")
        self._values = values

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return self._values.get(name, [])

    def text(self, name: str) -> str:
        """Return the value of a field that may occur once; empty when it is left out."""
        values = self.all(name)
        if len(values) > 1:
            raise invalid_value(name, f"duplicate field {name}: send it once")
        return values[0] if values else ""

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return one of `choices`."""
        value = self.text(name) or default
        if value not in choices:
            raise invalid_value(name, f"unknown {name} {shown(value)}: use one of {', '.join(choices)}")
        return value

    def reject_unless(self, name: str, allowed: tuple[str, ...], message: str) -> None:
        """Raise `HttpError` with `message` when a field asks for something that is not available here."""
        if self.text(name).strip().lower() not in ("", *allowed):
            raise HttpError(400, message, param=name, code="unsupported_value")

    def prompt(self) -> str:
        """Return the words to expect."""
        text = self.text("prompt")
        if len(text) > _MAX_PROMPT_CHARACTERS or "\0" in text:
            raise invalid_value("prompt", f"prompt must be text of at most {_MAX_PROMPT_CHARACTERS} characters")
        return text

    def temperature(self) -> float:
        """Return a number from 0 to 1."""
        text = self.text("temperature")
        try:
            value = float(text or 0)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise invalid_value("temperature", f"temperature {shown(text)} is not a number from 0 to 1")
        return value

    def language(self, default: str | None) -> str | None:
        """Return a code of `LANGUAGES`, or None to detect the language; `default` when the request names none."""
        text = self.text("language")
        code = text.strip().lower()
        if not code:
            return default
        if code == "auto":
            return None
        if code not in LANGUAGES:
            raise invalid_value(
                "language",
                f"unknown language {shown(text)}: leave it out to have it detected, or use one of the codes "
                f"{' '.join(sorted(LANGUAGES))}",
            )
        return code

    def granularities(self, response_format: str) -> tuple[str, ...]:
        """Return which times verbose_json is to have, of `GRANULARITIES`."""
        name = "timestamp_granularities[]"
        values = tuple(self.all(name) + self.all("timestamp_granularities"))
        for value in values:
            if value not in GRANULARITIES:
                raise invalid_value(name, f"unknown {name} {shown(value)}: use {' or '.join(GRANULARITIES)}")
        if values and response_format != "verbose_json":
            raise invalid_value(name, f"{name} needs response_format=verbose_json")
        return values or ("segment",)


def query_fields(query: str) -> Values:
    """Return the fields of a URL's query. Raises `HttpError`."""
    fields: Values = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise HttpError(400, "the query of the URL is malformed", code="invalid_query") from None
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def json_fields(body: bytes) -> Values:
    """Return the members of a JSON object of strings and numbers; null counts as left out. Raises `HttpError`."""
    malformed = HttpError(
        400,
        'the body is not a JSON object such as {"audio_url": "https://host/file"}; send the audio itself as '
        "multipart/form-data in the field file, or as the body with an audio type as Content-Type",
        code="invalid_json",
    )
    try:
        pairs = json.loads(body.decode("utf-8"), object_pairs_hook=_Pairs, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise malformed from None
    if not isinstance(pairs, _Pairs):
        raise malformed
    fields: Values = {}
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
            raise invalid_value(_encodable(name), f"{shown(name)} must be a string or a number")
        if value is not None:
            fields.setdefault(_encodable(name), []).append(_encodable(str(value)))
    return fields


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, so that a duplicate one is seen."""


def _reject_constant(name: str) -> NoReturn:
    """Reject NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(name)


def _encodable(text: str) -> str:
    """Reject what JSON can write and UTF-8 cannot: half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise HttpError(400, "the JSON contains half of a surrogate pair", code="invalid_json") from None
    return text
