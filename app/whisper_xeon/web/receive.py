"""Takes in the audio of a request: as a form's file, as the bare body, or from a URL that the request names."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from whisper_xeon.audio.fetch import FileTooLarge, fetch
from whisper_xeon.settings import Settings
from whisper_xeon.shares import Shares
from whisper_xeon.web import content
from whisper_xeon.web.api_table import AUDIO_URL, Endpoint
from whisper_xeon.web.content import Content
from whisper_xeon.web.errors import HttpError, invalid_value, shown
from whisper_xeon.web.failures import answered
from whisper_xeon.web.fields import Asked, Values, json_fields, merge, query_fields, read_fields
from whisper_xeon.web.multipart import FilePart, read_form
from whisper_xeon.web.server import Request
from whisper_xeon.web.spool import SpooledFile

_MAX_TEXT_BYTES = 1 << 16  # of a JSON object, or of fields without a file
_FORM_OVERHEAD_BYTES = 1 << 20  # fields, part headers and boundaries around the file


@dataclass(frozen=True)
class Received:
    """One request's audio and what it says beside it."""

    upload: SpooledFile
    asked: Asked
    file: FilePart  # the field that the audio came in, and what the client says that it is
    deadline: float  # when the request must be done, a `time.monotonic` value


class Receiver:
    """Takes in uploads under the settings' limits; shared by all connections."""

    def __init__(self, settings: Settings, *, uploads: Shares, spool: Shares):
        """`uploads` counts those that are being received, `spool` their bytes."""
        self._settings = settings
        self._uploads = uploads
        self._spool = spool
        # Reads the host's certificates once; SSL_CERT_FILE names others.
        self._tls = ssl.create_default_context() if settings.audio_url_allow else None

    @contextlib.contextmanager
    def audio(self, request: Request, endpoint: Endpoint) -> Iterator[Received]:
        """Take in a request to an endpoint that takes audio; the file lives in the block. Raises `HttpError`.

        The fields may be in the query, in a form, or in JSON, whichever of them the body is.
        """
        too_large = self._too_large(endpoint.file_field, "the file", close=True)
        query = query_fields(request.query)
        guest = request.connection
        with SpooledFile(self._spool, guest, self._settings.max_upload_bytes, too_large) as upload:
            with self._uploads.take(guest):
                values, file = self._read_body(request, endpoint, upload)
                asked = read_fields(merge(query, values), endpoint, strict=self._settings.strict_fields)
                deadline = time.monotonic() + self._settings.request_timeout
                if file is None or (asked.audio_url and not upload.size):
                    file = self._fetch(request, endpoint, asked, upload, deadline)
                elif asked.audio_url:
                    raise invalid_value(AUDIO_URL.name, "the request has a file and an audio_url: send one of them")
            yield Received(upload, asked, file, deadline)

    def _too_large(self, field: str, what: str, *, close: bool = False) -> HttpError:
        return HttpError(
            413,
            f"{what} is larger than {self._settings.max_upload_mb} MiB, the limit for uploads on this server "
            "(WHISPER_MAX_UPLOAD_MB)",
            param=field,
            code="file_too_large",
            close=close,
        )

    def _read_body(self, request: Request, endpoint: Endpoint, upload: SpooledFile) -> tuple[Values, FilePart | None]:
        """Return the fields that the body has, and what it says about its file, if it has one."""
        content_type = request.headers.get("content-type", "")
        kind = content.content_kind(content_type)
        maximum = self._settings.max_upload_bytes + (_FORM_OVERHEAD_BYTES if kind == content.FORM else 0)
        read = content.decoded(
            request.body.read, request.headers.get("content-encoding", ""), maximum, upload.too_large
        )
        if kind == content.FORM:
            request.body.accept(maximum, upload.too_large)
            form = read_form(read, content_type, endpoint, upload)
            return form.fields, form.file
        # What clients send text as without saying what it is.
        texts = kind in ("", "text/plain", content.URLENCODED)
        if not (texts or content.may_be_audio(kind) or (kind == content.JSON and endpoint.takes_url)):
            raise _wrong_type(kind, endpoint)
        request.body.accept(maximum, upload.too_large)
        body = Content(read)
        start = body.start()
        if kind == content.JSON or (texts and content.looks_like_json(start)):
            if not endpoint.takes_url:
                raise _wrong_type(content.JSON, endpoint)
            return json_fields(_read_text(body), _instead(endpoint)), None
        if kind == content.URLENCODED and content.looks_like_fields(start):
            if not endpoint.takes_url:
                raise _wrong_type(kind, endpoint)
            return query_fields(_read_text(body).decode("utf-8", "replace"), "the body"), None
        if not start:
            return {}, None
        if not content.may_be_audio(kind):
            raise _wrong_type(kind, endpoint)
        for data in iter(body.read, b""):
            upload.write(data)
        return {}, FilePart(endpoint.file_field, "", content_type)

    def _fetch(
        self, request: Request, endpoint: Endpoint, asked: Asked, upload: SpooledFile, deadline: float
    ) -> FilePart:
        """Fetch the file that the request names instead of having it."""
        if not asked.audio_url:
            missing = AUDIO_URL.name if request.headers.get("content-type", "").startswith(content.JSON) else None
            raise invalid_value(missing or endpoint.file_field, f"the request has no audio: {_instead(endpoint)}")
        allowed = self._settings.audio_url_allow
        if allowed is None or self._tls is None:
            raise HttpError(
                400,
                "audio_url is not available on this server (WHISPER_AUDIO_URL_ALLOW): send the audio itself in the "
                "form field file",
                param=AUDIO_URL.name,
                code="audio_url_not_available",
            )
        upload.too_large = self._too_large(AUDIO_URL.name, "the file at audio_url")
        start = time.monotonic()
        try:
            with answered(AUDIO_URL.name, request.log):
                said = fetch(
                    asked.audio_url,
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
        return FilePart(AUDIO_URL.name, said.name, said.content_type)


def _instead(endpoint: Endpoint) -> str:
    """Return how a request to an endpoint has its audio."""
    form = (
        f"send it as {content.FORM} in the field {endpoint.file_field} (with curl: -F {endpoint.file_field}=@call.wav)"
    )
    url = ', or a JSON object such as {"audio_url": "https://host/file"}' if endpoint.takes_url else ""
    return f"{form}, or as the whole body with an audio type as Content-Type{url}"


def _wrong_type(kind: str, endpoint: Endpoint) -> HttpError:
    return HttpError(
        415,
        f"the body is {shown(kind)}, and audio was expected: {_instead(endpoint)}",
        param=endpoint.file_field,
        code="unsupported_media_type",
        headers={"Accept-Post": f"{content.FORM}, audio/*, video/*, application/octet-stream"},
    )


def _read_text(body: Content) -> bytes:
    text = b""
    for data in iter(body.read, b""):
        text += data
        if len(text) > _MAX_TEXT_BYTES:
            raise HttpError(
                413,
                f"the body is larger than {_MAX_TEXT_BYTES >> 10} KiB, the limit for JSON and for fields "
                "without a file",
                code="body_too_large",
                close=True,
            )
    return text
