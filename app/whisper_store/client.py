"""The one place that creates an S3 client, so that all requests have the same timeouts, retries and checksum rules."""

from __future__ import annotations

import os
from typing import Any

import botocore.session
from botocore.config import Config

from whisper_store.settings import StoreSettings

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 4
# botocore before 1.36, such as Debian 12's in the container, has neither option and adds no checksum by itself.
CHECKSUM_OPTIONS = ("request_checksum_calculation", "response_checksum_validation")


def s3_client(settings: StoreSettings, endpoint: str | None = None) -> Any:
    """Return a botocore S3 client of the store, or of the same store under another address (`endpoint`).

    The environment's and the home directory's AWS settings are left out: what `settings` says is all there is.
    """
    # payload_signing: the request carries the SHA-256 of its body, which every SigV4 store checks, also over TLS and
    # also a store that knows none of S3's newer checksums; those are sent only where an operation requires one,
    # because stores other than AWS's reject or mishandle them.
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path", "payload_signing_enabled": True},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        tcp_keepalive=True,
        **{option: "when_required" for option in CHECKSUM_OPTIONS if option in Config.OPTION_DEFAULTS},
    )
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    return session.create_client(
        "s3",
        endpoint_url=(endpoint or settings.endpoint).rstrip("/"),
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
        verify=settings.ca_bundle,
        config=config,
    )
