"""Finds the endpoint that a path means: clients double slashes, end with one, leave /v1 out or say it twice.

Some are given a whole endpoint where they expect the base of all, and put their path behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from whisper_xeon.web.api_table import Endpoint

_VERSION = "/v1"
_ID = "{id}"
# Azure's clients name the model in the path; Groq's API and others have /openai or /api before their own /v1.
_PREFIX = re.compile(r"(?:/api)?(?:/openai(?:/deployments/(?P<model>[^/]+))?)?(?=/)")
_VERSIONS = re.compile(r"^(?:/v1)+(?=/|$)")
_BASE = re.compile(r"^/audio/(?:transcriptions|translations)(?:/v1)?(?=/audio/(?:transcriptions|translations)$)")


class Found:
    """What is at a path: the endpoints by method, and what the path says beside them."""

    def __init__(
        self, path: str, methods: Mapping[str, Endpoint], *, identity: str = "", model: str = "", exact: bool = False
    ):
        self.path = path  # as the table has it
        self.methods = methods
        self.identity = identity  # what stands for {id}
        self.model = model  # of an Azure deployment
        # The client must ask again, by the path itself.
        self.elsewhere = not exact and any(endpoint.strictly_spelled for endpoint in methods.values())


class Paths:
    """The paths of a table of endpoints."""

    def __init__(self, endpoints: Iterable[Endpoint]):
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._with_id: dict[str, dict[str, Endpoint]] = {}
        self._canonical: dict[str, str] = {}
        for endpoint in endpoints:
            for path in (endpoint.path, *endpoint.aliases):
                table = self._with_id if path.endswith(_ID) else self._exact
                table.setdefault(path.removesuffix(_ID), {})[endpoint.method] = endpoint
                self._canonical[path.removesuffix(_ID)] = endpoint.path

    def all(self) -> list[str]:
        """Return every path of the table."""
        return sorted(set(self._canonical.values()))

    def find(self, path: str) -> Found | None:
        """Return what is at a path as the client sent it; None when nothing is there."""
        if path in self._exact:
            return Found(self._canonical[path], self._exact[path], exact=True)
        plain = re.sub(r"/{2,}", "/", path)
        prefix = _PREFIX.match(plain)
        model = unquote(prefix["model"] or "") if prefix else ""
        plain = plain[prefix.end() :] if prefix else plain
        plain = _BASE.sub("", _VERSIONS.sub("", plain.rstrip("/:"))) or "/"
        for candidate in (plain, _VERSION + plain):
            methods = self._exact.get(candidate, {})
            if methods:
                return Found(self._canonical[candidate], methods, model=model)
            for start, with_id in self._with_id.items():
                if candidate.startswith(start):
                    return Found(self._canonical[start], with_id, identity=unquote(candidate[len(start) :]))
        return None
