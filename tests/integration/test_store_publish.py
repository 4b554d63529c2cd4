"""Publishing to the real store: layout, order, immutability, interruption, two publishers, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import uuid

import pytest
from botocore.exceptions import ClientError

from minio_server import PORT
from sealed_packages import variant
from signing import TRUSTED
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME
from whisper_store.bucket import PART_SIZE, Bucket
from whisper_store.client import s3_client
from whisper_store.errors import (
    AccessDenied,
    DigestMismatch,
    NoSuchBucket,
    NoSuchRelease,
    StoreError,
    StoreUnreachable,
    Untrusted,
)
from whisper_store.store import Store, release_key


@pytest.fixture
def store(minio):
    return minio.store("publisher")


@pytest.fixture
def reader(minio):
    return minio.store("reader")


@pytest.fixture
def bucket(minio):
    """The bucket as its administrator sees it."""
    settings = minio.settings("root")
    client = s3_client(settings)

    class Bucket:
        def keys(self, prefix):
            answer = client.list_objects_v2(Bucket=settings.bucket, Prefix=prefix)
            return {entry["Key"]: entry["LastModified"] for entry in answer.get("Contents", [])}

        def get(self, key):
            return client.get_object(Bucket=settings.bucket, Key=key)["Body"].read()

        def put(self, key, body, **metadata):
            client.put_object(Bucket=settings.bucket, Key=key, Body=body, Metadata=metadata)

        def delete(self, key):
            client.delete_object(Bucket=settings.bucket, Key=key)

        def open_uploads(self):
            return client.list_multipart_uploads(Bucket=settings.bucket).get("Uploads", [])

    return Bucket()


@pytest.fixture
def channel():
    """A channel that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def fresh_package(small_package, tmp_path):
    """A package that the store does not hold; one file is sent in several parts."""
    return variant(small_package, tmp_path, {"NEW": uuid.uuid4().bytes, "large.bin": os.urandom(PART_SIZE * 2 + 1)})


def test_every_file_lands_under_the_release_id(store, bucket, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    prefix = f"releases/{fresh_package.release_id}/{fresh_package.name}/"
    expected = {entry["path"] for entry in fresh_package.manifest["files"]} | {MANIFEST_NAME, SIGNATURE_NAME}
    expected = {prefix + path for path in expected}
    assert set(bucket.keys(f"releases/{fresh_package.release_id}/")) == expected


def test_objects_hold_the_bytes_of_the_package(store, bucket, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    key = release_key(fresh_package.release_id, fresh_package.name, "large.bin")
    assert bucket.get(key) == fresh_package.path("large.bin").read_bytes()


def test_manifest_is_the_last_file_of_a_release(store, bucket, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    times = bucket.keys(f"releases/{fresh_package.release_id}/")
    assert max(times, key=times.get).endswith(MANIFEST_NAME)


def test_channel_names_release_package_and_manifest_digest(store, bucket, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    assert json.loads(bucket.get(f"channels/{channel}.json")) == {
        "schema_version": 1,
        "models": {
            "small": {
                "release_id": fresh_package.release_id,
                "package": "whisper_small_xeon",
                "manifest_sha256": fresh_package.manifest_digest,
            }
        },
    }


def test_publishing_again_uploads_nothing(store, bucket, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    times = bucket.keys("")
    again = store.publish(fresh_package.directory, channel)
    assert (again.uploaded, again.uploaded_bytes, again.changed) == ([], 0, False)
    assert bucket.keys("") == times


def test_second_model_leaves_the_first_in_the_channel(store, channel, small_package, medium_package):
    store.publish(small_package.directory, channel)
    store.publish(medium_package.directory, channel)
    assert store.resolve("small", channel).release_id == small_package.release_id
    assert store.resolve("medium", channel).release_id == medium_package.release_id


def test_dry_run_writes_nothing(store, bucket, channel, fresh_package):
    planned = store.publish(fresh_package.directory, channel, dry_run=True)
    assert planned.changed
    assert "large.bin" in planned.uploaded
    assert bucket.keys(f"releases/{fresh_package.release_id}/") == {}
    assert bucket.keys(f"channels/{channel}") == {}


def test_release_is_found_by_its_id(reader, store, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    found = reader.resolve("small", release=fresh_package.release_id)
    assert found.manifest == fresh_package.manifest


def test_signed_url_is_good_under_the_other_endpoint(minio, reader, store, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    urls = reader.signed_urls(reader.resolve("small", channel), 60, f"http://localhost:{PORT}")
    answer = subprocess.run(["curl", "-sS", "--fail", urls["NEW"]], capture_output=True, check=True)
    assert answer.stdout == fresh_package.path("NEW").read_bytes()


def test_signed_urls_cover_the_manifest(reader, store, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    release = reader.resolve("small", channel)
    assert set(reader.signed_urls(release, 60)) == {entry["path"] for entry in release.files}
    assert MANIFEST_NAME in reader.signed_urls(release, 60)


def _publish_and_die(settings, directory, channel, before_upload):
    """Kill this process with SIGKILL just before it sends the file with that number."""
    seen = []

    def log(line):
        seen.append(line)
        if len(seen) == before_upload:
            os.kill(os.getpid(), signal.SIGKILL)

    Store(settings, log=log, trusted=TRUSTED).publish(directory, channel)


@pytest.mark.parametrize("before_upload", [1, 2, 5, "last", "channel"])
def test_killed_publish_shows_nothing_and_the_next_one_completes_it(
    minio, store, reader, bucket, channel, fresh_package, small_package, before_upload
):
    store.publish(small_package.directory, channel)
    count = len(fresh_package.files) + 1  # and the signature
    before_upload = {"last": count, "channel": count + 1}.get(before_upload, before_upload)
    # The line about the channel is logged once it is written, so dying at that point is dying after the switch.
    arguments = (minio.settings("publisher"), fresh_package.directory, channel, before_upload)
    process = multiprocessing.get_context("spawn").Process(target=_publish_and_die, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    current = reader.resolve("small", channel).release_id
    assert current == (fresh_package.release_id if before_upload == count + 1 else small_package.release_id)
    done = store.publish(fresh_package.directory, channel)
    assert len(done.uploaded) == count - (before_upload - 1)
    assert reader.resolve("small", channel).release_id == fresh_package.release_id


def test_failed_large_upload_leaves_no_parts(store, bucket, channel, fresh_package, monkeypatch):
    def fail(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.bucket._s3, "complete_multipart_upload", fail)
    with pytest.raises(KeyboardInterrupt):
        store.publish(fresh_package.directory, channel)
    assert bucket.open_uploads() == []


def _publish(settings, directory, channel, start):
    start.wait()
    Store(settings, trusted=TRUSTED).publish(directory, channel)


def test_two_publishers_to_one_channel_lose_nothing(minio, reader, small_package, medium_package):
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        channel = f"test-{uuid.uuid4().hex[:12]}"
        start = context.Barrier(2)
        both = [
            context.Process(target=_publish, args=(minio.settings("publisher"), package.directory, channel, start))
            for package in (small_package, medium_package)
        ]
        for process in both:
            process.start()
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
        assert set(reader.read_channel(channel).models) == {"small", "medium"}


def test_two_publishers_of_one_release_agree(minio, reader, channel, fresh_package):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    both = [
        context.Process(target=_publish, args=(minio.settings("publisher"), fresh_package.directory, channel, start))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert reader.resolve("small", channel).release_id == fresh_package.release_id


def test_stale_channel_is_not_written_over(store, channel, small_package, medium_package):
    before = store.read_channel(channel)
    store.publish(small_package.directory, channel)
    entry = {
        "release_id": medium_package.release_id,
        "package": medium_package.name,
        "manifest_sha256": medium_package.manifest_digest,
    }
    store.point(before, {"medium": entry})
    assert set(store.read_channel(channel).models) == {"small", "medium"}


def test_tampered_package_is_refused_before_anything_is_sent(store, bucket, channel, fresh_package):
    path = fresh_package.path("NEW")
    path.write_bytes(bytes(reversed(path.read_bytes())))
    with pytest.raises(DigestMismatch, match=r"NEW differs from its manifest \(SHA-256\)"):
        store.publish(fresh_package.directory, channel)
    assert bucket.keys(f"releases/{fresh_package.release_id}/") == {}


def test_altered_object_is_reported_and_never_overwritten(store, bucket, channel, fresh_package):
    store.publish(fresh_package.directory, channel)
    key = release_key(fresh_package.release_id, fresh_package.name, "NEW")
    bucket.put(key, b"other content!!!")
    with pytest.raises(DigestMismatch, match="releases never change"):
        store.publish(fresh_package.directory, channel)
    assert bucket.get(key) == b"other content!!!"


def test_object_put_there_before_a_release_is_read_whatever_it_says_of_itself(store, bucket, channel, fresh_package):
    # Releases are reproducible, so the id of the next one is known to others as well.
    (entry,) = (file for file in fresh_package.files if file["path"] == "NEW")
    key = release_key(fresh_package.release_id, fresh_package.name, "NEW")
    rotten = bytes(reversed(fresh_package.path("NEW").read_bytes()))
    bucket.put(key, rotten, sha256=entry["sha256"])
    with pytest.raises(DigestMismatch, match="exists, but its content differs"):
        store.publish(fresh_package.directory, channel)
    assert store.read_channel(channel).models == {}
    assert bucket.get(key) == rotten


def test_object_put_there_by_another_tool_is_read_and_accepted(store, bucket, channel, fresh_package):
    key = release_key(fresh_package.release_id, fresh_package.name, "NEW")
    bucket.put(key, fresh_package.path("NEW").read_bytes())
    assert "NEW" not in store.publish(fresh_package.directory, channel).uploaded


def test_manifest_that_is_not_the_channels_is_refused(store, reader, bucket, channel, fresh_package, medium_package):
    store.publish(fresh_package.directory, channel)
    key = release_key(fresh_package.release_id, fresh_package.name, MANIFEST_NAME)
    bucket.put(key, medium_package.path(MANIFEST_NAME).read_bytes())
    with pytest.raises(Untrusted, match="differs from what was signed"):
        reader.resolve("small", channel)


def test_channel_of_a_newer_schema_is_refused_by_name(store, bucket, channel, small_package):
    bucket.put(f"channels/{channel}.json", b'{"schema_version": 2, "models": {}}')
    with pytest.raises(StoreError, match="schema_version 2, but this version reads up to 1"):
        store.publish(small_package.directory, channel)


def test_unknown_channel_says_what_to_do(reader):
    with pytest.raises(NoSuchRelease, match=r"channels/absent\.json .* does not exist: publish small"):
        reader.resolve("small", "absent")


def test_release_without_manifest_does_not_exist(reader):
    with pytest.raises(NoSuchRelease, match="was never completed or has been deleted"):
        reader.resolve("small", release="0" * 64)


def test_wrong_secret_names_endpoint_and_access_key(minio):
    with pytest.raises(AccessDenied, match=rf"127\.0\.0\.1:{PORT} rejects the credentials.*'test-reader'"):
        Bucket(minio.settings("reader", secret_key="wrong-secret")).check()


def test_unknown_access_key_names_it(minio):
    with pytest.raises(AccessDenied, match="'nobody'"):
        Bucket(minio.settings("reader", access_key="nobody")).check()


def test_missing_bucket_is_named(minio):
    with pytest.raises(NoSuchBucket, match="no bucket 'absent-bucket'"):
        Bucket(minio.settings("root", bucket="absent-bucket")).check()


def test_unreachable_store_names_the_endpoint(minio):
    with pytest.raises(StoreUnreachable, match=r"http://127\.0\.0\.1:9 does not answer"):
        Bucket(minio.settings("reader", endpoint="http://127.0.0.1:9")).check()


def test_console_port_is_recognised_as_the_wrong_one(minio):
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{PORT + 1}"):
        minio.store("reader", endpoint=f"http://127.0.0.1:{PORT + 1}").resolve("small")


@pytest.mark.parametrize("account", ["publisher", "reader"])
def test_no_account_may_delete(minio, store, channel, small_package, account):
    store.publish(small_package.directory, channel)
    settings = minio.settings(account)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3_client(settings).delete_object(Bucket=settings.bucket, Key=f"channels/{channel}.json")


def test_reader_may_not_write(minio, reader, channel, fresh_package):
    with pytest.raises(AccessDenied, match=r"denies releases/.* in bucket .* to the access key 'test-reader'"):
        reader.publish(fresh_package.directory, channel)


def test_publisher_may_not_write_elsewhere(minio):
    settings = minio.settings("publisher")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3_client(settings).put_object(Bucket=settings.bucket, Key="elsewhere", Body=b"")


def test_nobody_else_may_read(minio, store, channel, small_package):
    store.publish(small_package.directory, channel)
    url = f"{minio.endpoint}/{minio.settings().bucket}/channels/{channel}.json"
    answer = subprocess.run(
        ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", url], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "403"
