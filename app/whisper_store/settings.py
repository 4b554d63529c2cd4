"""Where the store is and which credentials to use: the MINIO_* environment, or arguments, as one checked object.

No credential has a default, and a secret is never in an argument list: it comes from the environment or a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from whisper_package.small_files import text_of
from whisper_store.errors import BadSetting

DEFAULT_BUCKET = "whisper-artifacts"
DEFAULT_REGION = "us-east-1"

# What botocore accepts: a name without '_', or an address.
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\.?|[0-9a-f:.]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class StoreSettings:
    """A checked address, bucket and credential of a store. Raises `BadSetting` naming what is wrong."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = DEFAULT_BUCKET
    region: str = DEFAULT_REGION
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)
        if not self.access_key or not self.secret_key:
            raise BadSetting(f"the store at {self.endpoint} needs an access key and a secret key: set both")
        if not _BUCKET.fullmatch(self.bucket):
            raise BadSetting(f"{self.bucket!r} is not a valid bucket name: use 3 to 63 of a-z, 0-9, '.' and '-'")
        if self.ca_bundle and not Path(self.ca_bundle).exists():
            raise BadSetting(f"the CA bundle {self.ca_bundle} does not exist: correct AWS_CA_BUNDLE or unset it")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> StoreSettings:
        """Read MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY (or ..._FILE), MINIO_BUCKET, MINIO_REGION."""
        values = {name: _setting(environ, name) for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")}
        missing = [name for name, value in values.items() if not value]
        if missing:
            raise BadSetting(
                f"{' and '.join(missing)} must be set to reach the store; a credential may also be in a file named by "
                "MINIO_ACCESS_KEY_FILE or MINIO_SECRET_KEY_FILE"
            )
        return cls(
            endpoint=values["MINIO_ENDPOINT"],
            access_key=values["MINIO_ACCESS_KEY"],
            secret_key=values["MINIO_SECRET_KEY"],
            bucket=environ.get("MINIO_BUCKET") or DEFAULT_BUCKET,
            region=environ.get("MINIO_REGION") or DEFAULT_REGION,
            ca_bundle=ca_bundle(environ),
        )


def check_endpoint(endpoint: str) -> None:
    """Raise `BadSetting` unless `endpoint` is the bare address of an S3 store."""
    try:
        parts = urlsplit(endpoint)
        port_is_valid = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        port_is_valid = False
    if (
        not port_is_valid
        or parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(parts.hostname or "")
        or parts.username is not None
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        # The value is not repeated if it may contain a password.
        shown = "the value given" if "@" in endpoint else repr(endpoint)
        raise BadSetting(f"the store's endpoint must be http://HOST:PORT or https://HOST[:PORT], not {shown}")


def ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the CA file that the environment names for TLS, or None for botocore's own."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        path = environ.get(name)
        if path:
            place = Path(path[:4096])
            if os.path.exists(place) and not (place.is_file() or place.is_dir()):  # noqa: PTH110 - false if too long
                raise BadSetting(f"{name} names {path[:200]!r}, which is no file of certificates")
            return path
    return None


def _setting(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    file_name = environ.get(f"{name}_FILE", "")
    if value and file_name:
        raise BadSetting(f"{name} and {name}_FILE are both set: set only one")
    if not file_name:
        return value
    try:
        return text_of(file_name)
    except OSError as error:
        raise BadSetting(f"{name}_FILE names {file_name[:200]!r}, which cannot be read: {error.strerror}") from None
