"""Proof that a package works on this host: its own clip, transcribed, against the text in its manifest."""

from __future__ import annotations

import os
import time
import unicodedata
from typing import Any

from whisper_xeon.package import Package
from whisper_xeon.transcript import DecodeOptions

_MAX_SECONDS = 120


def same_words(a: str, b: str) -> bool:
    """Compare two texts as words: case, punctuation, symbols and the amount of white space do not count."""
    return _words(a) == _words(b)


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(" " if c.isspace() else c for c in folded if unicodedata.category(c)[0] not in "PS").split()


def run_selftest(package: Package, threads: int | None = None) -> dict[str, Any]:
    """Load the package, transcribe its clip and return what happened; `ok` tells whether the words are right.

    Times are seconds. Raises `WhisperLibraryError` or `AudioError` when it does not come to a transcript.
    """
    from whisper_xeon.audio.decode import decode, map_samples
    from whisper_xeon.engine.adapter import WhisperLibraryAdapter

    started = time.monotonic()
    with WhisperLibraryAdapter(package=package, threads=threads) as adapter:
        adapter.prepare()
        loaded = time.monotonic()
        fd = os.open(package.selftest_audio, os.O_RDONLY | os.O_CLOEXEC)
        try:
            audio = decode(fd, max_seconds=_MAX_SECONDS)
        finally:
            os.close(fd)
        with audio:
            options = DecodeOptions(language=package.manifest["selftest"].get("language"))
            transcript = adapter.transcribe_pcm(map_samples(audio.fd, audio.samples), options)
    return {
        "ok": same_words(transcript.text, package.selftest_text),
        "model": package.model,
        "release_id": package.release_id,
        "text": transcript.text,
        "expected": package.selftest_text,
        "load_s": round(loaded - started, 3),
        "compute_s": round(time.monotonic() - loaded, 3),
    }
