"""By which names clients ask for the model that is served, and how /v1/models tells of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from whisper_package.models import ALIASES, MODEL_CONFIGS
from whisper_package.package import Package
from whisper_xeon.web.errors import HttpError, shown

# What OpenAI's clients send when they have no choice: its own models, also by date.
_OPENAI = re.compile(r"whisper-1|gpt-4o(?:-mini)?-transcribe(?:-diarize)?(?:-[0-9]{4}-[0-9]{2}-[0-9]{2})?")
# Names on the model hub: they may be of any conversion of the model that is served. What ends in .bin is a file.
_OF_AN_OWNER = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?<!\.bin)")
# What says no more than that it is to be a Whisper.
_ANY = ("whisper", "default")
# A released model's name, as one of whisper.cpp's files too.
_RELEASED = re.compile(r"(?:.*/)?(?:whisper-|ggml-)?([^/]+?)(?:-(?:q[0-9]_[0-9k]|f16))?(?:\.bin)?")
_OPENAI_NAME = "whisper-1"


def streams(name: str) -> bool:
    """Whether OpenAI's model of this name can stream its answer."""
    return name.lower().startswith("gpt-4o") and bool(_OPENAI.fullmatch(name.lower()))


def ignores_stream(name: str) -> bool:
    """Whether a client that names this model, or none, does not wait for a stream even if it asks for one."""
    return name.lower() in ("", _OPENAI_NAME)


def _released(name: str) -> str:
    """Return the model that OpenAI released and that a name names bare, or as a file; empty for none."""
    match = _RELEASED.fullmatch(name.lower())
    size = ALIASES.get(match[1], match[1]) if match else ""
    return size if size in MODEL_CONFIGS else ""


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
            raise self._not_served(name)

    def check_request(self, deployment: str, name: str) -> None:
        """Check the model that a request names, and the deployment in its path, as Azure has it (empty for none).

        The operator named a deployment as they liked, and its clients send that name as the model too: it means another
        model only if it is a released one's. Raises `HttpError` 404.
        """
        if name != deployment:
            self.check(name)
        if _released(deployment) and not self.means_served(deployment):
            raise self._not_served(deployment)

    def means_served(self, name: str) -> bool:
        """Whether a client that asks for this name gets what is served."""
        plain = name.lower()
        if plain in self._names or plain in _ANY or _OPENAI.fullmatch(plain) or _OF_AN_OWNER.fullmatch(name):
            return True
        return _released(name) == self._served

    def _not_served(self, name: str) -> HttpError:
        return HttpError(
            404,
            f"the model {shown(name)} is not served here: this server serves {self._served} "
            f"(also by the names {', '.join([_OPENAI_NAME, *sorted(self._names - {self._served})])})",
            param="model",
            code="model_not_found",
        )

    def listed(self) -> list[dict[str, Any]]:
        """Return OpenAI's list of models: what is served, by its own name and by OpenAI's."""
        return [self.described(name) for name in (self._served, _OPENAI_NAME)]

    def described(self, name: str) -> dict[str, Any]:
        """Return OpenAI's object for a name that means what is served."""
        return {"id": name, "object": "model", "created": self._created, "owned_by": "whisper-xeon"}
