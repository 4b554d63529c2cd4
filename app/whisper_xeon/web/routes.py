"""The HTTP API: which path does what, what a request may say, and how every failure is answered.

OpenAI's shapes where OpenAI has one. A request is told which field is wrong and what is allowed; a field that would be
ignored is refused instead.
"""

from __future__ import annotations

import contextlib
import difflib
import hmac
import json
import math
import os
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import parse_qsl

import whisper_xeon
from whisper_package.package import Package
from whisper_xeon import metrics
from whisper_xeon.audio.decode import (
    AudioError,
    AudioTooLong,
    DecoderMissing,
    DecodingTooSlow,
    UnreadableAudio,
    decode,
)
from whisper_xeon.audio.fetch import (
    FetchCancelled,
    FetchError,
    FileTooLarge,
    HostRefused,
    HostTooSlow,
    UrlInvalid,
    UrlNotAllowed,
    fetch,
)
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.pool import (
    Cancelled,
    EngineCrashed,
    EngineError,
    EngineFailed,
    EnginePool,
    EngineRefused,
    EngineResult,
    EngineTimeout,
    EngineUnavailable,
    QueueFull,
)
from whisper_xeon.formats import FORMATS, GRANULARITIES, encode_json, render
from whisper_xeon.languages import LANGUAGES
from whisper_xeon.settings import Settings
from whisper_xeon.transcript import DecodeOptions
from whisper_xeon.web.errors import ClientGone, HttpError
from whisper_xeon.web.multipart import parse_parameters, read_form
from whisper_xeon.web.server import Request, Response
from whisper_xeon.web.spool import Reservation, Spool, SpooledFile

_FORM = "multipart/form-data"
_MAX_JSON_BYTES = 1 << 16
_FORM_OVERHEAD_BYTES = 1 << 20  # fields, part headers and boundaries around the file
_MAX_PROMPT_CHARACTERS = 4096  # of which the model sees the last 224 tokens
_DECODE_SECONDS = 60.0
_POLL_SECONDS = 0.5

# Why a state of the pool takes no requests. The reason of a failure names files of this host: it goes to the log only.
_NOT_READY = {
    "ready": "the engines are just back",
    "loading": "the model is loading",
    "failed": "the model cannot be loaded; the service's log says why",
    "stopped": "the service is stopping",
}

_OPTION_FIELDS = ("model", "language", "prompt", "temperature")
_OPENAI_FIELDS = (
    *_OPTION_FIELDS,
    "response_format",
    "timestamp_granularities[]",
    "timestamp_granularities",
    "stream",
    "chunking_strategy",
)

Handler = Callable[[Request], Response]


@dataclass(frozen=True)
class _Timed:
    """What an engine made of a request, with the seconds that each step took."""

    result: EngineResult
    decode_s: float

    @property
    def processing_seconds(self) -> float:
        """Seconds from the end of the upload to the transcript: decoding the file, waiting for an engine, computing."""
        return round(self.decode_s + self.result.wait_s + self.result.compute_s, 3)


class Application:
    """Answers requests; shared by all connections."""

    def __init__(
        self, settings: Settings, package: Package, pool: EnginePool, *, api_keys: tuple[bytes, ...], started_at: float
    ):
        """`api_keys`: empty for no check; `started_at`: seconds since 1970."""
        self._settings = settings
        self._package = package
        self._pool = pool
        self._api_keys = api_keys
        self._started_at = started_at
        self._spool = Spool(settings.spool_bytes)
        # Reads the host's certificates once; SSL_CERT_FILE names others.
        self._tls = ssl.create_default_context() if settings.audio_url_allow else None
        self._decoders = threading.BoundedSemaphore(available_cores())
        self._model_names = {
            "whisper-1",  # what OpenAI's clients send when they have no choice
            package.model,
            f"whisper-{package.model}",
            package.name,
        }
        transcribing = {"/transcribe": self._transcribe, "/v1/audio/transcriptions": self._transcriptions}
        self.metrics = metrics.Metrics(transcribing, info=self._info(), started_at=started_at)
        self._memory = metrics.Memory(lambda: (os.getpid(), *pool.pids()))
        self._routes: dict[str, dict[str, Handler]] = {
            "/health": {"GET": self._live},
            "/healthz": {"GET": self._live},
            "/readyz": {"GET": self._ready},
            "/version": {"GET": self._version},
            "/metrics": {"GET": self._metrics},
            **{path: {"POST": self._guarded(handler)} for path, handler in transcribing.items()},
        }

    def __call__(self, request: Request) -> Response:
        methods = self._routes.get(request.path)
        if methods is None:
            raise HttpError(
                404, f"there is nothing at this path; known are {', '.join(sorted(self._routes))}", code="not_found"
            )
        request.log["route"] = request.path
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            raise HttpError(405, f"this path takes {allowed}", code="method_not_allowed", headers={"Allow": allowed})
        return handler(request)

    def _guarded(self, handler: Handler) -> Handler:
        def check(request: Request) -> Response:
            if self._api_keys and not self._authorized(request):
                raise HttpError(
                    401,
                    "this server needs an API key: send the header Authorization: Bearer <key>",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            return handler(request)

        return check

    def _authorized(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given_bytes = given.strip().encode("latin-1")
        # Every key is compared, so that the time taken tells nothing about which one was close.
        matches = [hmac.compare_digest(given_bytes, key) for key in self._api_keys]
        return scheme.lower() == "bearer" and any(matches)

    def _live(self, request: Request) -> Response:
        return _json(200, {"status": "ok"})

    def _ready(self, request: Request) -> Response:
        if self._pool.state == "ready":
            return _json(200, {"status": "ready", "model": self._package.model, "release_id": self._package.release_id})
        state = self._pool.state
        return _json(503, {"status": state, "reason": _NOT_READY[state]}, {"Retry-After": "1"})

    def _info(self) -> dict[str, str]:
        """What runs, as far as it is known from the start."""
        return {
            "version": whisper_xeon.__version__,
            "model": self._package.model,
            "release_id": self._package.release_id,
            "whisper_cpp": self._package.manifest["whisper_cpp"]["version"],
            "adapter": self._settings.adapter,
        }

    def _metrics(self, request: Request) -> Response:
        page = self.metrics.render(self._pool.stats(), ready_at=self._pool.loaded_at, memory=self._memory.read())
        return Response(200, page, metrics.CONTENT_TYPE)

    def _version(self, request: Request) -> Response:
        stats = self._pool.stats()
        return _json(
            200,
            {
                **self._info(),
                "package": self._package.name,
                "quantization": self._package.quantization,
                **{name: stats[name] for name in ("cpu_variant", "cpu_variant_reason")},
                "engines": self._settings.engines,
                "threads": self._settings.threads,
                "audio_ctx": self._settings.audio_ctx,
                "state": self._pool.state,
                "started_at": _utc(self._started_at),
                "ready_at": _utc(self._pool.loaded_at),
            },
        )

    def _transcriptions(self, request: Request) -> Response:
        with self._receive(request, _OPENAI_FIELDS) as (upload, fields, deadline):
            response_format = fields.choice("response_format", FORMATS, "json")
            granularities = self._granularities(fields, response_format)
            fields.refuse_unless(
                "stream", ("false", "0", ""), "streamed answers are not available here: leave stream out"
            )
            fields.refuse_unless("chunking_strategy", ("auto", ""), "chunking_strategy can only be auto here")
            options = self._options(fields, words="word" in granularities)
            timed = self._run(request, upload, options, deadline)
        body, content_type = render(
            timed.result.transcript, response_format, temperature=options.temperature, granularities=granularities
        )
        return Response(200, body, content_type, self._result_headers(timed))

    def _transcribe(self, request: Request) -> Response:
        """Answer `duration` (of the audio) and `processing_seconds` in seconds, the other values as text."""
        receive = self._receive if _has_audio(request) else self._receive_url
        with receive(request, _OPTION_FIELDS) as (upload, fields, deadline):
            timed = self._run(request, upload, self._options(fields, words=False), deadline)
        transcript = timed.result.transcript
        body = {
            "text": transcript.text,
            "language": transcript.language,
            "duration": round(transcript.duration, 3),
            "model": self._package.model,
            "release_id": self._package.release_id,
            "request_id": request.id,
            "processing_seconds": timed.processing_seconds,
        }
        return Response(200, encode_json(body), headers=self._result_headers(timed))

    @contextlib.contextmanager
    def _receive(self, request: Request, allowed: tuple[str, ...]) -> Iterator[_Received]:
        """Take the upload in and hand out file, other fields and deadline; the file is gone after the block.

        A form, or the bare audio as the body with the fields in the query.
        """
        self._refuse_unless_serving()
        kind = _content_kind(request)
        too_large = HttpError(
            413,
            f"file is over {self._settings.max_upload_mb} MiB, the largest upload allowed here (WHISPER_MAX_UPLOAD_MB)",
            param="file",
            code="file_too_large",
            close=True,
        )
        query = _query_fields(request.query)
        with SpooledFile(self._spool, self._settings.max_upload_bytes, too_large) as upload:
            if kind == _FORM:
                if query:
                    raise _invalid(next(iter(query)), "fields of a form belong into the form, not into the address")
                request.body.accept(self._settings.max_upload_bytes + _FORM_OVERHEAD_BYTES, too_large)
                content_type = request.headers["content-type"]
                values = read_form(request.body.read, content_type, "file", upload.write)
            elif _has_audio(request):
                request.body.accept(self._settings.max_upload_bytes, too_large)
                for data in iter(request.body.read, b""):
                    upload.write(data)
                values = query
            else:
                raise HttpError(
                    415,
                    f"Content-Type must be {_FORM} with the audio in the field file, or an audio type with the audio "
                    "as the body",
                    param="file",
                    code="unsupported_media_type",
                )
            yield upload, _Fields(values, allowed), time.monotonic() + self._settings.request_timeout

    @contextlib.contextmanager
    def _receive_url(self, request: Request, allowed: tuple[str, ...]) -> Iterator[_Received]:
        """Like `_receive`, for a JSON object that names the file by its URL: the file is fetched from there."""
        self._refuse_unless_serving()
        if request.query:
            raise HttpError(400, "fields of a JSON body belong into it, not into the address", code="invalid_query")
        fields = _Fields(_json_fields(request), ("audio_url", *allowed))
        url = fields.text("audio_url")
        if not url:
            raise _invalid("audio_url", "audio_url is missing: the address of the file to transcribe")
        deadline = time.monotonic() + self._settings.request_timeout
        with SpooledFile(self._spool, self._settings.max_upload_bytes, self._url_too_large()) as upload:
            try:
                self._fetch(request, url, upload, deadline)
                yield upload, fields, deadline
            except HttpError as error:
                if error.param == "file":
                    error.param = "audio_url"
                raise

    def _fetch(self, request: Request, url: str, upload: SpooledFile, deadline: float) -> None:
        allowed = self._settings.audio_url_allow
        if allowed is None:
            raise HttpError(
                400,
                "audio_url is not available on this server (WHISPER_AUDIO_URL_ALLOW): send the audio itself in the "
                "form field file",
                param="audio_url",
                code="audio_url_not_available",
            )
        start = time.monotonic()
        try:
            fetch(
                url,
                allowed,
                upload.write,
                context=self._tls,
                maximum=self._settings.max_upload_bytes,
                deadline=deadline,
                cancelled=request.client_gone,
            )
        except FileTooLarge:
            raise self._url_too_large() from None
        except FetchError as error:
            if not isinstance(error, (UrlInvalid, FetchCancelled)):
                request.log["reason"] = str(error)
            raise _fetch_failure(error) from error
        finally:
            request.log.update(fetched_bytes=upload.size, fetch_ms=_ms(time.monotonic() - start))

    def _url_too_large(self) -> HttpError:
        return HttpError(
            413,
            f"the file at audio_url is over {self._settings.max_upload_mb} MiB, the largest allowed here "
            "(WHISPER_MAX_UPLOAD_MB)",
            param="audio_url",
            code="file_too_large",
        )

    def _refuse_unless_serving(self) -> None:
        if self._pool.state in ("failed", "stopped"):
            raise self._unavailable()

    def _options(self, fields: _Fields, *, words: bool) -> DecodeOptions:
        model = fields.text("model")
        if model and model.lower() not in self._model_names:
            raise HttpError(
                404,
                f"the model {_shown(model)} is not served here; this server serves {self._package.model} "
                f"(also by the names {', '.join(sorted(self._model_names - {self._package.model}))})",
                param="model",
                code="model_not_found",
            )
        prompt = fields.text("prompt")
        if len(prompt) > _MAX_PROMPT_CHARACTERS or "\0" in prompt:
            raise _invalid("prompt", f"prompt must be text of at most {_MAX_PROMPT_CHARACTERS} characters")
        return DecodeOptions(
            language=self._language(fields.text("language")),
            temperature=_temperature(fields.text("temperature")),
            prompt=prompt,
            word_timestamps=words,
        )

    def _language(self, text: str) -> str | None:
        wanted = text.strip().lower()
        if not wanted:
            return self._settings.language
        if wanted == "auto":
            return None
        if wanted not in LANGUAGES:
            raise _invalid(
                "language",
                f"language {_shown(text)} is not known: leave it out to detect it, or use a code of "
                f"{' '.join(sorted(LANGUAGES))}",
            )
        return wanted

    def _granularities(self, fields: _Fields, response_format: str) -> tuple[str, ...]:
        name = "timestamp_granularities[]"
        asked = tuple(fields.all(name) + fields.all("timestamp_granularities"))
        for value in asked:
            if value not in GRANULARITIES:
                raise _invalid(name, f"{name} {_shown(value)} is not known: use {' or '.join(GRANULARITIES)}")
        if asked and response_format != "verbose_json":
            raise _invalid(name, f"{name} needs response_format=verbose_json")
        return asked or ("segment",)

    def _run(self, request: Request, upload: SpooledFile, options: DecodeOptions, deadline: float) -> _Timed:
        begun = time.monotonic()
        try:
            with contextlib.ExitStack() as stack:
                with self._decoder(request, deadline):
                    start = time.monotonic()
                    seconds = min(_DECODE_SECONDS, max(1.0, deadline - start))
                    limit = self._settings.max_audio_seconds
                    held = stack.enter_context(Reservation(self._spool))
                    audio = stack.enter_context(decode(upload.fd, max_seconds=limit, timeout=seconds, grown=held.grow))
                    decode_s = time.monotonic() - start
                upload.close()
                duration = audio.duration
                request.log.update(audio_seconds=round(duration, 2), decode_ms=_ms(decode_s))
                result = self._pool.transcribe(audio, options, deadline=deadline, cancelled=request.client_gone)
        except (AudioError, EngineError) as error:
            if isinstance(error, DecodingTooSlow) and time.monotonic() >= deadline:
                raise _timeout() from error
            if isinstance(error, EngineFailed):  # the answer does not say why
                request.log["reason"] = str(error)
            raise self._failure(error) from error
        request.log.update(wait_ms=_ms(result.wait_s), compute_ms=_ms(result.compute_s), attempts=result.attempts)
        self.metrics.transcribed(audio_s=duration, wait_s=result.wait_s, total_s=time.monotonic() - begun)
        return _Timed(result, decode_s)

    @contextlib.contextmanager
    def _decoder(self, request: Request, deadline: float) -> Iterator[None]:
        """Wait for one of as many decoders as there are cores: ffmpeg's processes must not outnumber them."""
        while not self._decoders.acquire(timeout=_POLL_SECONDS):
            if request.client_gone():
                raise ClientGone
            if time.monotonic() > deadline:
                raise _timeout()
        try:
            yield
        finally:
            self._decoders.release()

    def _failure(self, error: AudioError | EngineError) -> Exception:
        return self._unavailable() if isinstance(error, EngineUnavailable) else _failure(error)

    def _unavailable(self) -> HttpError:
        return HttpError(
            503,
            f"no engine is available: {_NOT_READY[self._pool.state]}",
            code="engine_unavailable",
            headers={"Retry-After": "5"},
        )

    def _result_headers(self, timed: _Timed) -> dict[str, str]:
        result = timed.result
        steps = (("decode", timed.decode_s), ("wait", result.wait_s), ("compute", result.compute_s))
        return {
            "X-Whisper-Model": self._package.model,
            "X-Whisper-Release": self._package.release_id,
            "Server-Timing": ", ".join(f"{name};dur={_ms(seconds)}" for name, seconds in steps),
        }


class _Fields:
    """The fields of one request beside the file; only those in `allowed` may be there."""

    def __init__(self, values: dict[str, list[str]], allowed: tuple[str, ...]):
        for name in values:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                every = allowed if "audio_url" in allowed else ("file", *allowed)
                hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(every)}"
                raise HttpError(400, f"unknown field {_shown(name)}: {hint}", param=name, code="unknown_field")
        self._values = values

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str) -> str:
        """Return a field that may stand once; empty when it is left out."""
        values = self.all(name)
        if len(values) > 1:
            raise _invalid(name, f"{name} stands more than once")
        return values[0] if values else ""

    def choice(self, name: str, choices: Any, default: str) -> str:
        value = self.text(name) or default
        if value not in choices:
            raise _invalid(name, f"{name} {_shown(value)} is not known: use one of {', '.join(choices)}")
        return value

    def refuse_unless(self, name: str, allowed: tuple[str, ...], message: str) -> None:
        if self.text(name).strip().lower() not in ("", *allowed):
            raise HttpError(400, message, param=name, code="unsupported_value")


_Received = tuple[SpooledFile, _Fields, float]  # the file, the fields beside it, when the request has to be done


def _content_kind(request: Request) -> str:
    content_type = request.headers.get("content-type", "")
    return parse_parameters(content_type, "the header Content-Type")[0] if content_type else ""


def _has_audio(request: Request) -> bool:
    """Whether the body is, or holds, the audio, by its content type."""
    kind = _content_kind(request)
    return kind in (_FORM, "application/octet-stream") or kind.startswith(("audio/", "video/"))


def _json_fields(request: Request) -> dict[str, list[str]]:
    """Read the body as one JSON object of texts and numbers; null counts as left out."""
    malformed = HttpError(
        400,
        'the body is no JSON object such as {"audio_url": "https://host/file"}; audio itself is sent as '
        f"{_FORM} in the field file, or as the body with an audio type as Content-Type",
        code="invalid_json",
    )
    too_large = HttpError(413, f"JSON over {_MAX_JSON_BYTES >> 10} KiB", code="body_too_large", close=True)
    request.body.accept(_MAX_JSON_BYTES, too_large)
    body = b"".join(iter(request.body.read, b""))
    try:
        pairs = json.loads(body.decode("utf-8"), object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise malformed from None
    if not isinstance(pairs, _Pairs):
        raise malformed
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
            raise _invalid(_printable(name), f"{_shown(name)} must be a text or a number")
        if value is not None:
            fields.setdefault(_printable(name), []).append(_printable(str(value)))
    return fields


class _Pairs(list):
    """The members of a JSON object, so that one that stands twice is seen."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _printable(text: str) -> str:
    """Refuse what JSON can write and UTF-8 cannot: half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise HttpError(400, "the JSON holds half of a surrogate pair", code="invalid_json") from None
    return text


def _query_fields(query: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError:
        raise HttpError(400, "the query of the address is malformed", code="invalid_query") from None
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _temperature(text: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise _invalid("temperature", f"temperature {_shown(text)} is not a number from 0 to 1")
    return value


def _failure(error: AudioError | EngineError) -> Exception:
    """Return what answers an error of the decoder or of the engines."""
    if isinstance(error, AudioTooLong):
        return HttpError(413, str(error), param="file", code="audio_too_long")
    if isinstance(error, UnreadableAudio):
        return HttpError(422, str(error), param="file", code="audio_unreadable")
    if isinstance(error, DecoderMissing):
        return HttpError(503, str(error), code="decoder_missing")
    if isinstance(error, Cancelled):
        return ClientGone()
    if isinstance(error, QueueFull):
        return HttpError(
            503,
            "all engines are busy and the queue is full: try again later",
            code="queue_full",
            headers={"Retry-After": str(error.retry_after)},
        )
    if isinstance(error, EngineTimeout):
        return _timeout()
    if isinstance(error, EngineRefused):
        return HttpError(400, str(error), code="invalid_value")
    if isinstance(error, EngineCrashed):
        return HttpError(
            500, "the engine crashed twice on this audio; other requests are not affected", code="engine_crashed"
        )
    return HttpError(500, "the engine could not transcribe this audio", code="engine_error")


def _fetch_failure(error: FetchError) -> Exception:
    """Return what answers a file that could not be fetched."""
    if isinstance(error, FetchCancelled):
        return ClientGone()
    if isinstance(error, UrlInvalid):
        return _invalid("audio_url", f"audio_url: {error}")
    if isinstance(error, UrlNotAllowed):
        return HttpError(
            400, f"audio_url: {error} (WHISPER_AUDIO_URL_ALLOW)", param="audio_url", code="audio_url_not_allowed"
        )
    status = 422 if isinstance(error, HostRefused) else 504 if isinstance(error, HostTooSlow) else 502
    return HttpError(status, f"audio_url: {error}", param="audio_url", code="audio_url_failed")


def _invalid(param: str, message: str) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_value")


def _timeout() -> HttpError:
    return HttpError(504, "the transcription took too long (WHISPER_REQUEST_TIMEOUT)", code="timeout")


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(status, encode_json(body), headers=headers or {})


def _shown(text: str) -> str:
    """Text from the request as it may stand in a message."""
    return repr(text if len(text) <= 64 else text[:64] + "…")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
