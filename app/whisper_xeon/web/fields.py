"""The fields of one request: read from a form, a query or a JSON object, and checked against the table of the API.

A request is told which field is wrong and what is allowed. What no field of the table is called is passed over and
named in the answer, or rejected where the operator wants that.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from whisper_xeon.formats import JSON_FORMATS
from whisper_xeon.transcript import DecodeOptions
from whisper_xeon.web.api_table import OPTIONS, STREAM, Endpoint, Field, split_name
from whisper_xeon.web.errors import HttpError, invalid_value, shown
from whisper_xeon.web.model_names import ignores_stream, streams
from whisper_xeon.web.values import EMPTY, LEFT_OUT, Anything, Members, Several, Unavailable, as_text, number_or_text

MAX_FIELDS = 128

Values = dict[str, list[str]]  # of each field, in the order in which they came


@dataclass(frozen=True)
class Asked:
    """What one request asks for."""

    options: Mapping[str, Any]  # of `DecodeOptions`, those that it sets
    model: str = ""
    response_format: str = ""
    granularities: tuple[str, ...] = ()  # of `GRANULARITIES`
    include: tuple[str, ...] = ()
    audio_url: str = ""
    detect_language: str = ""  # or "auto"
    stream: bool = False  # whether the answer is to come as events
    encode: bool = True  # whether the file says itself what it is; false: bare samples
    no_timestamps: bool = False
    ignored: tuple[str, ...] = ()  # names of fields that had no effect and might be missed

    def decode_options(self, base: DecodeOptions, always: Mapping[str, Any]) -> DecodeOptions:
        """Return the options of a request that starts from `base`; those in `always` are the endpoint's."""
        options = dict(self.options)
        if self.detect_language:
            options.setdefault("language", None)
        return dataclasses.replace(base, **{**options, **always})


def read_fields(values: Values, endpoint: Endpoint, *, strict: bool) -> Asked:
    """Return what the fields of a request ask for. Raises `HttpError`; `strict`: also for a field that is not known."""
    texts: dict[str, list[str]] = {}
    members: dict[str, dict[str, Any]] = {}
    sent: dict[str, str] = {}  # name in the table → as the client wrote it, for messages
    ignored: list[str] = []
    for name, given in values.items():
        one, member = endpoint.field(name), split_name(name)[1]
        if one is None:
            if strict:
                raise _unknown(name, endpoint)
            ignored.append(name)
            continue
        kept = [text for text in map(str.strip, given) if text.lower() not in EMPTY]
        if not kept:
            continue
        if isinstance(one.value, Anything):
            ignored.extend([name] if one.value.missed else [])
            continue
        sent.setdefault(one.name, name)
        if member and isinstance(one.value, Members):
            members.setdefault(one.name, {})[member] = number_or_text(kept[-1])
        else:
            texts.setdefault(one.name, []).extend(kept)
    for name, content in members.items():
        texts.setdefault(name, []).append(json.dumps(content))

    options: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    # In the table's order: where two fields contradict each other, the later one counts.
    for one in endpoint.fields:
        if one.name not in texts:
            continue
        value = _read(one, sent[one.name], texts[one.name])
        if isinstance(one.value, Members):
            options.update(value)
        elif value is not LEFT_OUT:
            (options if one.sets in OPTIONS else rest)[one.sets] = value
    if rest.get("stream") and not _may_stream(rest, sent[STREAM.name], endpoint):
        rest["stream"] = False
        ignored.append(sent[STREAM.name])
    return Asked(options, ignored=tuple(ignored), **rest)


def _may_stream(asked: Mapping[str, Any], sent: str, endpoint: Endpoint) -> bool:
    """Whether the answer may come as events. Raises `HttpError` where it may not, and the client waits for them."""
    model = asked.get("model", "")
    if endpoint.streams and asked.get("response_format", endpoint.format) in JSON_FORMATS:
        return not ignores_stream(model)
    if streams(model):
        what = (
            f"only {', '.join(JSON_FORMATS)} can be streamed" if endpoint.streams else "this endpoint does not stream"
        )
        raise _unavailable(sent, f"{what}: leave stream out")
    return False


def _read(one: Field, sent: str, texts: list[str]) -> Any:
    if isinstance(one.value, Several):
        found = {choice for text in texts for choice in _read_text(one, sent, text)}
        return tuple(choice for choice in one.value.choices if choice in found)
    if len(set(texts)) > 1:
        raise invalid_value(sent, f"duplicate field {shown(sent)}: send it once")
    return _read_text(one, sent, texts[0])


def _read_text(one: Field, sent: str, text: str) -> Any:
    try:
        return one.value.read(text)
    except Unavailable as error:
        raise _unavailable(sent, str(error)) from None
    except ValueError:
        raise invalid_value(sent, f"{sent} {shown(text)} is not allowed: it must be {one.value.allowed}") from None


def _unavailable(sent: str, instead: str) -> HttpError:
    return HttpError(400, instead, param=sent, code="unsupported_value")


def _unknown(name: str, endpoint: Endpoint) -> HttpError:
    near = difflib.get_close_matches(name, [known for one in endpoint.fields for known in one.names], n=1)
    documented = (endpoint.file_field, *(one.name for one in endpoint.fields if not isinstance(one.value, Anything)))
    hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(documented)}"
    return HttpError(400, f"unknown field {shown(name)}: {hint}", param=name, code="unknown_field")


def merge(*sources: Values) -> Values:
    """Return the fields of all sources together."""
    merged: Values = {}
    for source in sources:
        for name, texts in source.items():
            merged.setdefault(name, []).extend(texts)
    return merged


def query_fields(query: str, what: str = "the query of the URL") -> Values:
    """Return the fields of a query or of a form of that type. Raises `HttpError` naming `what`."""
    fields: Values = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HttpError(
            400, f"{what} is malformed: it must be UTF-8 with at most {MAX_FIELDS} fields", code="invalid_query"
        ) from None
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def json_fields(body: bytes, instead: str) -> Values:
    """Return the members of a JSON object; null counts as left out. Raises `HttpError` that ends with `instead`."""
    malformed = HttpError(400, f"the body is not a JSON object: {instead}", code="invalid_json")
    fields: Values = {}
    try:
        pairs = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_Pairs, parse_constant=_reject_constant)
        if not isinstance(pairs, _Pairs):
            raise malformed
        for name, value in pairs:
            text = as_text(_plain_json(value))
            (name + text).encode("utf-8")  # JSON can write half of a surrogate pair
            if value is not None:
                fields.setdefault(name, []).append(text)
    except (ValueError, RecursionError):
        raise malformed from None
    if len(fields) > MAX_FIELDS:
        raise HttpError(400, f"the JSON object has more than {MAX_FIELDS} members", code="invalid_json")
    return fields


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, so that a duplicate one is seen."""


def _plain_json(value: Any) -> Any:
    """Return a value with its objects as dictionaries."""
    if isinstance(value, _Pairs):
        return {name: _plain_json(content) for name, content in value}
    return [_plain_json(item) for item in value] if isinstance(value, list) else value


def _reject_constant(name: str) -> NoReturn:
    """Reject NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(name)
