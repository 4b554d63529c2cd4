"""Words of others in messages: what a terminal would obey, or not show, is written out."""

from __future__ import annotations


def printable(text: str, most: int | None = None) -> str:
    """Return `text` on one line, with escapes for all that is not printable, and no more than `most` characters."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:most])
    return shown if most is None or len(shown) <= most else f"{shown[:most]}…"
