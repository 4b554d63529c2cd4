"""Why an upload gives no samples; the messages are for the person who sent it."""

from __future__ import annotations


class AudioError(Exception):
    """The uploaded bytes cannot be decoded; base of the errors below."""


class UnreadableAudio(AudioError):
    """No audio can be decoded from the bytes."""


class DecodingTooSlow(UnreadableAudio):
    """ffmpeg did not finish in time."""


class AudioTooLong(AudioError):
    """The audio is longer than the limit."""


class NoSides(AudioError):
    """The left and the right side were asked for, and the recording has none that differ."""


class DecoderMissing(AudioError):
    """ffmpeg, or what runs it, is not installed on this host."""
