"""The comparison behind every self-test: what a package transcribed against the text in its manifest."""

from __future__ import annotations

import unicodedata


def same_words(a: str, b: str) -> bool:
    """Compare two texts as words: case, punctuation, symbols and the amount of white space do not count."""
    return _words(a) == _words(b)


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(" " if c.isspace() else c for c in folded if unicodedata.category(c)[0] not in "PS").split()
