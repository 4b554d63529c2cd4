"""The HTTP API: which path does what, who may use it, and what a success looks like.

OpenAI's shapes where OpenAI has one. What a request may say is in `fields`, how its audio gets here in `receive`, and
how failures are answered in `failures`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

import whisper_xeon
from whisper_package.models import ALIASES
from whisper_package.package import Package
from whisper_xeon import metrics
from whisper_xeon.audio.decode import decode
from whisper_xeon.audio.errors import DecodingTooSlow
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.outcome import EngineResult, EngineTimeout
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.formats import FORMATS, encode_json, render
from whisper_xeon.settings import Settings
from whisper_xeon.transcript import DecodeOptions
from whisper_xeon.web.errors import ClientGone, HttpError, shown
from whisper_xeon.web.failures import answered
from whisper_xeon.web.fields import OPENAI_FIELDS, OPTION_FIELDS, Fields
from whisper_xeon.web.receive import Received, Receiver, has_audio
from whisper_xeon.web.server import Request, Response
from whisper_xeon.web.spool import Reservation, Spool

_DECODE_SECONDS = 60.0
_POLL_SECONDS = 0.5

# Why no request can be taken in a state of the pool. The reason of a failure names files of this host: only the log has
# it.
_NOT_READY = {
    "loading": "the model is loading",
    "failed": "the model cannot be loaded; the service's log says why",
    "stopped": "the service is stopping",
}

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
        self._receiver = Receiver(settings, self._spool)
        self._decoders = threading.BoundedSemaphore(available_cores())
        self._model_names = {
            "whisper-1",  # what OpenAI's clients send when they have no choice
            package.model,
            f"whisper-{package.model}",
            package.name,
            *(alias for alias, model in ALIASES.items() if model == package.model),
        }
        transcribing: dict[str, Handler] = {
            "/transcribe": self._transcribe,
            "/v1/audio/transcriptions": self._transcriptions,
        }
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
                404, f"there is nothing at this path: try one of {', '.join(sorted(self._routes))}", code="not_found"
            )
        request.log["route"] = request.path
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            raise HttpError(405, f"this path accepts {allowed}", code="method_not_allowed", headers={"Allow": allowed})
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
        state = self._pool.state
        if state == "ready":
            return _json(200, {"status": "ready", "model": self._package.model, "release_id": self._package.release_id})
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
                "vad": stats["vad"] if self._settings.vad else "off",
                "state": self._pool.state,
                "started_at": _utc(self._started_at),
                "ready_at": _utc(self._pool.loaded_at),
            },
        )

    def _transcriptions(self, request: Request) -> Response:
        self._reject_unless_serving(request)
        with self._receiver.upload(request, OPENAI_FIELDS) as received:
            fields = received.fields
            response_format = fields.choice("response_format", FORMATS, "json")
            granularities = fields.granularities(response_format)
            fields.reject_unless("stream", ("false", "0"), "streaming is not available here: leave stream out")
            fields.reject_unless("chunking_strategy", ("auto",), "chunking_strategy must be auto here")
            options = self._options(fields, words="word" in granularities)
            timed = self._run(request, received, options)
        body, content_type = render(
            timed.result.transcript, response_format, temperature=options.temperature, granularities=granularities
        )
        return Response(200, body, content_type, self._result_headers(timed))

    def _transcribe(self, request: Request) -> Response:
        """Answer `duration` (of the audio) and `processing_seconds` in seconds, the other values as text."""
        self._reject_unless_serving(request)
        receive = self._receiver.upload if has_audio(request) else self._receiver.url
        with receive(request, OPTION_FIELDS) as received:
            timed = self._run(request, received, self._options(received.fields, words=False))
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

    def _reject_unless_serving(self, request: Request) -> None:
        """Answer at once, before the upload, what no engine will ever take."""
        with answered(None, request.log):
            self._pool.check_open()

    def _options(self, fields: Fields, *, words: bool) -> DecodeOptions:
        model = fields.text("model")
        if model and model.lower() not in self._model_names:
            raise HttpError(
                404,
                f"the model {shown(model)} is not served here: this server serves {self._package.model} "
                f"(also by the names {', '.join(sorted(self._model_names - {self._package.model}))})",
                param="model",
                code="model_not_found",
            )
        defaults = self._settings.decode_options()
        return dataclasses.replace(
            defaults,
            prompt=fields.prompt() or defaults.prompt,
            language=fields.language(self._settings.language),
            temperature=fields.temperature(),
            word_timestamps=words,
        )

    def _run(self, request: Request, received: Received, options: DecodeOptions) -> _Timed:
        begun = time.monotonic()
        with answered(received.file_field, request.log), contextlib.ExitStack() as stack:
            with self._decoder(request, received.deadline):
                start = time.monotonic()
                held = stack.enter_context(Reservation(self._spool))
                try:
                    audio = decode(
                        received.upload.fd,
                        max_seconds=self._settings.max_audio_seconds,
                        timeout=min(_DECODE_SECONDS, max(1.0, received.deadline - start)),
                        grown=held.grow,
                        sides=options.diarize == "channel",
                    )
                except DecodingTooSlow as error:
                    if time.monotonic() >= received.deadline:
                        raise EngineTimeout("the audio was not decoded at the deadline") from error
                    raise
                stack.enter_context(audio)
                decode_s = time.monotonic() - start
            received.upload.close()
            request.log.update(audio_seconds=round(audio.duration, 2), decode_ms=_ms(decode_s))
            result = self._pool.transcribe(audio, options, deadline=received.deadline, cancelled=request.client_gone)
        request.log.update(wait_ms=_ms(result.wait_s), compute_ms=_ms(result.compute_s), attempts=result.attempts)
        speech_s = result.transcript.speech_seconds
        if speech_s is not None:
            request.log.update(speech_seconds=round(speech_s, 2))
        self.metrics.transcribed(
            audio_s=audio.duration, speech_s=speech_s, wait_s=result.wait_s, total_s=time.monotonic() - begun
        )
        return _Timed(result, decode_s)

    @contextlib.contextmanager
    def _decoder(self, request: Request, deadline: float) -> Iterator[None]:
        """Wait for one of as many decoders as there are cores: ffmpeg's processes must not outnumber them."""
        while not self._decoders.acquire(timeout=_POLL_SECONDS):
            if request.client_gone():
                raise ClientGone
            if time.monotonic() > deadline:
                raise EngineTimeout("no decoder was free before the deadline")
        try:
            yield
        finally:
            self._decoders.release()

    def _result_headers(self, timed: _Timed) -> dict[str, str]:
        result = timed.result
        steps = (("decode", timed.decode_s), ("wait", result.wait_s), ("compute", result.compute_s))
        return {
            "X-Whisper-Model": self._package.model,
            "X-Whisper-Release": self._package.release_id,
            "Server-Timing": ", ".join(f"{name};dur={_ms(seconds)}" for name, seconds in steps),
        }


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(status, encode_json(body), headers=headers or {})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
