"""Make the bucket of compose.store.yml's store: wait until the store answers, then see that MINIO_BUCKET is there.

It needs the store's administrator and ends at once; the service never has these credentials.
"""

from __future__ import annotations

import sys
import time

from whisper_store.client import s3_client
from whisper_store.errors import ObjectMissing, StoreError, StoreUnreachable
from whisper_store.settings import StoreSettings
from whisper_store.translation import translated

_WAIT_S = 60


def main() -> int:
    """Return 0 when the bucket is there, else the exit status of the error, which is one line."""
    try:
        settings = StoreSettings.from_environment()
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                _provide(settings)
            except StoreUnreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return 0
    except StoreError as error:
        print(f"whisper-xeon: {error}", file=sys.stderr)
        return error.exit_status


def _provide(settings: StoreSettings) -> None:
    client = s3_client(settings)
    try:
        with translated(settings, f"bucket {settings.bucket}"):
            client.head_bucket(Bucket=settings.bucket)
    except ObjectMissing:
        with translated(settings, f"bucket {settings.bucket}"):
            client.create_bucket(Bucket=settings.bucket)


if __name__ == "__main__":
    sys.exit(main())
