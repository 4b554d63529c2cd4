"""The text of one request as it grows, for somebody who reads it before the end.

What was passed on is never taken back. An attempt that is given up, because its worker was lost, has passed on the
beginning of the text; the next one begins anew, and only what goes beyond is passed on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from whisper_xeon.engine.outcome import TextChanged
from whisper_xeon.transcript import Transcript

Reader = Callable[[str, str], None]  # gets the language's code, and what is new of the text


class LiveText:
    """What all workers of one request have written. The parts passed on, joined, are the transcript's text."""

    def __init__(self, read: Reader):
        """`read` is called in the thread that adds text."""
        self._read = read
        self._passed_on = ""
        self._written = ""

    def begin(self) -> None:
        """Begin an attempt."""
        self._written = ""

    def add(self, language: str, texts: Iterable[str]) -> None:
        """Take further segments' texts, which no more change. Raises `TextChanged`, or what `read` raises."""
        self._written += "".join(texts)
        # White space at the end may turn out to be that of the whole text, which has none.
        self._pass_on(language, self._written.strip())

    def finish(self, transcript: Transcript) -> None:
        """Take the whole text. Raises `TextChanged`, or what `read` raises."""
        if not transcript.text.startswith(self._passed_on):
            raise TextChanged
        self._pass_on(transcript.language, transcript.text)

    def _pass_on(self, language: str, text: str) -> None:
        if not text.startswith(self._passed_on):
            if not self._passed_on.startswith(text):
                raise TextChanged
            return  # what an earlier attempt has written already
        new, self._passed_on = text[len(self._passed_on) :], text
        if new:
            self._read(language, new)
