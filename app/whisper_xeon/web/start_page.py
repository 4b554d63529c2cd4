"""The page at /: people drop or record audio, read the transcript, hear it from any segment and take it along.

Its parts lie in `page/`; they become one document at the start, which loads nothing else.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from whisper_xeon.languages import LANGUAGES
from whisper_xeon.web import html

_PARTS = Path(__file__).with_name("page")
_STYLE, _SCRIPT, _PAGE = ((_PARTS / name).read_text("utf-8") for name in ("page.css", "page.js", "page.html"))

HEADERS = {**html.headers(style=_STYLE, script=_SCRIPT), "Permissions-Policy": "microphone=(self)"}


def page(version: str, *, keys: bool) -> bytes:
    """Return the page; with `keys` it asks for one."""
    names = sorted((name, code) for code, name in LANGUAGES.items())
    languages = "".join(f'<option value="{code}">{escape(name.title())}</option>' for name, code in names)
    filled = Template(_PAGE).substitute(
        style=_STYLE,
        script=_SCRIPT,
        version=escape(version),
        languages=languages,
        needs_key="yes" if keys else "no",
    )
    return filled.encode("utf-8")
