"""The table of the API as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from whisper_xeon.web.api_table import (
    AUDIO_URL,
    ENDPOINTS,
    EXAMPLE_ANSWER,
    JSON,
    Endpoint,
    Error,
    Field,
    errors_of,
)
from whisper_xeon.web.content import FORM, URLENCODED
from whisper_xeon.web.events import EVENTS_TYPE
from whisper_xeon.web.fields import MAX_FIELDS

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_OTHERS = {"propertyNames": {"pattern": r"^[^\x00\r\n]*$", "maxLength": 500}, "maxProperties": MAX_FIELDS}
_BINARY = {"type": "string", "format": "binary"}
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_PARTS = {"segments": _list_of("Segment"), "words": _list_of("Word"), "logprobs": _list_of("TokenLogprob")}

# What answers look like; `formats` writes them.
SCHEMAS: dict[str, Any] = {
    "Word": _object(
        ("word", "start", "end", "probability"), word=_TEXT, start=_NUMBER, end=_NUMBER, probability=_PROBABILITY
    ),
    "TokenLogprob": _object(
        ("token", "logprob", "bytes"),
        token=_TEXT,
        logprob=_NUMBER,
        bytes={"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    ),
    "Segment": _object(
        ("id", "start", "end", "text", "tokens", "temperature", "avg_logprob", "probability", "no_speech_prob"),
        id={"type": "integer"},
        seek={"type": "integer"},
        start=_NUMBER,
        end=_NUMBER,
        text=_TEXT,
        tokens={"type": "array", "items": {"type": "integer"}},
        temperature=_NUMBER,
        avg_logprob=_NUMBER,
        probability=_PROBABILITY,
        compression_ratio=_NUMBER,
        no_speech_prob=_PROBABILITY,
        speaker=_TEXT,
        words=_list_of("Word"),
    ),
    "Usage": _object(("type", "seconds"), type={"const": "duration"}, seconds={"type": "integer"}),
    "Transcription": _object(("text", "usage"), text=_TEXT, usage=_ref("Usage"), **_PARTS),
    "VerboseTranscription": {
        **_object(
            ("task", "language", "duration", "text", "usage"),
            task=_TEXT,
            language=_TEXT,
            duration=_NUMBER,
            text=_TEXT,
            language_probability=_PROBABILITY,
            usage=_ref("Usage"),
            **_PARTS,
        ),
        "examples": [EXAMPLE_ANSWER],
    },
    "DiarizedTranscription": _object(
        ("task", "duration", "text", "segments"),
        task=_TEXT,
        duration=_NUMBER,
        text=_TEXT,
        segments={
            "type": "array",
            "items": _object(
                ("type", "id", "start", "end", "text", "speaker"),
                type={"const": "transcript.text.segment"},
                id=_TEXT,
                start=_NUMBER,
                end=_NUMBER,
                text=_TEXT,
                speaker=_TEXT,
            ),
        },
        usage=_ref("Usage"),
    ),
    "OwnTranscription": _object(
        ("text", "language", "duration", "model", "release_id", "request_id", "processing_seconds"),
        text=_TEXT,
        language=_TEXT,
        language_probability={"type": ["number", "null"]},
        duration=_NUMBER,
        model=_TEXT,
        release_id=_TEXT,
        request_id=_TEXT,
        processing_seconds=_NUMBER,
        **_PARTS,
    ),
    "WhisperTranscription": _object(
        ("text", "segments", "language"), text=_TEXT, segments=_list_of("Segment"), language=_TEXT
    ),
    "DetectedLanguage": _object(
        ("detected_language", "language_code", "confidence"),
        detected_language=_TEXT,
        language_code=_TEXT,
        confidence=_PROBABILITY,
    ),
    "Model": _object(
        ("id", "object", "created", "owned_by"),
        id=_TEXT,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_TEXT,
    ),
    "Models": _object(("object", "data"), object={"const": "list"}, data=_list_of("Model")),
    "Any": {"type": "object"},
}
# What errors look like in each of `errors.ERROR_FORMATS`; FastAPI's own documents call the last two so.
ERROR_SCHEMAS: dict[str, dict[str, Any]] = {
    "openai": {
        "Error": _object(
            ("error",),
            error=_object(
                ("message", "type", "param", "code"),
                message=_TEXT,
                type={"type": "string", "enum": ["invalid_request_error", "server_error"]},
                param={"type": ["string", "null"]},
                code=_TEXT,
            ),
        ),
    },
    "fastapi": {
        "Error": _object(("detail",), detail=_TEXT),
        "HTTPValidationError": _object(("detail",), detail=_list_of("ValidationError")),
        "ValidationError": _object(
            ("loc", "msg", "type"), loc={"type": "array", "items": _TEXT}, msg=_TEXT, type=_TEXT
        ),
    },
}
# Endpoint → what its JSON may be.
_JSON_ANSWERS = {
    "transcribe": ("OwnTranscription", "VerboseTranscription", "DiarizedTranscription"),
    "asr": ("WhisperTranscription",),
    "detect_language": ("DetectedLanguage",),
    "models": ("Models",),
    "model": ("Model",),
}
_TRANSCRIPTIONS = ("Transcription", "VerboseTranscription", "DiarizedTranscription")


def document(version: str, *, keys: bool, urls: bool, error_format: str = "openai") -> dict[str, Any]:
    """Return the document.

    `keys`: requests that transcribe need an API key; `urls`: an `audio_url` may be fetched; `error_format`: one of
    `errors.ERROR_FORMATS`.
    """
    schemas = {**SCHEMAS, **ERROR_SCHEMAS[error_format]}
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, keys, urls, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "whisper-xeon", "version": version, "summary": "Speech to text"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(endpoint: Endpoint, keys: bool, urls: bool, schemas: Collection[str]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "description": endpoint.does[0].upper() + endpoint.does[1:] + ".",
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.path.endswith("{id}"):
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": _TEXT}]
    if endpoint.transcribes:
        operation["requestBody"] = _request_body(endpoint, urls)
        operation["security"] = [{"bearer": []}, {"header": []}] if keys else [{}, {"bearer": []}, {"header": []}]
    return operation


def _request_body(endpoint: Endpoint, urls: bool) -> dict[str, Any]:
    fields = {field.name: _described(field) for field in endpoint.fields if urls or field is not AUDIO_URL}
    audio = {endpoint.file_field: {**_BINARY, "description": "the audio"}}
    # Fields of other names are passed over.
    form = {"type": "object", "properties": {**audio, **fields}, **_OTHERS}
    content: dict[str, Any] = {
        FORM: {"schema": form if endpoint.takes_url and urls else {**form, "required": [endpoint.file_field]}},
        # Any audio or video type will do; the fields are in the query then.
        "application/octet-stream": {"schema": _BINARY},
    }
    if endpoint.takes_url and urls:
        by_url = {"type": "object", "properties": fields, "required": [AUDIO_URL.name], **_OTHERS}
        content[JSON] = content[URLENCODED] = {"schema": by_url}
    return {"required": not (endpoint.takes_url and urls), "content": content}


def _described(field: Field) -> dict[str, Any]:
    default = f" Default: {field.default}." if field.default else ""
    return {**_or_null(field.value.schema), "description": f"{field.effect}.{default}"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that also allows null, and empty among words: both mean left out."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*map(_or_null, schema["anyOf"])]}
    enum = {"enum": [*schema["enum"], "", None]} if "enum" in schema else {}
    return {**schema, **enum, **({"type": [schema["type"], "null"]} if "type" in schema else {})}


def _responses(endpoint: Endpoint, schemas: Collection[str]) -> dict[str, Any]:
    names = _JSON_ANSWERS.get(endpoint.name, _TRANSCRIPTIONS if endpoint.transcribes else ("Any",))
    answers = [_ref(name) for name in names]
    json_schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    # Before OpenAPI 3.2 no schema can tell of one event.
    content = {
        kind: {} if kind == EVENTS_TYPE else {"schema": json_schema if kind == JSON else _TEXT}
        for kind in endpoint.answers
    }
    responses: dict[str, Any] = {"200": {"description": "success", "content": content}}
    if endpoint.name == "ready":
        responses["503"] = {"description": "not ready", "content": {JSON: {"schema": _ref("Any")}}}
    errors: dict[str, list[Error]] = {}
    for error in errors_of(endpoint):
        errors.setdefault(str(error.status), []).append(error)
    for status, kinds in errors.items():
        described = "; ".join(f"`{error.code}`: {error.when}" for error in kinds)
        error_schema = _ref("HTTPValidationError" if status == "422" and "HTTPValidationError" in schemas else "Error")
        schema = {"anyOf": [error_schema, _ref("Any")]} if status in responses else error_schema
        responses[status] = {
            "description": described,
            "headers": {"X-Whisper-Error": {"description": "the error's code", "schema": _TEXT}},
            "content": {JSON: {"schema": schema}},
        }
    return responses
