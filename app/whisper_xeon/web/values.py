"""How the text of a field becomes a value: what is allowed, how it is read, and its JSON schema.

A field's value always comes as text, whichever way it came. `read` raises `ValueError` when the text is not allowed, or
`Unavailable` when it asks for something that this server does not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from whisper_xeon.languages import LANGUAGES, find_language
from whisper_xeon.transcript import LARGEST_TOKEN, MAX_SUPPRESSED

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_TRUE = ("true", "1", "yes", "on", "y", "t")
_FALSE = ("false", "0", "no", "off", "n", "f")


class Unavailable(Exception):
    """The value is understood, and asks for what this server does not do; the message says what to do instead."""


class _LeftOut:
    """The type of `LEFT_OUT`."""


# What stands for nothing when a client writes it into a form as text.
EMPTY = frozenset(("", "null", "undefined", "none", "nil"))
LEFT_OUT = _LeftOut()  # what a value reads as that changes nothing


class Value:
    """What a field may hold. `allowed` completes "it must be …"."""

    @property
    def allowed(self) -> str:
        raise NotImplementedError

    @property
    def schema(self) -> dict[str, Any]:
        """Return a JSON schema of what a well-behaved client sends."""
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """Return the value of a text that is not empty."""
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Value):
    """A number from `low` to `high`."""

    low: float
    high: float

    @property
    def allowed(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def read(self, text: str) -> float:
        """Return the number. A comma is a decimal point, as some clients' locale writes it."""
        text = text.replace(",", ".")
        if not _NUMBER.fullmatch(text) or not self.low <= float(text) <= self.high:
            raise ValueError
        return float(text)


@dataclass(frozen=True)
class Whole(Value):
    """A whole number from `low` to `high`, also written as 5.0."""

    low: int
    high: int
    left_out: tuple[int, ...] = ()  # other numbers, which clients send for none

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    @property
    def schema(self) -> dict[str, Any]:
        numbers = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [numbers, {"enum": list(self.left_out)}]} if self.left_out else numbers

    def read(self, text: str) -> Any:
        """Return the number."""
        if not _NUMBER.fullmatch(text):
            raise ValueError
        number = float(text)
        if number in self.left_out:
            return LEFT_OUT
        if not self.low <= number <= self.high or number != int(number):
            raise ValueError
        return int(number)


@dataclass(frozen=True)
class Switch(Value):
    """True or false, which stand for `on` and `off`."""

    on: Any = True
    off: Any = False

    @property
    def allowed(self) -> str:
        return "true or false"

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def read(self, text: str) -> Any:
        """Return `on` or `off`."""
        word = text.lower()
        if word in _TRUE:
            return self.on
        if word in _FALSE:
            return self.off
        raise ValueError


@dataclass(frozen=True)
class Choice(Value):
    """One of `choices`, in any case; `others` are further words, and what they stand for."""

    choices: tuple[str, ...]
    others: tuple[tuple[str, str], ...] = ()

    @property
    def allowed(self) -> str:
        return f"one of {', '.join(self.choices)}"

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.choices)}

    def read(self, text: str) -> str:
        """Return the choice, or what stands for it."""
        word, others = text.lower(), dict(self.others)
        if word not in self.choices and word not in others:
            raise ValueError
        return others.get(word, word)


@dataclass(frozen=True)
class Several(Value):
    """Some of `choices`: repeated, as a list with commas, or as a JSON list."""

    choices: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " or ".join(self.choices)

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "enum": list(self.choices)}}

    def read(self, text: str) -> tuple[str, ...]:
        """Return the choices in the order of `choices`."""
        asked = {word.lower() for word in _items(text)}
        known = {form: choice for choice in self.choices for form in (choice, choice + "s")}
        if not asked <= known.keys():
            raise ValueError
        return tuple(choice for choice in self.choices if choice in {known[word] for word in asked})


@dataclass(frozen=True)
class Text(Value):
    """Any text. One that is longer than `limit` characters keeps its end, or its beginning."""

    limit: int
    keeps_end: bool = False

    @property
    def allowed(self) -> str:
        return f"text, of which the {'last' if self.keeps_end else 'first'} {self.limit:,} characters are used"

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string"}

    def read(self, text: str) -> str:
        """Return the text that counts, without control characters."""
        plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", " ", text)
        return plain[-self.limit :] if self.keeps_end else plain[: self.limit]


class Language(Value):
    """A language by code, name or locale; None stands for its detection."""

    @property
    def allowed(self) -> str:
        return "a language by code, name or locale, such as de, German or de-DE, or auto to have it detected"

    @property
    def schema(self) -> dict[str, Any]:
        names = [name.title() for name in LANGUAGES.values()]
        return {"type": "string", "enum": ["auto", *LANGUAGES, *names], "examples": ["de", "German", "auto"]}

    def read(self, text: str) -> str | None:
        """Return the code, or None."""
        if text.lower() in ("auto", "detect", "auto-detect", "autodetect", "automatic", "und"):
            return None
        code = find_language(text)
        if code is None:
            raise ValueError
        return code


class Tokens(Value):
    """Numbers of tokens: a list with commas, or a JSON list."""

    @property
    def allowed(self) -> str:
        return (
            f"a list of at most {MAX_SUPPRESSED} numbers of tokens such as -1,50257 (-1: all that are not speech), "
            "or []"
        )

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(\[\]|-1|[0-9]{1,4}(,[0-9]{1,4})*)$"}

    def read(self, text: str) -> tuple[int, ...]:
        """Return the numbers."""
        items = _items(text)
        if len(items) > MAX_SUPPRESSED or not all(re.fullmatch(r"-1|[0-9]{1,6}", item) for item in items):
            raise ValueError
        tokens = tuple(map(int, items))
        if any(token > LARGEST_TOKEN for token in tokens):
            raise ValueError
        return tokens


class Sides(Value):
    """Whether the sides of a stereo recording are told apart: `channel`, or empty."""

    def __init__(self, *, on: str = ""):
        """`on`: what `true` means where it has a meaning of its own."""
        self._on = on

    @property
    def allowed(self) -> str:
        return "channel, or false"

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": ["channel", "false"]}

    def read(self, text: str) -> str:
        """Return `channel` or nothing."""
        word = text.lower()
        if word in _FALSE:
            return ""
        if word in ("channel", "channels", "stereo") or (self._on and word in _TRUE):
            return "channel"
        raise Unavailable(
            "voices are not told apart here, only the two sides of a stereo recording: use diarize=channel, or leave "
            "it out"
        )


class Member(NamedTuple):
    """One member of an object: the option that it sets, and what it may hold."""

    sets: str
    value: Value


@dataclass(frozen=True)
class Members(Value):
    """A JSON object whose members set options, or one of `words` for one that is known; always sets `always` too."""

    members: Mapping[str, Member]
    words: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # what its member `type` may be
    always: tuple[tuple[str, Any], ...] = ()

    @property
    def allowed(self) -> str:
        words = [*self.words, f"a JSON object of {', '.join((*(('type',) if self.kinds else ()), *self.members))}"]
        return " or ".join(words)

    @property
    def schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {
            name: {**member.value.schema, "type": [member.value.schema["type"], "null"]}
            for name, member in self.members.items()
        }
        if self.kinds:
            properties["type"] = {"enum": [*self.kinds, *self.words, None]}
        objects = {"type": "object", "properties": properties}
        return {"anyOf": [{"type": "string", "enum": list(self.words)}, objects]} if self.words else objects

    def read(self, text: str) -> dict[str, Any]:
        """Return the options that are set. A member that nobody knows, or that is null, sets none."""
        options = dict(self.always)
        if text.lower() in (*self.words, *self.kinds):
            return options
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError from None
        if not isinstance(given, dict):
            raise ValueError
        kind = given.pop("type", None)
        if kind is not None and kind not in (*self.words, *self.kinds):
            raise ValueError
        for name, content in given.items():
            member = self.members.get(name)
            if member is None or content is None:
                continue
            if isinstance(content, (bool, str)):  # all members are numbers
                raise ValueError
            value = member.value.read(as_text(content))
            if value is not LEFT_OUT:
                options[member.sets] = value
        return options


@dataclass(frozen=True)
class Anything(Value):
    """A field that has no effect here. `missed`: elsewhere it changes the text or its times."""

    missed: bool = False

    @property
    def allowed(self) -> str:
        return "anything"

    @property
    def schema(self) -> dict[str, Any]:
        return {}

    def read(self, text: str) -> Any:
        """Return nothing."""
        return LEFT_OUT


def number_or_text(text: str) -> float | str:
    """Return a value of a form as JSON would have it."""
    return float(text) if _NUMBER.fullmatch(text) else text


def as_text(value: Any) -> str:
    """Return a value of JSON as a form would have it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _items(text: str) -> list[str]:
    """Return the items of a list with commas or of a JSON list; Python writes one with other quotes."""
    if text.startswith("["):
        try:
            listed = json.loads(text.replace("'", '"'))
        except (ValueError, RecursionError):
            raise ValueError from None
        if not all(isinstance(item, (str, int)) and not isinstance(item, bool) for item in listed):
            raise ValueError
        return [str(item).strip() for item in listed]
    return [item.strip() for item in text.split(",") if item.strip()]
