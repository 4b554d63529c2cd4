"""The HTTP API: what each endpoint of the table does, who may use it, and what a success looks like.

What a request may say is in `api_table` and `fields`, how its audio gets here in `receive`, and how failures are
answered in `failures`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import quote

import whisper_xeon
from whisper_package.package import Package
from whisper_xeon import metrics
from whisper_xeon.audio.decode import DIRECT_SECONDS, SAMPLE_RATE, PcmAudio, decode, plain_seconds
from whisper_xeon.audio.errors import DecodingTooSlow
from whisper_xeon.audio.file_types import WEBSERVICE_PCM, FileHint
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.live_text import Reader
from whisper_xeon.engine.outcome import Cancelled, EngineResult, EngineTimeout
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.footprint import Footprint, open_own
from whisper_xeon.formats import JSON_TYPE, Shape, encode_json, json_parts, openai_whisper_json, render
from whisper_xeon.languages import LANGUAGES
from whisper_xeon.settings import Settings
from whisper_xeon.shares import Hold, Shares
from whisper_xeon.transcript import DecodeOptions, Transcript
from whisper_xeon.web import docs_page, events, openapi, start_page
from whisper_xeon.web.access import Keys
from whisper_xeon.web.api_table import ENDPOINTS, Endpoint
from whisper_xeon.web.decoders import Decoders
from whisper_xeon.web.errors import ClientGone, HttpError, invalid_value
from whisper_xeon.web.failures import answered
from whisper_xeon.web.fields import Asked
from whisper_xeon.web.framing import Limits
from whisper_xeon.web.key_file import KEY, KeyFile
from whisper_xeon.web.model_names import ModelNames
from whisper_xeon.web.overload import overloads_answered
from whisper_xeon.web.paths import Found, Paths
from whisper_xeon.web.receive import Received, Receiver
from whisper_xeon.web.server import Request, Response

_DECODE_SECONDS = 60.0  # for any file, and for each MiB of it:
_DECODE_SECONDS_PER_MIB = 4.0
_DETECTED_SECONDS = 120  # of a recording are listened to for its language
_MAX_IGNORED_NAMES = 20  # that an answer and the log tell of
_MAX_NAME = 64  # characters of each, and of all together, escaped and with what separates them:
_MAX_NAMES = 1000

# Why no request can be taken in a state of the pool. The reason of a failure names files of this host: only the log has
# it.
_NOT_READY = {
    "loading": "the model is loading",
    "failed": "the model cannot be loaded; the service's log says why",
    "stopped": "the service is stopping",
    "hanging": "no engine shows that it works; those that hang are being replaced",
}

Handler = Callable[[Request, Endpoint, Found], Response]


@dataclass(frozen=True)
class _Timed:
    """What an engine made of a request, with the seconds that each step took."""

    result: EngineResult
    asked: Asked
    decode_s: float

    @property
    def transcript(self) -> Transcript:
        return self.result.transcript

    @property
    def processing_seconds(self) -> float:
        """Seconds from the end of the upload to the transcript: decoding the file, waiting for an engine, computing."""
        return round(self.decode_s + self.result.wait_s + self.result.compute_s, 3)


class Application:
    """Answers requests; shared by all connections."""

    def __init__(
        self, settings: Settings, package: Package, pool: EnginePool, *, api_keys: KeyFile | None, started_at: float
    ):
        """`api_keys`: None for no check; `started_at`: seconds since 1970."""
        self._settings = settings
        self._package = package
        self._pool = pool
        self._keys = Keys(api_keys.current if api_keys else None)
        self._started_at = started_at
        has_keys, takes_urls = api_keys is not None, bool(settings.audio_url_allow)
        self._spool = Shares("spool", settings.spool_bytes)
        self._receiver = Receiver(settings, uploads=Shares("uploads", Limits.uploads), spool=self._spool)
        self._decoders = Decoders(available_cores())
        self._models = ModelNames(package, settings.model_aliases or (), created=started_at)
        self._paths = Paths(ENDPOINTS)
        self._handlers: dict[str, Handler] = {
            "transcriptions": self._transcribe,
            "translations": self._transcribe,
            "transcribe": self._transcribe,
            "inference": self._transcribe,
            "asr": self._transcribe,
            "detect_language": self._detect_language,
            "models": self._list_models,
            "model": self._describe_model,
            "openapi": _fixed(
                encode_json(
                    openapi.document(
                        whisper_xeon.__version__, keys=has_keys, urls=takes_urls, error_format=settings.error_format
                    )
                ),
                JSON_TYPE,
            ),
            "docs": _fixed(
                docs_page.page(whisper_xeon.__version__, error_format=settings.error_format),
                "text/html; charset=utf-8",
                docs_page.HEADERS,
            ),
            "page": _fixed(
                start_page.page(whisper_xeon.__version__, keys=bool(api_keys)),
                "text/html; charset=utf-8",
                start_page.HEADERS,
            ),
            "health": self._live,
            "ready": self._ready,
            "version": self._version,
            "metrics": self._metrics,
        }
        transcribing = [endpoint.path for endpoint in ENDPOINTS if endpoint.transcribes]
        self.metrics = metrics.Metrics(transcribing, info=self._info(), started_at=started_at)
        own = Footprint(open_own())
        self._memory = metrics.Memory(lambda: (own, *pool.footprints()))

    def __call__(self, request: Request) -> Response:
        with overloads_answered():
            return self._answer(request)

    def _answer(self, request: Request) -> Response:
        found = self._paths.find(request.path)
        # At / there is a page for people; a client that sends something there has lost its path.
        if found is None or (request.path == "/" and request.method not in ("GET", "HEAD")):
            raise HttpError(
                404, f"there is nothing at this path: try one of {', '.join(self._paths.all())}", code="not_found"
            )
        request.log["route"] = found.path
        if found.elsewhere:
            return _json(308, {"location": found.path}, {"Location": found.path})
        endpoint = found.methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            allowed = ", ".join([*found.methods, *(["HEAD"] if "GET" in found.methods else [])])
            raise HttpError(
                405,
                f"this path accepts {allowed}, not {request.method}",
                code="method_not_allowed",
                headers={"Allow": allowed},
            )
        if endpoint.transcribes:
            self._identify(request)
            self._reject_unless_serving(request)
        return self._handlers[endpoint.name](request, endpoint, found)

    def _identify(self, request: Request) -> None:
        """Let the request count as its key's. Raises `HttpError` 401, or `OverLimit`."""
        caller = self._keys.caller(request.headers, request.connection.caller.id)
        if caller:
            request.log["key"] = caller.id.removeprefix(KEY)
            request.connection.identify(caller)

    def _live(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        return _json(200, {"status": "ok"})

    def _ready(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        state = self._pool.readiness()
        if state == "ready":
            return _json(200, {"status": "ready", "model": self._package.model, "release_id": self._package.release_id})
        body = {"status": state, "reason": _NOT_READY[state]}
        if self._settings.error_format == "fastapi":
            body["detail"] = body["reason"]
        return _json(503, body, {"Retry-After": "1"})

    def _info(self) -> dict[str, str]:
        """What runs, as far as it is known from the start."""
        return {
            "version": whisper_xeon.__version__,
            "model": self._package.model,
            "release_id": self._package.release_id,
            "whisper_cpp": self._package.manifest["whisper_cpp"]["version"],
            "adapter": self._settings.adapter,
        }

    def _metrics(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        page = self.metrics.render(self._pool.stats(), ready_at=self._pool.loaded_at, memory=self._memory.read())
        return Response(200, page, metrics.CONTENT_TYPE)

    def _version(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
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

    def _list_models(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        return _json(200, {"object": "list", "data": self._models.listed()})

    def _describe_model(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        self._models.check(found.identity)
        return _json(200, self._models.described(found.identity))

    def _transcribe(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        with self._receiver.audio(request, endpoint) as received:
            asked = received.asked
            self._models.check_request(found.model, asked.model)
            response_format = asked.response_format or endpoint.format
            options = asked.decode_options(self._defaults(), endpoint.always)
            if response_format == "diarized_json" and not options.diarize:
                raise invalid_value("response_format", "diarized_json needs diarize=channel and a stereo recording")
            shape = _shape(asked, options, response_format, endpoint)
            options = dataclasses.replace(options, word_timestamps=shape.words, token_logprobs=shape.logprobs)
            timed = self._run(request, received, options, read=self._reader(request, asked) if asked.stream else None)
        if response_format == "json" and endpoint.name == "transcribe":
            body, content_type = encode_json(self._own_json(request, timed, shape)), JSON_TYPE
        elif response_format == "json" and endpoint.name == "asr":
            body, content_type = openai_whisper_json(timed.transcript, shape), JSON_TYPE
        else:
            body, content_type = render(timed.transcript, response_format, shape)
        if asked.stream:
            body, content_type = events.done(json.loads(body)), events.EVENTS_TYPE
        return Response(200, body, content_type, self._result_headers(timed))

    def _reader(self, request: Request, asked: Asked) -> Reader:
        """Return what sends the client each further part of the text."""
        begun = False

        def read(language: str, text: str) -> None:
            nonlocal begun
            try:
                if not begun:
                    request.begin(self._transcript_headers(language, asked))
                    begun = True
                request.send(events.delta(text))
            except ClientGone as gone:
                raise Cancelled("the client left in the middle of its answer") from gone

        return read

    def _defaults(self) -> DecodeOptions:
        """Return what a request starts from."""
        return self._settings.decode_options()

    def _own_json(self, request: Request, timed: _Timed, shape: Shape) -> dict[str, Any]:
        """Return the answer of /transcribe: `duration` (of the audio) and `processing_seconds` are in seconds."""
        transcript = timed.transcript
        return {
            "text": transcript.text,
            "language": transcript.language,
            "language_probability": transcript.language_probability and round(transcript.language_probability, 4),
            "duration": round(transcript.duration, 3),
            **json_parts(transcript, shape),
            "model": self._package.model,
            "release_id": self._package.release_id,
            "request_id": request.id,
            "processing_seconds": timed.processing_seconds,
        }

    def _detect_language(self, request: Request, endpoint: Endpoint, found: Found) -> Response:
        with self._receiver.audio(request, endpoint) as received:
            self._models.check_request(found.model, received.asked.model)
            options = received.asked.decode_options(self._defaults(), endpoint.always)
            timed = self._run(request, received, options, seconds=_DETECTED_SECONDS)
        transcript = timed.transcript
        body = {
            "detected_language": LANGUAGES[transcript.language],
            "language_code": transcript.language,
            "confidence": 1.0 if transcript.language_probability is None else round(transcript.language_probability, 4),
        }
        return Response(200, encode_json(body), headers=self._result_headers(timed))

    def _reject_unless_serving(self, request: Request) -> None:
        """Answer at once, before the upload, what no engine will ever take."""
        with answered(None, request.log):
            self._pool.check_open()

    def _run(
        self,
        request: Request,
        received: Received,
        options: DecodeOptions,
        *,
        seconds: int | None = None,
        read: Reader | None = None,
    ) -> _Timed:
        """Decode and transcribe the audio, or its first `seconds`; `read` gets the text on the way."""
        begun = time.monotonic()
        if received.asked.ignored:
            request.log["ignored"] = _names(received.asked.ignored)
        with answered(received.file.field, request.log), contextlib.ExitStack() as stack:
            held = stack.enter_context(Hold(self._spool, request.connection))
            audio, decode_s = self._decode(request, received, held, sides=options.diarize == "channel")
            stack.enter_context(audio)
            if seconds is not None:
                audio.samples = min(audio.samples, seconds * SAMPLE_RATE)
            received.upload.close()
            request.log.update(audio_seconds=round(audio.duration, 2), decode_ms=_ms(decode_s))
            result = self._pool.transcribe(
                audio,
                options,
                deadline=received.deadline + self._untold_seconds(audio),
                patience=self._settings.request_timeout,
                cancelled=request.client_gone,
                read=read,
                guest=request.connection,
            )
        request.log.update(wait_ms=_ms(result.wait_s), compute_ms=_ms(result.compute_s), attempts=result.attempts)
        speech_s = result.transcript.speech_seconds
        if speech_s is not None:
            request.log.update(speech_seconds=round(speech_s, 2))
        again = result.transcript.decoded_again
        if again:
            request.log.update(decoded_again=True)
        self.metrics.transcribed(
            audio_s=audio.duration,
            speech_s=speech_s,
            wait_s=result.wait_s,
            total_s=time.monotonic() - begun,
            again=again,
        )
        return _Timed(result, received.asked, decode_s)

    def _untold_seconds(self, audio: PcmAudio) -> float:
        """Return how much later the deadline is because the engine does not tell how far it has got."""
        return audio.duration * len(audio.fds) if self._settings.adapter == "cli" else 0.0

    def _decode(self, request: Request, received: Received, held: Hold, *, sides: bool) -> tuple[PcmAudio, float]:
        """Return the file's audio, and the seconds that it took to decode; `held` grows with it."""
        fd = received.upload.fd
        plain_s = plain_seconds(fd)

        def still_wanted() -> None:
            if request.client_gone():
                raise ClientGone
            if time.monotonic() > received.deadline:
                raise EngineTimeout("the audio was not decoded at the deadline")

        def work(look: Callable[[], None]) -> tuple[PcmAudio, float]:
            start = time.monotonic()

            def grown(size: int) -> None:
                held.grow(size)
                still_wanted()
                look()

            audio = decode(
                fd,
                max_seconds=self._settings.max_audio_seconds,
                timeout=min(_decode_seconds(received.upload.size), max(1.0, received.deadline - start)),
                grown=grown,
                hint=FileHint(
                    received.file.content_type,
                    received.file.file_name,
                    None if received.asked.encode else WEBSERVICE_PCM,
                ),
                sides=sides,
            )
            return audio, time.monotonic() - start

        if plain_s is not None and plain_s <= DIRECT_SECONDS and not sides:
            return work(lambda: None)
        try:
            return self._decoders.run(request.connection, work, plain=plain_s is not None, still_wanted=still_wanted)
        except DecodingTooSlow as error:
            if time.monotonic() >= received.deadline:
                raise EngineTimeout("the audio was not decoded at the deadline") from error
            raise

    def _result_headers(self, timed: _Timed) -> dict[str, str]:
        result = timed.result
        steps = (("decode", timed.decode_s), ("wait", result.wait_s), ("compute", result.compute_s))
        return {
            **self._transcript_headers(timed.transcript.language, timed.asked),
            "Server-Timing": ", ".join(f"{name};dur={_ms(seconds)}" for name, seconds in steps),
        }

    def _transcript_headers(self, language: str, asked: Asked) -> dict[str, str]:
        ignored = _names(asked.ignored)
        return {
            "X-Whisper-Model": self._package.model,
            "X-Whisper-Release": self._package.release_id,
            "X-Whisper-Language": language,
            **({"X-Whisper-Ignored": ", ".join(ignored)} if ignored else {}),
        }


def _shape(asked: Asked, options: DecodeOptions, response_format: str, endpoint: Endpoint) -> Shape:
    """Return what a JSON answer is to have beside the text."""
    if response_format not in ("json", "verbose_json"):
        return Shape()
    nested = endpoint.name in ("inference", "asr")  # words are in their segments
    verbose = response_format == "verbose_json" or endpoint.name == "asr"
    words = "word" in asked.granularities or options.word_timestamps
    if endpoint.name == "inference" and verbose:
        words = not asked.no_timestamps
    return Shape(
        segments="segment" in asked.granularities or (verbose and (nested or "word" not in asked.granularities)),
        words=words,
        logprobs="logprobs" in asked.include,
        words_in_segments=nested,
    )


def _decode_seconds(size: int) -> float:
    """Return how long ffmpeg may take for a file of `size` bytes: hours of speech are a few MiB an hour."""
    return _DECODE_SECONDS + size / (1 << 20) * _DECODE_SECONDS_PER_MIB


def _names(ignored: tuple[str, ...]) -> list[str]:
    """Return names of fields as a header and the log may have them: some, short, escaped as in a URL."""
    names: list[str] = []
    for name in ignored[:_MAX_IGNORED_NAMES]:
        names.append(quote(name[:_MAX_NAME], safe="[]") or '""')
        if len(", ".join(names)) > _MAX_NAMES:
            names.pop()
            break
    return [*names, *(["..."] if len(ignored) > len(names) else [])]


def _fixed(body: bytes, content_type: str, headers: dict[str, str] | None = None) -> Handler:
    """Return the handler of what never changes."""
    return lambda request, endpoint, found: Response(200, body, content_type, dict(headers or {}))


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(status, encode_json(body), headers=headers or {})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
