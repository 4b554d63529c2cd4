"""How a run or a file fails; each message says what is wrong, where, and what to do."""

from __future__ import annotations


class UsageError(Exception):
    """The command cannot do what it was asked for."""


class CannotTranscribe(Exception):
    """Nothing can be transcribed: no model, no service, or a service that does not take the key."""


class FileFailed(Exception):
    """One file was not transcribed; others may be."""
