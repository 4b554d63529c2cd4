"""One bucket: objects read, listed, written under a condition, deleted. It knows nothing about releases and channels.

Every method raises `StoreError`, and `ObjectMissing` or `ConditionFailed` only where its docstring says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from whisper_package.manifest import MAX_MANIFEST_SIZE
from whisper_store.client import s3_client
from whisper_store.errors import (
    ConditionFailed,
    DigestMismatch,
    NoSuchBucket,
    ObjectMissing,
    StoreError,
    StoreUnreachable,
)
from whisper_store.settings import StoreSettings, check_endpoint
from whisper_store.translation import translated

# A part of a large object is held in memory; S3 allows 10,000 of them, so this carries 160 GB.
PART_SIZE = 16 << 20
BODY_ATTEMPTS = 5


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it: key, size in bytes, time of the last write, ETag without its quotes."""

    key: str
    size: int
    modified: datetime
    etag: str


class Bucket:
    """The bucket that `settings` names, with its one credential. No request is sent before it is needed."""

    def __init__(self, settings: StoreSettings):
        """Create the client."""
        self.settings = settings
        self._s3 = s3_client(settings)

    def where(self, key: str) -> str:
        """Return how messages name an object."""
        return f"{key} in bucket {self.settings.bucket!r} at {self.settings.endpoint}"

    def check(self) -> None:
        """Raise unless the endpoint answers, accepts the credential, and has the bucket."""
        try:
            with translated(self.settings, "its listing"):
                self._s3.list_objects_v2(Bucket=self.settings.bucket, MaxKeys=1)
        except ObjectMissing:
            raise NoSuchBucket(
                f"the store at {self.settings.endpoint} has no bucket {self.settings.bucket!r}: create it"
            ) from None

    def read_document(self, key: str, limit: int = MAX_MANIFEST_SIZE) -> tuple[bytes, str]:
        """Return a small object's bytes and its ETag, for `replace`. Raises `ObjectMissing`.

        Of one that is larger than `limit`, no more is read than shows that.
        """
        data, etag = self.read_start(key, limit + 1)
        if len(data) > limit:
            raise DigestMismatch(f"{self.where(key)} is larger than any manifest or channel: remove it")
        return data, etag

    def read_start(self, key: str, size: int) -> tuple[bytes, str]:
        """Return the first `size` bytes of an object, or all if it has fewer, and its ETag. Raises `ObjectMissing`."""
        with translated(self.settings, key):
            answer = self._s3.get_object(Bucket=self.settings.bucket, Key=key)
            with contextlib.closing(answer["Body"]) as body:
                return body.read(size), answer["ETag"]

    def read_range(self, key: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object, from byte `start`; fewer if it ends earlier. Raises `ObjectMissing`."""
        wanted = f"bytes={start}-{start + size - 1}"
        for attempt in range(1, BODY_ATTEMPTS + 1):
            with translated(self.settings, key):
                answer = self._s3.get_object(Bucket=self.settings.bucket, Key=key, Range=wanted)
            # What ignores ranges, or names no length, could send without end.
            if answer.get("ContentLength", size + 1) > size:
                raise StoreError(f"{self.where(key)}: the store sends more than the {size} bytes that were asked for")
            try:
                with translated(self.settings, key):
                    return answer["Body"].read()
            except StoreUnreachable:
                # The client retries what fails before the body, but nothing after it.
                if attempt == BODY_ATTEMPTS:
                    raise
                time.sleep(random.uniform(0.2, 1.0) * attempt)  # noqa: S311 - spreads clients, no secret
        raise AssertionError("the last attempt returns or raises")

    def holds(self, key: str, size: int, sha256: str) -> bool:
        """Return whether an object has that content, by reading its bytes: the digest that `create` recorded was given
        by whoever wrote it. Nothing is read of an object of another size, and never more than `size`. Raises
        `ObjectMissing`.
        """
        digest, count = hashlib.sha256(), 0
        with translated(self.settings, key):
            answer = self._s3.get_object(Bucket=self.settings.bucket, Key=key)
            with contextlib.closing(answer["Body"]) as body:
                # What names no length could send without end.
                if answer.get("ContentLength") != size:
                    return False
                for block in body.iter_chunks(1 << 20):
                    count += len(block)
                    if count > size:
                        return False
                    digest.update(block)
        return count == size and digest.hexdigest() == sha256

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield every object whose key begins with `prefix`, in the order of keys."""
        token: dict[str, str] = {}
        while True:
            with translated(self.settings, prefix):
                page = self._s3.list_objects_v2(Bucket=self.settings.bucket, Prefix=prefix, **token)
            for item in page.get("Contents", []):
                yield Entry(item["Key"], item["Size"], item["LastModified"], item["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def create(self, key: str, parts: Iterable[bytes], size: int, sha256: str) -> None:
        """Write an object that does not exist yet, in one request or several. Raises `ConditionFailed` if it exists.

        `parts` yields pieces of `PART_SIZE`; what it raises passes through, and then no object exists.
        """
        target = {"Bucket": self.settings.bucket, "Key": key}
        metadata = {"sha256": sha256}
        with translated(self.settings, key):
            if size <= PART_SIZE:
                self._s3.put_object(**target, Body=b"".join(parts), IfNoneMatch="*", Metadata=metadata)
            else:
                upload_id = self._s3.create_multipart_upload(**target, Metadata=metadata)["UploadId"]
                self._send_parts({**target, "UploadId": upload_id}, parts)

    def _send_parts(self, upload: dict[str, str], parts: Iterable[bytes]) -> None:
        try:
            done = []
            for number, body in enumerate(parts, start=1):
                etag = self._s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]
                done.append({"PartNumber": number, "ETag": etag})
            self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": done}, IfNoneMatch="*")
        except BaseException:
            # Parts of an incomplete upload would stay and be paid for; the first error is the one to report.
            self._abort(upload)
            raise

    def _abort(self, upload: dict[str, str]) -> None:
        try:
            with translated(self.settings, upload["Key"]):
                self._s3.abort_multipart_upload(**upload)
        except (StoreError, ObjectMissing, ConditionFailed):
            pass

    def replace(self, key: str, body: bytes, etag: str | None) -> None:
        """Write a document over the one that was read with `etag`, or a new one if that is None.

        Raises `ConditionFailed` if the document has changed since.
        """
        condition: dict[str, Any] = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            with translated(self.settings, key):
                self._s3.put_object(
                    Bucket=self.settings.bucket, Key=key, Body=body, ContentType="application/json", **condition
                )
        except ObjectMissing:
            raise ConditionFailed("NoSuchKey") from None

    def ignored_condition(self, key: str, body: bytes, sha256: str) -> str | None:
        """Return the name of a condition on writes that this store ignores, or None when it honours them.

        It tries two writes that must fail, of the bytes that `key` already has, so that nothing changes on a store that
        ignores the conditions. A guard that silently does nothing would be worse than none.
        """
        for name, condition in (("If-None-Match", {"IfNoneMatch": "*"}), ("If-Match", {"IfMatch": f'"{"0" * 32}"'})):
            try:
                with translated(self.settings, key):
                    self._s3.put_object(
                        Bucket=self.settings.bucket, Key=key, Body=body, Metadata={"sha256": sha256}, **condition
                    )
            except ConditionFailed:
                continue
            return name
        return None

    def delete(self, key: str) -> None:
        """Delete an object; it may be gone already."""
        with translated(self.settings, key):
            self._s3.delete_object(Bucket=self.settings.bucket, Key=key)

    def abort_uploads(self, prefix: str, before: datetime) -> int:
        """Abort multipart uploads that began before a time and were never completed; return how many."""
        aborted = 0
        with translated(self.settings, prefix):
            page = self._s3.list_multipart_uploads(Bucket=self.settings.bucket, Prefix=prefix)
        for upload in page.get("Uploads", []):
            if upload["Initiated"] < before:
                self._abort({"Bucket": self.settings.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]})
                aborted += 1
        return aborted

    def signed_urls(self, keys: Iterable[str], seconds: int, endpoint: str | None = None) -> dict[str, str]:
        """Return for each key a URL that reads it, valid for `seconds`, at `endpoint` if that is another address."""
        if endpoint:
            check_endpoint(endpoint)
        client = s3_client(self.settings, endpoint)
        return {
            key: client.generate_presigned_url(
                "get_object", Params={"Bucket": self.settings.bucket, "Key": key}, ExpiresIn=seconds
            )
            for key in keys
        }
