"""What the service's two pages have in common: headers under which nothing runs but what the page itself carries."""

from __future__ import annotations

import base64
import hashlib


def headers(*, style: str, script: str = "") -> dict[str, str]:
    """Return the headers of a page with this style and this script, which may ask its own server only."""
    policy = [
        "default-src 'none'",
        f"style-src {_digest(style)}",
        *(
            [f"script-src {_digest(script)}", "connect-src 'self'", "media-src blob:", "img-src data:"]
            if script
            else []
        ),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Referrer-Policy": "no-referrer",
    }


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
