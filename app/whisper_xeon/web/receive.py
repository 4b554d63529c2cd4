"""Takes in the audio of a request: as a form's file, as the bare body, or from the URL in a JSON object."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from whisper_xeon.audio.fetch import FileTooLarge, fetch
from whisper_xeon.settings import Settings
from whisper_xeon.web.errors import HttpError, invalid_value
from whisper_xeon.web.failures import answered
from whisper_xeon.web.fields import AUDIO_URL, FILE, Fields, json_fields, query_fields
from whisper_xeon.web.multipart import parse_parameters, read_form
from whisper_xeon.web.server import Request
from whisper_xeon.web.spool import Spool, SpooledFile

_FORM = "multipart/form-data"
_MAX_JSON_BYTES = 1 << 16
_FORM_OVERHEAD_BYTES = 1 << 20  # fields, part headers and boundaries around the file


@dataclass(frozen=True)
class Received:
    """One request's audio and what it says beside it."""

    upload: SpooledFile
    fields: Fields
    file_field: str  # the field that the file came in, for messages about it
    deadline: float  # when the request must be done, a `time.monotonic` value


class Receiver:
    """Takes in uploads under the settings' limits; shared by all connections."""

    def __init__(self, settings: Settings, spool: Spool):
        """`spool` holds the uploads."""
        self._settings = settings
        self._spool = spool
        # Reads the host's certificates once; SSL_CERT_FILE names others.
        self._tls = ssl.create_default_context() if settings.audio_url_allow else None

    @contextlib.contextmanager
    def upload(self, request: Request, allowed: tuple[str, ...]) -> Iterator[Received]:
        """Take in a form, or the bare audio as the body with the fields in the query; the file lives in the block.

        `allowed` are the fields beside the file. Raises `HttpError`.
        """
        too_large = HttpError(
            413,
            f"the file is larger than {self._settings.max_upload_mb} MiB, the limit for uploads on this server "
            "(WHISPER_MAX_UPLOAD_MB)",
            param=FILE,
            code="file_too_large",
            close=True,
        )
        query = query_fields(request.query)
        with SpooledFile(self._spool, self._settings.max_upload_bytes, too_large) as upload:
            if _content_kind(request) == _FORM:
                if query:
                    raise invalid_value(
                        next(iter(query)), "the fields of a form must be in the form, not in the query of the URL"
                    )
                request.body.accept(self._settings.max_upload_bytes + _FORM_OVERHEAD_BYTES, too_large)
                values = read_form(request.body.read, request.headers["content-type"], FILE, upload.write)
            elif has_audio(request):
                request.body.accept(self._settings.max_upload_bytes, too_large)
                for data in iter(request.body.read, b""):
                    upload.write(data)
                values = query
            else:
                raise HttpError(
                    415,
                    f"Content-Type must be {_FORM} with the audio in the field file, or an audio type with the audio "
                    "as the body",
                    param=FILE,
                    code="unsupported_media_type",
                )
            yield Received(upload, Fields(values, allowed, FILE), FILE, self._deadline())

    @contextlib.contextmanager
    def url(self, request: Request, allowed: tuple[str, ...]) -> Iterator[Received]:
        """Like `upload`, for a JSON object that names the file by its URL: the file is fetched from there."""
        if request.query:
            raise HttpError(
                400,
                "the fields of a JSON body must be in the body, not in the query of the URL",
                code="invalid_query",
            )
        fields = Fields(json_fields(_read_json(request)), (AUDIO_URL, *allowed), AUDIO_URL)
        url = fields.text(AUDIO_URL)
        if not url:
            raise invalid_value(AUDIO_URL, "audio_url is missing: it must be the URL of the file to transcribe")
        deadline = self._deadline()
        too_large = HttpError(
            413,
            f"the file at audio_url is larger than {self._settings.max_upload_mb} MiB, the limit on this server "
            "(WHISPER_MAX_UPLOAD_MB)",
            param=AUDIO_URL,
            code="file_too_large",
        )
        with SpooledFile(self._spool, self._settings.max_upload_bytes, too_large) as upload:
            self._fetch(request, url, upload, deadline)
            yield Received(upload, fields, AUDIO_URL, deadline)

    def _fetch(self, request: Request, url: str, upload: SpooledFile, deadline: float) -> None:
        allowed = self._settings.audio_url_allow
        if allowed is None or self._tls is None:
            raise HttpError(
                400,
                "audio_url is not available on this server (WHISPER_AUDIO_URL_ALLOW): send the audio itself in the "
                "form field file",
                param=AUDIO_URL,
                code="audio_url_not_available",
            )
        start = time.monotonic()
        try:
            with answered(AUDIO_URL, request.log):
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
            raise upload.too_large from None
        finally:
            request.log.update(fetched_bytes=upload.size, fetch_ms=round((time.monotonic() - start) * 1000, 1))

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.request_timeout


def has_audio(request: Request) -> bool:
    """Tell, by its content type, whether the body is the audio or a form with it."""
    kind = _content_kind(request)
    return kind in (_FORM, "application/octet-stream") or kind.startswith(("audio/", "video/"))


def _content_kind(request: Request) -> str:
    content_type = request.headers.get("content-type", "")
    return parse_parameters(content_type, "the header Content-Type")[0] if content_type else ""


def _read_json(request: Request) -> bytes:
    too_large = HttpError(
        413, f"the JSON body is larger than {_MAX_JSON_BYTES >> 10} KiB", code="body_too_large", close=True
    )
    request.body.accept(_MAX_JSON_BYTES, too_large)
    return b"".join(iter(request.body.read, b""))
