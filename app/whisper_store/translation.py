"""Turns what botocore raises into the errors of this package, in words for the person who can act."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import __version__ as botocore_version
from botocore import exceptions as botocore_exceptions
from botocore.parsers import ResponseParserError

from whisper_store.errors import (
    AccessDenied,
    ConditionFailed,
    DigestMismatch,
    NoSuchBucket,
    ObjectMissing,
    StoreError,
    StoreUnreachable,
)
from whisper_store.settings import StoreSettings

_CONDITION_CODES = {"PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted"}
_MISSING_CODES = {"NoSuchKey", "404", "NotFound"}
_KEY_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "InvalidToken", "ExpiredToken"}
_DENIED_CODES = {"AccessDenied", "AllAccessDisabled", "403", "Forbidden", "UnauthorizedAccess"}
_BUSY_CODES = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504"}
_FULL_CODES = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity", "507"}
_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301"}


_CONNECTION_ERRORS = (
    botocore_exceptions.ConnectionError,
    botocore_exceptions.HTTPClientError,
    botocore_exceptions.IncompleteReadError,
    botocore_exceptions.ResponseStreamingError,
)


@contextmanager
def translated(settings: StoreSettings, what: str) -> Iterator[None]:
    """Turn what botocore raises inside into this module's errors; `what` names the object or the bucket."""
    try:
        yield
    except botocore_exceptions.ClientError as error:
        raise _from_answer(error, settings, what) from None
    except botocore_exceptions.SSLError as error:
        raise StoreUnreachable(
            f"the TLS connection to the store at {settings.endpoint} failed ({_short(error)}): check the endpoint, "
            "or name the CA that signed its certificate in AWS_CA_BUNDLE"
        ) from None
    except _CONNECTION_ERRORS as error:
        raise StoreUnreachable(
            f"the store at {settings.endpoint} does not answer ({what}: {_short(error)}): "
            "check that it is running and reachable from this machine"
        ) from None
    except ResponseParserError:
        raise StoreUnreachable(
            f"{settings.endpoint} answers, but not as an S3 store ({what}): check the endpoint; it must be the S3 "
            "port, not the console's"
        ) from None
    except botocore_exceptions.ParamValidationError:
        raise StoreError(
            f"botocore {botocore_version} on this machine cannot do conditional writes, which publishing needs: "
            "install boto3 1.36 or newer (this version can only read)"
        ) from None
    except botocore_exceptions.BotoCoreError as error:
        raise StoreError(f"{what} at {settings.endpoint} failed: {_short(error)}") from None


def _from_answer(error: botocore_exceptions.ClientError, settings: StoreSettings, what: str) -> Exception:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    where = f"the store at {settings.endpoint}"
    if code in _CONDITION_CODES:
        return ConditionFailed(code)
    if code in _MISSING_CODES:
        return ObjectMissing(what)
    if code == "InvalidRange":
        return DigestMismatch(
            f"{what} in bucket {settings.bucket!r} at {settings.endpoint} is shorter than its manifest says: "
            "remove it and publish the release again"
        )
    if code == "NoSuchBucket":
        return NoSuchBucket(f"{where} has no bucket {settings.bucket!r}: create it or correct its name")
    if code in _KEY_CODES:
        return AccessDenied(
            f"{where} rejects the credentials ({code}): check the access key {settings.access_key!r} and its secret"
        )
    if code in _DENIED_CODES:
        return AccessDenied(
            f"{where} denies {what} in bucket {settings.bucket!r} to the access key {settings.access_key!r} ({code}): "
            "check the bucket's name and the policy of that account"
        )
    if code == "RequestTimeTooSkewed":
        return AccessDenied(
            f"{where} rejects the request because its clock and this machine's differ by too much: correct the clocks"
        )
    if code in _REGION_CODES:
        return StoreError(f"{where} is not in region {settings.region!r} ({code}): correct MINIO_REGION")
    if code in _FULL_CODES:
        return StoreError(f"{where} has no space left for {what} ({code}): free or add some")
    if code in _BUSY_CODES or code.startswith("XMinioServer"):
        return StoreUnreachable(f"{where} cannot serve {what} now ({code}): try again, or check its log")
    return StoreError(f"{where} rejects {what}: {code} {answer.get('Message', '')}".rstrip())


def _short(error: Exception) -> str:
    """The cause in an exception of botocore, without the endpoint and the object, which our message already names."""
    cause = error.kwargs.get("error", error) if isinstance(error, botocore_exceptions.BotoCoreError) else error
    text = str(getattr(cause, "reason", cause)).split("\n", 1)[0].rsplit(": ", 1)[-1]
    return re.sub(r"^[^(]*?\] ", "", text)  # "[Errno 111] Connection refused"
