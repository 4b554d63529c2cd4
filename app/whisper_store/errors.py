"""What can go wrong with the store: one line that says which endpoint and object, and what to do; an exit status each.

Nothing else leaves this package: `translation` turns botocore's exceptions into these.
"""

from __future__ import annotations


class StoreError(Exception):
    """Something failed; the message is for the person who can act. `exit_status` is that of the command."""

    exit_status = 1


class BadSetting(StoreError):
    """A setting is missing or invalid."""

    exit_status = 2


class NoSuchRelease(StoreError):
    """The store has no such release, channel, or model in a channel."""

    exit_status = 3


class DigestMismatch(StoreError):
    """An object or a file differs from its manifest."""

    exit_status = 4


class Untrusted(StoreError):
    """A release is not signed by a trusted key, or is older than what was taken from its channel before."""

    exit_status = 6


class BrokenChannel(StoreError):
    """An object in the place of a channel is none."""


class StoreUnreachable(StoreError):
    """Nothing that speaks S3 answers at the endpoint."""

    exit_status = 5


class AccessDenied(StoreError):
    """The store rejects the credentials, or they do not allow this."""

    exit_status = 5


class NoSuchBucket(StoreError):
    """The bucket does not exist."""

    exit_status = 5


class ConditionsIgnored(StoreError):
    """The store performs conditional writes although their condition is not met."""


class ObjectMissing(Exception):
    """Internal: the requested object does not exist. Callers of `Store` never see it."""


class ConditionFailed(Exception):
    """Internal: the condition of a write is not met, or another write goes on. Callers of `Store` never see it."""
