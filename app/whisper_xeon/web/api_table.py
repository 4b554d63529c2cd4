"""The API as a table: every endpoint, field and error, and the only place that says what a field may hold.

What checks requests, /openapi.json, /docs and docs/api.md follow it.

Names are those of OpenAI's API, of whisper.cpp's server, of the ASR web service and of faster-whisper's servers, so
that a client of any of them is understood.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from whisper_xeon.formats import FORMATS, GRANULARITIES
from whisper_xeon.transcript import DecodeOptions
from whisper_xeon.web.events import EVENTS_TYPE
from whisper_xeon.web.values import (
    Anything,
    Choice,
    Language,
    Member,
    Members,
    Number,
    Several,
    Sides,
    Switch,
    Text,
    Tokens,
    Value,
    Whole,
)

OPTIONS = frozenset(option.name for option in dataclasses.fields(DecodeOptions))
_PROMPT_CHARACTERS = 4096
_URL_CHARACTERS = 8192


@dataclass(frozen=True)
class Field:
    """One field of a request, whichever way it comes."""

    name: str
    value: Value
    effect: str  # in Markdown
    sets: str = ""  # an option of `DecodeOptions`, or what `fields.Asked` has beside them; several for `Members`
    default: str = ""  # in Markdown; empty: none
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def keeps_end(self) -> bool:
        """Whether a text that is too long is cut at its beginning, not rejected."""
        return isinstance(self.value, Text) and self.value.keeps_end


@dataclass(frozen=True)
class Endpoint:
    """One path and method. `name` is what the application's handler and OpenAPI's operation go by."""

    name: str
    method: str
    path: str  # may end with {id}, which stands for the rest of the path
    does: str  # in Markdown
    answers: tuple[str, ...]  # content types
    fields: tuple[Field, ...] = ()
    file_field: str = ""  # of a form; empty: it takes no audio
    takes_url: bool = False  # the audio may be elsewhere: audio_url
    format: str = ""  # of the answer, when none is asked for
    always: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # options, whatever is asked for
    aliases: tuple[str, ...] = ()
    streams: bool = False  # the answer may come as events
    strictly_spelled: bool = False  # found by its path alone

    @property
    def transcribes(self) -> bool:
        """Whether it takes audio, which needs an API key where there are keys."""
        return bool(self.file_field)

    def field(self, name: str) -> Field | None:
        """Return the field that a client means by a name, in any spelling: `beam-size`, `beamSize`, `beam_size[]`."""
        return self._by_spelling.get(spelled(name))

    @functools.cached_property
    def _by_spelling(self) -> dict[str, Field]:
        return {spelled(name): one for one in self.fields for name in one.names}

    def is_documented_file(self, name: str) -> bool:
        """Whether a form's part of this name is the file as the documentation has it."""
        return spelled(name) == spelled(self.file_field)

    def is_file(self, name: str) -> bool:
        """Whether a form's part of this name is the file, even if it says nothing of a file."""
        return spelled(name) in map(spelled, (self.file_field, *_FILE_FIELDS))


@dataclass(frozen=True)
class Error:
    """One kind of error; `of` says which endpoints have it: `every`, `audio`, `url` or `model`."""

    status: int
    code: str
    when: str  # in Markdown
    of: str = "audio"


# Names of a form's part with the audio, beside the one that an endpoint documents.
_FILE_FIELDS = ("file", "audio_file", "audio")
_BRACKETS = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")


def split_name(name: str) -> tuple[str, str]:
    """Split `a[b]` into a and b; the b of a list, empty or a number, is empty."""
    match = _BRACKETS.fullmatch(name.strip())
    if not match:
        return name.strip(), ""
    return match[1], "" if match[2].isdecimal() else match[2]


def spelled(name: str) -> str:
    """Return what the spellings of a name have in common: without brackets, dashes, underscores and case."""
    return re.sub("[-_]", "", split_name(name)[0]).lower()


_MILLISECONDS = Whole(0, 60_000)
_PROBABILITY = Number(0, 1)

MODEL = Field(
    "model",
    Text(200),
    "a check that this model is served: by its name, also as a file (`ggml-small.bin`), `whisper-1`, a name of "
    "OpenAI's transcription models, `owner/name`, `whisper`, `default`, or an alias (`WHISPER_MODEL_ALIASES`). Any "
    "other name is 404. A deployment in Azure's path may have any name but that of a Whisper size that is not served",
    "model",
)
LANGUAGE = Field(
    "language",
    Language(),
    "the language spoken, by code, name or locale: `de`, `German`, `de-DE`",
    "language",
    "`WHISPER_LANGUAGE`, or detected",
    ("lang", "source_language"),
)
TRANSLATE = Field("translate", Switch("translate", "transcribe"), "the same as `task=translate`", "task", "false")
TASK = Field(
    "task",
    Choice(("transcribe", "translate"), (("transcription", "transcribe"), ("translation", "translate"))),
    "`translate` writes English, whatever is spoken",
    "task",
    "`transcribe`",
)
PROMPT = Field(
    "prompt",
    Text(_PROMPT_CHARACTERS, keeps_end=True),
    "names and jargon in the spelling that you want. Of a longer one its end counts: the last 2,000 bytes, and of "
    "these the last 223 tokens (about 150 English words)",
    "prompt",
    aliases=("initial_prompt",),
)
HOTWORDS = Field("hotwords", Text(_PROMPT_CHARACTERS), "words to expect in every part of the recording", "hotwords")
TEMPERATURE = Field(
    "temperature",
    Number(0, 1),
    "at 0 the most likely words are taken, and others are tried where these score badly; above 0 words are drawn at "
    "random",
    "temperature",
    "0",
)
TEMPERATURE_INC = Field(
    "temperature_inc",
    Number(0, 1),
    "what is added to temperature 0 for each further try of a part that scores badly, 0.1 at least; 0: no further try, "
    "as with a temperature above 0",
    "temperature_increment",
    "0.4",
    ("temperature_increment", "temperature_increment_on_fallback"),
)
BEAM_SIZE = Field(
    "beam_size", Whole(1, 8, (-1,)), "how many texts are followed side by side at temperature 0", "beam_size", "1"
)
BEST_OF = Field(
    "best_of", Whole(1, 8, (-1,)), "how many texts are drawn above temperature 0, to keep the best", "best_of", "1"
)
PATIENCE = Field("patience", Number(0.1, 10), "how long beams are followed, as openai-whisper has it", "patience", "1")
CONDITION = Field(
    "condition_on_previous_text",
    Switch(),
    "shows the decoder what it wrote before; it may then repeat itself",
    "condition_on_previous_text",
    "false",
)
SUPPRESS_TOKENS = Field(
    "suppress_tokens",
    Tokens(),
    "numbers of tokens never to write; -1 stands for all that are not speech, `[]` suppresses none",
    "suppress_tokens",
    "-1",
)
COMPRESSION = Field(
    "compression_ratio_threshold",
    Number(0, 100),
    "a part whose text compresses better than this repeats itself, and is tried again",
    "compression_ratio_threshold",
    "2.4",
)
LOGPROB = Field(
    "logprob_threshold",
    Number(-100, 0),
    "a part with a lower mean log probability is tried again",
    "logprob_threshold",
    "-1",
    ("logprob_thold",),
)
NO_SPEECH = Field(
    "no_speech_threshold",
    _PROBABILITY,
    "a part that scores badly, and whose probability of silence is higher than this, is silence",
    "no_speech_threshold",
    "0.6",
    ("no_speech_thold",),
)
WORD_TIMESTAMPS = Field(
    "word_timestamps",
    Switch(),
    "gives each word's times and probability, where the format has room for them",
    "word_timestamps",
    "false",
    ("word_level_timestamps",),
)
_DETECTION = {
    "threshold": Member("vad_threshold", _PROBABILITY),
    "silence_duration_ms": Member("vad_min_silence_ms", _MILLISECONDS),
    "prefix_padding_ms": Member("vad_speech_pad_ms", _MILLISECONDS),
}
CHUNKING = Field(
    "chunking_strategy",
    Members(_DETECTION, words=("auto",), kinds=("server_vad",), always=(("vad", True),)),
    "how speech is found: `auto`, or an object of type `server_vad` with `threshold`, `silence_duration_ms` and "
    "`prefix_padding_ms`",
    default="`auto`",
)
VAD_PARAMETERS = Field(
    "vad_parameters",
    Members(
        {
            "threshold": Member("vad_threshold", _PROBABILITY),
            "min_speech_duration_ms": Member("vad_min_speech_ms", _MILLISECONDS),
            "min_silence_duration_ms": Member("vad_min_silence_ms", _MILLISECONDS),
            "speech_pad_ms": Member("vad_speech_pad_ms", _MILLISECONDS),
        }
    ),
    "the same as an object, with faster-whisper's names",
)
VAD = Field(
    "vad",
    Switch(),
    "skips what is not speech, where the package can tell ([voice detection](voice-detection.md))",
    "vad",
    "true",
    ("vad_filter",),
)
VAD_THRESHOLD = Field(
    "vad_threshold", _PROBABILITY, "the probability from which sound is speech", "vad_threshold", "0.5"
)
VAD_MIN_SPEECH = Field(
    "vad_min_speech_duration_ms",
    _MILLISECONDS,
    "shorter speech is noise",
    "vad_min_speech_ms",
    "250",
    ("vad_min_speech_ms",),
)
VAD_MIN_SILENCE = Field(
    "vad_min_silence_duration_ms",
    _MILLISECONDS,
    "silence is skipped where more than this would go",
    "vad_min_silence_ms",
    "5000",
    ("vad_min_silence_ms",),
)
VAD_SPEECH_PAD = Field(
    "vad_speech_pad_ms", _MILLISECONDS, "how much is kept before and after speech", "vad_speech_pad_ms", "400"
)
DIARIZE = Field(
    "diarize",
    Sides(),
    "`channel` labels segments by the side of a stereo recording that speaks, `left` or `right`",
    "diarize",
    "false",
    ("diarization",),
)
_FORMAT_WORDS = (("txt", "text"), ("plain", "text"), ("webvtt", "vtt"), ("verbose", "verbose_json"))
RESPONSE_FORMAT = Field(
    "response_format",
    Choice(tuple(FORMATS), _FORMAT_WORDS),
    "the answer's format; `diarized_json` needs `diarize=channel`",
    "response_format",
    "`json`",
    ("output_format",),
)
TIMESTAMPS = Field(
    "timestamp_granularities[]",
    Several(GRANULARITIES),
    "which times a JSON answer has: repeated, as a list with commas, or as a JSON list; with or without the brackets",
    "granularities",
    "`segment` with `verbose_json`",
)
INCLUDE = Field(
    "include[]",
    Several(("logprobs",)),
    "`logprobs` adds each token's log probability to a JSON answer",
    "include",
)
AUDIO_URL = Field(
    "audio_url",
    Text(_URL_CHARACTERS),
    "where the audio is, instead of sending it; the service fetches it if `WHISPER_AUDIO_URL_ALLOW` allows that place",
    "audio_url",
    aliases=("url",),
)
STREAM = Field(
    "stream",
    Switch(),
    "`true` sends the text while it is being written, as [events](#streams): with `json`, `verbose_json` or "
    "`diarized_json`, and a `model` that is named. It is ignored with `whisper-1`, as OpenAI does, without a model, "
    "and at `/asr` and `/detect-language`",
    "stream",
    "false",
)
ENCODE = Field(
    "encode",
    Switch(),
    "`false`: a file without a header is bare samples, signed 16-bit little-endian, 16 kHz, mono",
    "encode",
    "true",
)
# What clients send by themselves, and what says how OpenAI is to bill or keep it.
_SILENT = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "api-version",
    "encode",
    "num_workers",
    "key",
)
_SILENT_FIELDS = tuple(Field(name, Anything(), "accepted, without effect") for name in _SILENT)
# What changes the text or its times elsewhere.
_MISSED = (
    *("length_penalty", "repetition_penalty", "no_repeat_ngram_size", "prefix", "suppress_blank", "without_timestamps"),
    *("max_initial_timestamp", "prepend_punctuations", "append_punctuations", "max_new_tokens", "chunk_length"),
    *(
        "clip_timestamps",
        "hallucination_silence_threshold",
        "language_detection_threshold",
        "batch_size",
        "multilingual",
    ),
    *("vad_max_speech_duration_s", "vad_samples_overlap", "known_speaker_names", "known_speaker_references"),
    *("min_speakers", "max_speakers", "max_line_width", "max_line_count", "max_words_per_line", "highlight_words"),
)
_MISSED_FIELDS = tuple(Field(name, Anything(missed=True), "accepted, without effect") for name in _MISSED)
_CPP_MISSED_FIELDS = tuple(
    Field(name, Anything(missed=True), "accepted, without effect")
    for name in (
        *("offset_t", "offset_n", "duration", "max_context", "max_len", "audio_ctx", "word_thold", "entropy_thold"),
        *("debug_mode", "tinydiarize", "split_on_word", "no_language_probabilities", "processors", "print_realtime"),
    )
)

# Switches come first, as in `_DECODING`: where they contradict another field, the other one counts.
_CPP_SWITCHES = (
    Field("detect_language", Switch("auto", ""), "the same as `language=auto`", "detect_language", "false"),
    Field(
        "no_context",
        Switch(on=False, off=True),
        "the opposite of `condition_on_previous_text`",
        "condition_on_previous_text",
    ),
    Field(
        "suppress_non_speech",
        Switch((-1,), ()),
        "the same as `suppress_tokens=-1`, or `[]`",
        "suppress_tokens",
        aliases=("suppress_nst", "suppress_non_speech_tokens"),
    ),
    Field("no_timestamps", Switch(), "leaves the words out of `verbose_json`", "no_timestamps", "false"),
)
_DECODING = (
    *(MODEL, LANGUAGE, TRANSLATE, TASK, PROMPT, HOTWORDS, TEMPERATURE, TEMPERATURE_INC, BEAM_SIZE, BEST_OF, PATIENCE),
    *(CONDITION, SUPPRESS_TOKENS, COMPRESSION, LOGPROB, NO_SPEECH, WORD_TIMESTAMPS, CHUNKING, VAD_PARAMETERS, VAD),
    *(VAD_THRESHOLD, VAD_MIN_SPEECH, VAD_MIN_SILENCE, VAD_SPEECH_PAD, DIARIZE),
)
_ANSWER = (RESPONSE_FORMAT, TIMESTAMPS, INCLUDE)
_WITHOUT_EFFECT = (STREAM, *_SILENT_FIELDS, *_MISSED_FIELDS)
_OPENAI_FIELDS = (*_DECODING, *_ANSWER, *_WITHOUT_EFFECT)
_CPP_DIARIZE = dataclasses.replace(
    DIARIZE, value=Sides(on="channel"), effect="`true` or `channel` labels segments by the side of a stereo recording"
)
_CPP_FIELDS = (
    *_CPP_SWITCHES,
    *(_CPP_DIARIZE if one is DIARIZE else one for one in _DECODING),
    *_ANSWER,
    *_WITHOUT_EFFECT,
    *_CPP_MISSED_FIELDS,
)
_OUTPUT = Field(
    "output",
    Choice(("txt", "vtt", "srt", "tsv", "json"), (("txt", "text"), ("text", "text"))),
    "the answer's format",
    "response_format",
    "`txt`",
)
_WEBSERVICE_WITHOUT_EFFECT = tuple(ENCODE if one.name == ENCODE.name else one for one in _WITHOUT_EFFECT)
_WEBSERVICE_FIELDS = (*_DECODING, _OUTPUT, *_WEBSERVICE_WITHOUT_EFFECT)
_TRANSCRIBE_FIELDS = (*_OPENAI_FIELDS, AUDIO_URL)

# The first example of the documentation.
EXAMPLE_REQUEST = {
    "response_format": "verbose_json",
    "timestamp_granularities[]": "word,segment",
}
EXAMPLE_ANSWER = {
    "task": "transcribe",
    "language": "english",
    "duration": 1.86,
    "text": "Ask what you can do.",
    "language_probability": 0.9931,
    "segments": [
        {
            "id": 0,
            "seek": 0,
            "start": 0.14,
            "end": 1.72,
            "text": " Ask what you can do.",
            "tokens": [12320, 437, 291, 393, 360, 13],
            "temperature": 0.0,
            "avg_logprob": -0.181423,
            "probability": 0.8341,
            "compression_ratio": 0.724138,
            "no_speech_prob": 0.010284,
        }
    ],
    "words": [
        {"word": "Ask", "start": 0.14, "end": 0.46, "probability": 0.7412},
        {"word": "what", "start": 0.46, "end": 0.7, "probability": 0.9867},
        {"word": "you", "start": 0.7, "end": 0.92, "probability": 0.9911},
        {"word": "can", "start": 0.92, "end": 1.18, "probability": 0.9953},
        {"word": "do.", "start": 1.18, "end": 1.72, "probability": 0.9906},
    ],
    "usage": {"type": "duration", "seconds": 2},
}

JSON = "application/json"
_ALL_FORMATS = (*dict.fromkeys(FORMATS.values()), EVENTS_TYPE)

ENDPOINTS = (
    Endpoint(
        "transcriptions",
        "POST",
        "/v1/audio/transcriptions",
        "transcribes, as OpenAI's API does",
        _ALL_FORMATS,
        _OPENAI_FIELDS,
        file_field="file",
        format="json",
        streams=True,
    ),
    Endpoint(
        "translations",
        "POST",
        "/v1/audio/translations",
        "the same, with the text in English",
        _ALL_FORMATS,
        _OPENAI_FIELDS,
        file_field="file",
        format="json",
        streams=True,
        always=MappingProxyType({"task": "translate"}),
    ),
    Endpoint(
        "transcribe",
        "POST",
        "/transcribe",
        "transcribes a file or an `audio_url`, which may be in JSON, a form or the query. Its `json` has `text`, "
        "`language`, `language_probability`, `duration` (of the audio, in seconds), `model`, `release_id`, "
        "`request_id` and `processing_seconds` (decode, wait, compute)",
        _ALL_FORMATS,
        _TRANSCRIBE_FIELDS,
        file_field="file",
        takes_url=True,
        format="json",
        streams=True,
    ),
    Endpoint(
        "inference",
        "POST",
        "/inference",
        "transcribes, as whisper.cpp's server does: its `verbose_json` has the words in the segments",
        _ALL_FORMATS,
        _CPP_FIELDS,
        file_field="file",
        format="json",
        streams=True,
    ),
    Endpoint(
        "asr",
        "POST",
        "/asr",
        "transcribes, as the ASR web service (openai-whisper-asr-webservice) does; fields in the query or in the form",
        tuple(FORMATS[name] for name in ("text", "vtt", "srt", "tsv", "json")),
        _WEBSERVICE_FIELDS,
        file_field="audio_file",
        format="text",
    ),
    Endpoint(
        "detect_language",
        "POST",
        "/detect-language",
        "says which language is spoken, as the ASR web service does: `detected_language`, `language_code`, "
        "`confidence`",
        (JSON,),
        (MODEL, *_WEBSERVICE_WITHOUT_EFFECT),
        file_field="audio_file",
        format="json",
        always=MappingProxyType({"language": None, "temperature_increment": 0.0}),
    ),
    Endpoint("models", "GET", "/v1/models", "the model that is served, in OpenAI's shape", (JSON,)),
    Endpoint("model", "GET", "/v1/models/{id}", "the same for one name", (JSON,)),
    Endpoint("openapi", "GET", "/openapi.json", "this API in OpenAPI 3.1", (JSON,)),
    Endpoint("page", "GET", "/", "a page in which people drop or record audio", ("text/html; charset=utf-8",)),
    Endpoint("docs", "GET", "/docs", "this API as a page", ("text/html; charset=utf-8",)),
    Endpoint(
        "health", "GET", "/health", "200 while the process lives", (JSON,), aliases=("/healthz", "/livez", "/ping")
    ),
    Endpoint(
        "ready",
        "GET",
        "/readyz",
        "200 when an engine has just shown that it works, otherwise 503 with the reason",
        (JSON,),
    ),
    Endpoint(
        "version",
        "GET",
        "/version",
        "model, release id, whisper.cpp version, adapter, CPU variant and why it was chosen, engines, threads, "
        "`audio_ctx`, and whether [voice detection](voice-detection.md) (`vad`) is on",
        (JSON,),
    ),
    # A proxy that keeps others away from it does so by this path.
    Endpoint(
        "metrics",
        "GET",
        "/metrics",
        "figures in Prometheus' text format ([list](operations.md#metrics))",
        ("text/plain; version=0.0.4; charset=utf-8",),
        strictly_spelled=True,
    ),
)

ERRORS = (
    Error(400, "bad_request", "the request's framing is wrong or ambiguous", "every"),
    Error(400, "invalid_query", "the query of the URL is malformed"),
    Error(400, "invalid_form", "the form is malformed"),
    Error(400, "invalid_json", "the body is not a JSON object"),
    Error(400, "invalid_encoding", "the body is not what its `Content-Encoding` says"),
    Error(
        400,
        "invalid_value",
        "a field's value is not allowed, the model does not know the language, or a recording has no two sides "
        "to `diarize`",
    ),
    Error(400, "unsupported_value", "a field asks for something that is not available here"),
    Error(400, "unknown_field", "a field is not known, with `WHISPER_STRICT_FIELDS=true`"),
    Error(400, "audio_url_not_available", "`audio_url` is not switched on (`WHISPER_AUDIO_URL_ALLOW`)", "url"),
    Error(400, "audio_url_not_allowed", "`audio_url` names a place that is not allowed", "url"),
    Error(400, "https_required", "HTTP on a port that speaks HTTPS (`WHISPER_TLS_CERT`)", "every"),
    Error(401, "invalid_api_key", "an API key is required (`WHISPER_API_KEY_FILE`)"),
    Error(404, "not_found", "nothing is at this path", "every"),
    Error(404, "model_not_found", "another model than `model` is served here", "model"),
    Error(405, "method_not_allowed", "the path takes another method", "every"),
    Error(408, "request_timeout", "the request did not arrive in time", "every"),
    Error(413, "body_too_large", "a body where none is accepted, or JSON over 64 KiB", "every"),
    Error(413, "file_too_large", "the file is larger than `WHISPER_MAX_UPLOAD_MB`"),
    Error(413, "audio_too_long", "the audio is longer than `WHISPER_MAX_AUDIO_SECONDS`"),
    Error(414, "uri_too_long", "the request line is too long", "every"),
    Error(415, "unsupported_media_type", "the body is neither a form nor audio, or is compressed other than with gzip"),
    Error(417, "expectation_failed", "an expectation other than `100-continue`", "every"),
    Error(421, "host_not_allowed", "the header `Host` has a name that is not in `WHISPER_ALLOWED_HOSTS`", "every"),
    Error(422, "audio_unreadable", "the file holds no sound that can be [decoded](audio.md)"),
    Error(422, "audio_url_failed", "the host of `audio_url` refused the file", "url"),
    Error(
        429, "limit_reached", "a limit of the caller's key, or of callers without one; the message says which", "every"
    ),
    Error(429, "too_many_wrong_keys", "too many wrong API keys from this address"),
    Error(431, "headers_too_large", "the headers are too long, or too many", "every"),
    Error(500, "engine_crashed", "two engines crashed on this request; other requests are not affected"),
    Error(500, "engine_error", "whisper.cpp could not transcribe this audio; the log says why"),
    Error(500, "text_changed", "an engine was lost in the middle of a stream, and the next one wrote another text"),
    Error(500, "internal_error", "a fault of the service; the log has it under the request's id", "every"),
    Error(502, "audio_url_failed", "the host of `audio_url` cannot be reached", "url"),
    Error(503, "queue_full", "`WHISPER_QUEUE` requests are waiting; `Retry-After` says when to try again"),
    Error(503, "spool_full", "uploads and decoded audio fill `WHISPER_SPOOL_MB`; `Retry-After` says when to try again"),
    Error(503, "too_many_uploads", "384 uploads are being received; `Retry-After` says when to try again"),
    Error(503, "too_many_connections", "all 512 connections are busy", "every"),
    Error(503, "overloaded", "the service is out of file descriptors or memory; `Retry-After` says when", "every"),
    Error(
        503,
        "engine_unavailable",
        "the model failed to load, or the service is stopping. While the model loads, requests wait",
    ),
    Error(503, "engines_hang", "three engines hung on this request; `Retry-After` says when to try again"),
    Error(503, "decoder_missing", "ffmpeg is not installed"),
    Error(504, "timeout", "no progress for `WHISPER_REQUEST_TIMEOUT`"),
    Error(504, "audio_url_failed", "the host of `audio_url` was too slow", "url"),
    Error(505, "http_version_not_supported", "a version other than HTTP/1.x", "every"),
)

# What clients may expect to work and does not, in Markdown; the errors say the same when it is tried.
REJECTED = (
    "`stream=true` with the name of a model that streams at OpenAI (`gpt-4o-transcribe`) and a format that is not JSON",
    "`diarize` with anything but `channel`, and `diarized_json` without it: speakers are told apart by the sides of a "
    "stereo recording only",
    "another Whisper than the one that is served, by its bare name (`large-v3`); `owner/name` means what is served",
    "two files, unless only one of them is in the field that the endpoint documents, or a file and an `audio_url`; one "
    "field with two values; a value that is out of its range",
    "a type of body that is text, a picture or JSON, where no `audio_url` is taken",
    "a `Content-Encoding` other than gzip, and gzip that grows to more than 200 times its size",
    "a form without its closing boundary, with line ends other than CRLF, or whose `Content-Type` has no boundary; a "
    "part in base64 or quoted-printable; a field that is not UTF-8",
    "a request whose end two readers could see in two places",
)


def errors_of(endpoint: Endpoint) -> Iterable[Error]:
    """Return the errors that an endpoint may answer with."""
    kinds = {"every"}
    kinds |= {"audio", "model"} if endpoint.transcribes else set()
    kinds |= {"url"} if endpoint.takes_url else set()
    kinds |= {"model"} if endpoint.name == "model" else set()
    return [error for error in ERRORS if error.of in kinds]


def documented_fields() -> list[tuple[Field, list[Endpoint]]]:
    """Return every field that has an effect, in the table's order, with its endpoints; none: nearly all."""
    # /detect-language takes hardly any field.
    nearly_all = sum(endpoint.transcribes for endpoint in ENDPOINTS) - 1
    takers: dict[int, tuple[Field, list[Endpoint]]] = {}
    for endpoint in ENDPOINTS:
        for one in endpoint.fields:
            if not isinstance(one.value, Anything):
                takers.setdefault(id(one), (one, []))[1].append(endpoint)
    return [(one, endpoints if len(endpoints) < nearly_all else []) for one, endpoints in takers.values()]


def fields_without_effect() -> list[Field]:
    """Return every field that is accepted and changes nothing."""
    found = {one.name: one for endpoint in ENDPOINTS for one in endpoint.fields if isinstance(one.value, Anything)}
    return list(found.values())
