"""By which names clients ask for the model that is served, and how /v1/models tells of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from whisper_package.models import ALIASES
from whisper_package.package import Package
from whisper_xeon.web.errors import HttpError, shown

# What OpenAI's clients send when they have no choice: its own models, also by date.
_OPENAI = re.compile(r"whisper-1|gpt-4o(?:-mini)?-transcribe(?:-diarize)?(?:-[0-9]{4}-[0-9]{2}-[0-9]{2})?")
# Names on the model hub: they may be of any conversion of the model that is served.
_OF_AN_OWNER = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OPENAI_NAME = "whisper-1"


def streams(name: str) -> bool:
    """Whether OpenAI's model of this name can stream its answer; it ignores `stream` for `whisper-1`."""
    return name.lower().startswith("gpt-4o") and bool(_OPENAI.fullmatch(name.lower()))


class ModelNames:
    """The names of the model that a server serves."""

    def __init__(self, package: Package, aliases: Iterable[str], *, created: float):
        """`aliases` are the operator's; `created` is what /v1/models says, in seconds since 1970."""
        self._served = package.model
        self._created = int(created)
        own = {package.name}
        for model in (package.model, *(alias for alias, meant in ALIASES.items() if meant == package.model)):
            own |= {model, f"whisper-{model}", f"ggml-{model}"}
        self._names = {name.lower() for name in (*own, *aliases)}

    def check(self, name: str) -> None:
        """Raise `HttpError` 404 for a name that means another model; no name means the one that is served."""
        if name and not self.means_served(name):
            raise HttpError(
                404,
                f"the model {shown(name)} is not served here: this server serves {self._served} "
                f"(also by the names {', '.join([_OPENAI_NAME, *sorted(self._names - {self._served})])})",
                param="model",
                code="model_not_found",
            )

    def means_served(self, name: str) -> bool:
        """Whether a client that asks for this name gets what is served."""
        return bool(name.lower() in self._names or _OPENAI.fullmatch(name.lower()) or _OF_AN_OWNER.fullmatch(name))

    def listed(self) -> list[dict[str, Any]]:
        """Return OpenAI's list of models: what is served, by its own name and by OpenAI's."""
        return [self.described(name) for name in (self._served, _OPENAI_NAME)]

    def described(self, name: str) -> dict[str, Any]:
        """Return OpenAI's object for a name that means what is served."""
        return {"id": name, "object": "model", "created": self._created, "owned_by": "whisper-xeon"}
