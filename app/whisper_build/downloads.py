"""Download one file over HTTP(S) so that a file under its final name is always complete and has the pinned SHA-256.

It never leaves a partial file behind, never trusts a length alone, and never retries what cannot succeed.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable

Report = Callable[[str], None]

_PROGRESS_SECONDS = 5.0
_BLOCK = 1 << 20
# Answers after which a later attempt may succeed.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceError(Exception):
    """A source cannot be used; the message says which, why and what to do."""


class SourceUnavailable(SourceError):
    """A source cannot be reached or does not have the file: another one may."""


class PinMismatch(SourceError):
    """The content of a source differs from its pin: an error, never a reason to try another source."""


class _Interrupted(Exception):
    """One attempt was interrupted; what was received is kept for the next one."""


def download(
    url: str,
    destination: Path,
    sha256: str,
    *,
    report: Report,
    attempts: int = 5,
    pause: float = 2.0,
    timeout: float = 60.0,
    pinned_by: str = "versions.yml",
    elsewhere: str = "set WHISPER_XEON_CACHE to a directory on a larger disk",
) -> None:
    """Put the bytes of `url` at `destination`, checked against `sha256` (hex).

    Messages say what has the digest (`pinned_by`), and how to use another disk (`elsewhere`). After an interruption the
    next attempt resumes, after `pause` seconds, doubled each time. Raises `SourceUnavailable` if the server cannot give
    the file, `PinMismatch` if its content differs.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        transfer = _Transfer(url, partial, timeout, report, elsewhere)
        for attempt in range(1, attempts + 1):
            try:
                transfer.attempt()
                break
            except _Interrupted as error:
                if attempt == attempts:
                    raise SourceUnavailable(f"{url}: {error} ({attempts} attempts)") from None
                wait = pause * 2 ** (attempt - 1)
                report(f"{url}: {error}; trying again in {wait:g} s ({attempt} of {attempts})")
                time.sleep(wait)
        actual = transfer.digest.hexdigest()
        if actual != sha256:
            raise PinMismatch(
                f"{url} has SHA-256 {actual}, {pinned_by} pins {sha256}: "
                "the file was replaced or tampered with; find out which before you change the pin"
            )
        partial.chmod(0o444)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


class _Transfer:
    """The state that attempts share: what was received, its running digest and the validator of the file."""

    def __init__(self, url: str, partial: Path, timeout: float, report: Report, elsewhere: str):
        self.url = url
        self.partial = partial
        self.timeout = timeout
        self.report = report
        self.elsewhere = elsewhere
        self.name = url.rsplit("/", 1)[-1]
        self.received = 0
        self.digest = hashlib.sha256()
        self.validator: str | None = None

    def attempt(self) -> None:
        """Receive what is missing; raises `_Interrupted` if trying again makes sense, `SourceUnavailable` if not."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "whisper-xeon"})  # noqa: S310
        if self.received and self.validator:
            request.add_header("Range", f"bytes={self.received}-")
            request.add_header("If-Range", self.validator)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:  # noqa: S310
                self._receive(response)
        except urllib.error.HTTPError as error:
            if error.code in _PASSING_STATUS:
                raise _Interrupted(f"answered {error.code} {error.reason}") from None
            raise SourceUnavailable(f"{self.url}: answered {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, socket.gaierror) and error.reason.errno == socket.EAI_NONAME:
                raise SourceUnavailable(f"{self.url}: cannot be reached ({error.reason})") from None
            raise _Interrupted(f"cannot be reached ({error.reason})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"the connection was interrupted ({error})") from None
        except ValueError as error:
            raise SourceUnavailable(f"{self.url}: not a valid URL ({error})") from None

    def _receive(self, response: http.client.HTTPResponse) -> None:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {self.received}-"
        )
        if not resumed:
            self.received = 0
            self.digest = hashlib.sha256()
        # A weak ETag does not promise identical bytes, so it is not enough to resume.
        etag = response.headers.get("ETag", "")
        self.validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        length = response.headers.get("Content-Length")
        total = self.received + int(length) if length else None
        free = shutil.disk_usage(self.partial.parent).free
        if total is not None and free < total - self.received:
            raise SourceError(
                f"{self.url} has {total >> 20} MiB, {self.partial.parent} has {free >> 20} MiB free: "
                f"free some space, or {self.elsewhere}"
            )
        started, before = time.monotonic(), self.received
        next_report = started + _PROGRESS_SECONDS
        with open(self.partial, "ab" if resumed else "wb") as stream:
            while block := response.read(_BLOCK):
                try:
                    stream.write(block)
                except OSError as error:
                    raise SourceError(f"{self.partial.parent} cannot be written: {error.strerror}") from None
                self.digest.update(block)
                self.received += len(block)
                now = time.monotonic()
                if now >= next_report:
                    self.report(self._progress(total, before, now - started))
                    next_report = now + _PROGRESS_SECONDS
        if total is not None and self.received < total:
            raise _Interrupted(f"the connection was closed after {self.received} of {total} bytes")
        self.report(self._progress(total, before, time.monotonic() - started))

    def _progress(self, total: int | None, before: int, seconds: float) -> str:
        mebibyte = 1 << 20
        speed = (self.received - before) / mebibyte / max(seconds, 1e-3)
        if total:
            return f"{self.name}: {100 * self.received // total} % of {total / mebibyte:.1f} MiB, {speed:.1f} MiB/s"
        return f"{self.name}: {self.received / mebibyte:.1f} MiB, {speed:.1f} MiB/s"
