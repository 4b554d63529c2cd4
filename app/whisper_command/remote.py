"""Transcribes through a running service."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whisper_command.errors import CannotTranscribe, FileFailed, UsageError
from whisper_xeon.languages import find_language
from whisper_xeon.transcript import DecodeOptions, Segment, Transcript, Word

_BLOCK = 1 << 20
_CONNECT_SECONDS = 30
_ANSWER_SECONDS = 6 * 3600  # the service has limits of its own
_TRIES = 5  # of a file whose connection was lost
_LONGEST_PAUSE = 60
_LONGEST_WAIT = 3600  # for a service that is busy, or starts again
# A 503 with one of these is about the file, or will not go away by itself.
_FINAL = {"engines_hang", "decoder_missing"}


class Service:
    """A service at an address, asked over one connection for each file. Use it as a context manager."""

    def __init__(self, url: str, key: str, options: DecodeOptions, jobs: int):
        """Ask the service what it serves. Raises `UsageError`, `CannotTranscribe`."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not self._host or parts.username or parts.query:
            raise UsageError(f"--server: {url!r} is not the address of a service, such as http://stt.example:8000")
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._options = options
        self.jobs = jobs
        try:
            status, body, _ = self._ask("GET", "/version", None, {})
            model = json.loads(body)["model"] if status == 200 else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise CannotTranscribe(f"no service answers at {url} ({_reason(error)}): is it running there?") from None
        if model is None:
            raise CannotTranscribe(f"what answers at {url} is no whisper-xeon: /version gave status {status}")
        self.name = f"{model} at {url}"

    def transcribe(self, source: Path) -> Transcript:
        """Return the transcript of a file. Raises `FileFailed`, `CannotTranscribe` when no other would work either."""
        tries, end = 0, time.monotonic() + _LONGEST_WAIT
        while True:
            try:
                status, body, headers = self._send(source)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
                    raise FileFailed(f"cannot be read: {error.strerror}") from None
                tries += 1
                if tries == _TRIES:
                    raise FileFailed(f"the connection was lost {_TRIES} times ({_reason(error)})") from None
                time.sleep(min(_LONGEST_PAUSE, 2**tries))
                continue
            if status == 200:
                try:
                    return transcript_of(json.loads(body))
                except (ValueError, KeyError, TypeError):
                    raise FileFailed("the answer is no transcript: is a proxy in between?") from None
            message = _message(body, status)
            code = headers.get("X-Whisper-Error") or _code(body)
            if status in (401, 403):
                raise CannotTranscribe(f"{message}: name a file with the key with --key-file")
            if status not in (429, 503) or code in _FINAL or time.monotonic() > end:
                raise FileFailed(message)
            # It is busy, or starts again: it will take the file later.
            time.sleep(min(_LONGEST_PAUSE, _whole(headers.get("Retry-After"), 2)))

    def close(self) -> None:
        """Do nothing: connections are closed with their files."""

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, source: Path) -> tuple[int, bytes, http.client.HTTPMessage]:
        options = self._options
        task = "translations" if options.task == "translate" else "transcriptions"
        fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "segment")]
        fields += [("timestamp_granularities[]", "word")] if options.word_timestamps else []
        fields += [("language", options.language)] if options.language else []
        fields += [("diarize", options.diarize)] if options.diarize else []
        boundary = uuid.uuid4().hex
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields
        )
        name = source.name.translate({ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"})
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        first, last = head.encode("utf-8", "replace"), f"\r\n--{boundary}--\r\n".encode()
        size = source.stat().st_size
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(first) + size + len(last)),
        }
        return self._ask("POST", f"/v1/audio/{task}", _body(first, source, size, last), headers)

    def _ask(
        self, method: str, path: str, body: Iterator[bytes] | None, headers: dict[str, str]
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        if self._secure:
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_CONNECT_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(_ANSWER_SECONDS if method == "POST" else _CONNECT_SECONDS)
            try:
                connection.request(method, self._path + path, body, {**self._headers, **headers})
            except (BrokenPipeError, ConnectionResetError):
                # It may have answered before everything was sent, and closed: that answer is what counts.
                response = connection.response_class(connection.sock, method=method)
                response.begin()
            else:
                response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()


def _body(first: bytes, source: Path, size: int, last: bytes) -> Iterator[bytes]:
    yield first
    with open(source, "rb") as stream:
        while size > 0 and (block := stream.read(min(_BLOCK, size))):
            size -= len(block)
            yield block
    if size:
        raise OSError("the file changed while it was sent")
    yield last


def transcript_of(answer: dict[str, Any]) -> Transcript:
    """Return what a service's verbose_json says. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
    words = deque(Word(one["word"], one["start"], one["end"], one["probability"]) for one in answer.get("words", ()))
    segments = []
    for one in answer["segments"]:
        # Words are listed beside the segments that they make up, in the same order: as many as make up its text.
        own: list[Word] = []
        letters = len("".join(one["text"].split()))
        while words and letters > 0:
            letters -= len("".join(words[0].text.split()))
            own.append(words.popleft())
        segments.append(
            Segment(
                one["id"],
                one["start"],
                one["end"],
                one["text"],
                tuple(one["tokens"]),
                one["avg_logprob"],
                one["no_speech_prob"],
                tuple(own),
                one["temperature"],
                one.get("speaker", ""),
            )
        )
    return Transcript(
        answer["text"],
        find_language(answer["language"]) or answer["language"],
        answer.get("language_probability"),
        answer["duration"],
        answer["task"],
        tuple(segments),
    )


def _message(body: bytes, status: int) -> str:
    """Return the message of an error, in either format of the service."""
    try:
        answer = json.loads(body)
        if "error" in answer:
            return str(answer["error"]["message"])
        detail = answer["detail"]
        return detail if isinstance(detail, str) else str(detail[0]["msg"])
    except (ValueError, LookupError, TypeError):  # another program answered
        return f"the service answered {status}"


def _code(body: bytes) -> str:
    """Return the code of an error of a service from before the header; empty where another program answered."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _whole(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default
