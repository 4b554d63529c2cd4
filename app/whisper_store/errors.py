"""What can go wrong with the store: one line that says which endpoint and object, and what to do; an exit status each.

Nothing else leaves this package: `translation` turns botocore's exceptions into these.
"""

from __future__ import annotations


class StoreError(Exception):
    """Something failed; the message is for the person who can act. `exit_status` is a command's."""

    exit_status = 1


class BadSetting(StoreError):
    """A setting is missing or invalid."""

    exit_status = 2


class NoSuchRelease(StoreError):
    """The store holds no such release, channel, or model in a channel."""

    exit_status = 3


class DigestMismatch(StoreError):
    """An object or a file is not what its manifest says."""

    exit_status = 4


class StoreUnreachable(StoreError):
    """Nothing that speaks S3 answers at the endpoint."""

    exit_status = 5


class AccessDenied(StoreError):
    """The store refuses the credentials, or they do not allow this."""

    exit_status = 5


class NoSuchBucket(StoreError):
    """The bucket does not exist."""

    exit_status = 5


class ConditionsIgnored(StoreError):
    """The store accepts a conditional write whose condition does not hold."""


class ObjectMissing(Exception):
    """Internal: the object asked for does not stand. Callers of `Store` never see it."""


class ConditionFailed(Exception):
    """Internal: the condition of a write does not hold, or another writer is at it. Callers of `Store` never see it."""
