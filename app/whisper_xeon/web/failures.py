"""How failures are answered: one table from what decoding, the engines and fetching raise to what the client gets.

Messages are for the person who sent the request. Where the error's own text is not (it may name files of this host),
the table has another, and the text goes to the log line of the request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from whisper_xeon.audio.errors import AudioError, AudioTooLong, DecoderMissing, NoSides, UnreadableAudio
from whisper_xeon.audio.fetch import FetchCancelled, HostRejected, HostTooSlow
from whisper_xeon.audio.url_policy import AudioUrlError, UrlInvalid, UrlNotAllowed
from whisper_xeon.engine.outcome import (
    Cancelled,
    EngineCrashed,
    EngineError,
    EngineFailed,
    EnginesHang,
    EngineStopped,
    EngineTimeout,
    EngineUnavailable,
    QueueFull,
    RequestRejected,
    TextChanged,
)
from whisper_xeon.web.errors import ClientGone, HttpError


@dataclass(frozen=True)
class Failure:
    """One kind of failure: what the client gets, and what the log line gets beside it."""

    status: int
    code: str
    message: str = "{error}"  # {error}: the error's own text
    param: str | None = None  # the field at fault
    of_file: bool = False  # the answer names the field that the file came in
    retry_after: int | None = None  # seconds; an error may know better by an attribute of this name
    logged: bool = False  # the log line has the error's own text as its reason


# The entry of an error's own class counts, else that of the nearest base.
FAILURES: dict[type[Exception], Failure] = {
    AudioError: Failure(500, "internal_error", "the audio cannot be decoded", logged=True),
    AudioTooLong: Failure(413, "audio_too_long", of_file=True),
    UnreadableAudio: Failure(422, "audio_unreadable", of_file=True),
    NoSides: Failure(400, "invalid_value", "diarize=channel tells the two channels apart: {error}", param="diarize"),
    DecoderMissing: Failure(503, "decoder_missing"),
    EngineError: Failure(500, "engine_error", "the engine could not transcribe this audio"),
    EngineFailed: Failure(500, "engine_error", "the engine could not transcribe this audio", logged=True),
    EngineCrashed: Failure(
        500, "engine_crashed", "the engine crashed twice on this audio; other requests are not affected"
    ),
    EngineTimeout: Failure(504, "timeout", "the transcription made no progress for too long (WHISPER_REQUEST_TIMEOUT)"),
    EngineUnavailable: Failure(
        503,
        "engine_unavailable",
        "no engine is available: the model cannot be loaded; the service's log says why",
        retry_after=5,
    ),
    EngineStopped: Failure(503, "engine_unavailable", "no engine is available: the service is stopping", retry_after=5),
    EnginesHang: Failure(503, "engines_hang", "the engines hung several times: try again later", retry_after=5),
    QueueFull: Failure(503, "queue_full", "all engines are busy and the queue is full: try again later"),
    TextChanged: Failure(500, "text_changed", "the text so far is not right: {error}; send the request again"),
    RequestRejected: Failure(400, "invalid_value"),
    AudioUrlError: Failure(502, "audio_url_failed", "audio_url: {error}", of_file=True, logged=True),
    UrlInvalid: Failure(400, "invalid_value", "audio_url: {error}", of_file=True),
    UrlNotAllowed: Failure(
        400, "audio_url_not_allowed", "audio_url: {error} (WHISPER_AUDIO_URL_ALLOW)", of_file=True, logged=True
    ),
    HostRejected: Failure(422, "audio_url_failed", "audio_url: {error}", of_file=True, logged=True),
    HostTooSlow: Failure(504, "audio_url_failed", "audio_url: {error}", of_file=True, logged=True),
}

# After these there is nobody left to answer.
_NOBODY_WAITS = (Cancelled, FetchCancelled)


@contextlib.contextmanager
def answered(file_field: str | None, log: dict[str, Any]) -> Iterator[None]:
    """Turn what decoding, the engines and fetching raise in the block into `HttpError` or `ClientGone`.

    `file_field` is the field that the request's file came in, if it has come. `log` gets the error's own text as
    `reason` where the table says so.
    """
    try:
        yield
    except (AudioError, AudioUrlError, EngineError) as error:
        if isinstance(error, _NOBODY_WAITS):
            raise ClientGone from error
        failure = _find(error)
        if failure.logged:
            log["reason"] = str(error)
        seconds = getattr(error, "retry_after", failure.retry_after)
        raise HttpError(
            failure.status,
            failure.message.format(error=error),
            code=failure.code,
            param=file_field if failure.of_file else failure.param,
            headers={} if seconds is None else {"Retry-After": str(seconds)},
        ) from error


def _find(error: Exception) -> Failure:
    return next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)
