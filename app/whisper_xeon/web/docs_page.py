"""The table of the API as a page: HTML of its own, without scripts, made once at the start."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape

from whisper_xeon.web import html
from whisper_xeon.web.api_table import (
    ENDPOINTS,
    ERRORS,
    EXAMPLE_ANSWER,
    EXAMPLE_REQUEST,
    REJECTED,
    Endpoint,
    Field,
    documented_fields,
    fields_without_effect,
)

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem; max-width: 50rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid; border-radius: .25rem; }
dt { margin-top: 1rem; font-weight: 600; }
dd { margin: 0 0 0 1.5rem; }
nav li { display: inline-block; margin-right: 1rem; }
ul { padding-left: 1.25rem; }
nav ul { padding: 0; }
"""
HEADERS = html.headers(style=_STYLE)


_ERROR_SHAPES = {
    "openai": '<code>{"error": {"message", "type", "param", "code"}}</code>',
    "fastapi": '<code>{"detail": "…"}</code>, and <code>{"detail": [{"loc", "msg", "type"}]}</code> with 422',
}


def page(version: str, *, error_format: str = "openai") -> bytes:
    """Return the page, with the shape of errors that is one of `errors.ERROR_FORMATS`."""
    request = " \\\n  ".join(f"-F '{name}={value}'" for name, value in EXAMPLE_REQUEST.items())
    parts = [
        "<h1>Speech to text</h1>",
        f"<p>whisper-xeon {escape(version)}. The same for programs: <a href='openapi.json'>/openapi.json</a>. "
        "For people: <a href='.'>drop or record audio</a>.</p>",
        "<nav aria-label='Contents'><ul><li><a href='#example'>Example</a></li><li><a href='#endpoints'>Endpoints</a>"
        "</li><li><a href='#fields'>Fields</a></li><li><a href='#errors'>Errors</a></li></ul></nav>",
        "<main>",
        "<h2 id='example'>Example</h2>",
        _block(f"curl -F file=@call.wav \\\n  {request} \\\n  http://HOST:8000/v1/audio/transcriptions"),
        _block(json.dumps(EXAMPLE_ANSWER, indent=2)),
        "<h2 id='endpoints'>Endpoints</h2><dl>",
        *(_endpoint(endpoint) for endpoint in ENDPOINTS),
        "</dl><h2 id='fields'>Fields</h2>",
        "<p>In a form beside the audio, in the query, or in JSON. Empty, <code>null</code> and <code>undefined</code> "
        "mean left out.</p><dl>",
        *(_field(one, takers) for one, takers in documented_fields()),
        "</dl><h3>Accepted without effect</h3><p>",
        ", ".join(f"<code>{escape(one.name)}</code>" for one in fields_without_effect()),
        "</p><h2 id='errors'>Errors</h2>",
        f"<p>Each is {_ERROR_SHAPES[error_format]}. The code is in the header <code>X-Whisper-Error</code>.</p><dl>",
        *(
            f"<dt>{error.status} <code>{escape(error.code)}</code></dt><dd>{_markup(error.when)}</dd>"
            for error in ERRORS
        ),
        "</dl><h3>What is rejected</h3><ul>",
        *(f"<li>{_markup(what)}</li>" for what in REJECTED),
        "</ul></main>",
    ]
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>whisper-xeon: speech to text</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    ).encode()


def _block(text: str) -> str:
    # In the order of tabs, so that what is wider than the screen can be scrolled with keys.
    return f"<pre tabindex='0'><code>{escape(text)}</code></pre>"


def _endpoint(endpoint: Endpoint) -> str:
    also = f" Also at {_codes(endpoint.aliases)}." if endpoint.aliases else ""
    return (
        f"<dt id='{endpoint.name}'>{endpoint.method} <code>{escape(endpoint.path)}</code></dt>"
        f"<dd>{_markup(endpoint.does)}.{also}</dd>"
    )


def _field(one: Field, takers: list[Endpoint]) -> str:
    also = f" Also {_codes(one.aliases)}." if one.aliases else ""
    default = f" Default: {_markup(one.default)}." if one.default else ""
    where = f" At {_codes(endpoint.path for endpoint in takers)}." if takers else ""
    return (
        f"<dt><code>{escape(one.name)}</code></dt>"
        f"<dd>{_markup(one.effect)}. It is {escape(one.value.allowed)}.{default}{also}{where}</dd>"
    )


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(text)}</code>" for text in texts)


def _markup(text: str) -> str:
    """Turn the table's Markdown into HTML; its links lead into the repository, where this page is not."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = text.split("`")
    return "".join(f"<code>{escape(part)}</code>" if odd % 2 else escape(part) for odd, part in enumerate(parts))
