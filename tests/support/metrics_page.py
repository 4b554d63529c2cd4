"""A reader of Prometheus' text format, by a grammar of its own, and the names of what the service counts."""

from __future__ import annotations

import re

# The grammar of version 0.0.4; a label's value may hold anything but bare quotes, backslashes and line ends.
_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9.e+-]+)")


def parse(page: str) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and its labels as they are written; a line that is none fails."""
    samples, family = {}, ""
    assert page.endswith("\n")
    for line in page.splitlines():
        comment = re.fullmatch(r"# (HELP|TYPE) (whisper_[a-z_]+) (\S.*)", line)
        if comment:
            family = comment.group(2)
            continue
        name, labels, value = _SAMPLE.fullmatch(line).groups()
        assert name.startswith(family)
        key = (name, *(labels or "").split(",")) if labels else (name,)
        assert key not in samples
        samples[key] = float(value)
    return samples


def requests(route: str, status: int) -> tuple[str, ...]:
    """Return the key of the number of requests to a route that were answered with a status."""
    return ("whisper_requests_total", f'route="{route}"', f'status="{status}"')
