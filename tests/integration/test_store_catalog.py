"""Listing, verifying, promoting and pruning releases; and how a store that ignores conditions is found out."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import uuid

import pytest

from minio_server import account_environment
from paths import APP
from sealed_packages import hollow_package, variant
from signing import TRUSTED
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME
from whisper_package.package import Package
from whisper_store import catalog
from whisper_store.client import s3_client
from whisper_store.errors import ConditionsIgnored, StoreError
from whisper_store.settings import StoreSettings
from whisper_store.store import Store, release_key


@pytest.fixture
def owner(minio):
    """Settings of the administrator on an empty bucket."""
    settings = minio.settings("root", bucket=f"catalog-{uuid.uuid4().hex[:12]}")
    s3_client(settings).create_bucket(Bucket=settings.bucket)
    return settings


@pytest.fixture
def store(owner):
    return Store(owner, trusted=TRUSTED)


@pytest.fixture
def run(owner):
    """Run `python -m whisper_store` as the owner."""

    def run(*arguments):
        environment = {
            **account_environment(owner),
            "PYTHONPATH": str(APP),
            "MINIO_BUCKET": owner.bucket,
        }
        command = [sys.executable, "-m", "whisper_store", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def three_releases(store, small_package, tmp_path):
    """Three releases of `small`, the oldest first; `stable` names the last and `old` the first."""
    packages = [variant(small_package, tmp_path / str(number), {"NEW": bytes([number])}) for number in range(3)]
    for package in packages:
        store.publish(package.directory)
    store.publish(packages[0].directory, "old")
    return packages


@pytest.fixture
def two_of_one_size(store, tmp_path):
    """`small`, and a fine-tune of it under a name of its own, both named by `stable`."""
    packages = [hollow_package(tmp_path / "dist", model) for model in ("small", "support-calls-de")]
    for package in packages:
        store.publish(package.directory)
    return packages


def test_two_models_of_one_size_have_an_entry_each(store, two_of_one_size):
    current = {model: entry["release_id"] for model, entry in store.read_channel("stable").models.items()}
    assert current == {package.model: package.release_id for package in two_of_one_size}
    assert {release.model for release in catalog.releases(store)} == set(current)


def test_a_model_of_ones_own_is_promoted_and_downloaded_by_its_name_in_any_case(run, store, two_of_one_size, tmp_path):
    assert run("promote", "stable", "tested", "--model", "SUPPORT-CALLS-DE").returncode == 0
    assert list(store.read_channel("tested").models) == ["support-calls-de"]
    result = run("download", "Support-Calls-DE", "--channel", "tested", "--dir", str(tmp_path / "there"))
    assert result.returncode == 0, result.stderr
    assert Package.find(tmp_path / "there", "support-calls-de").release_id == two_of_one_size[1].release_id


def test_a_model_that_the_channel_does_not_have_is_answered_with_those_that_it_has(run, two_of_one_size, tmp_path):
    expected = "has no release of 'suport-calls-de'; it has small, support-calls-de (did you mean support-calls-de?)"
    for command in (("promote", "stable", "tested", "--model"), ("download", "--dir", str(tmp_path))):
        result = run(*command, "suport-calls-de")
        assert result.returncode == 3
        assert expected in result.stderr


def test_what_cannot_be_a_model_is_a_mistake_of_usage(run):
    result = run("promote", "stable", "tested", "--model", "../small")
    assert result.returncode == 2
    assert "'../small' is not a model's name" in result.stderr.splitlines()[-1]


def test_list_shows_channels_and_releases(run, three_releases):
    output = run("list").stdout
    for package in three_releases:
        assert package.release_id in output
    assert "stable" in output
    assert "old" in output


def test_list_for_programs_says_who_uses_a_release(run, three_releases):
    content = json.loads(run("list", "--json").stdout)
    assert content["channels"]["stable"]["small"]["release_id"] == three_releases[2].release_id
    used = {release["release_id"]: release["channels"] for release in content["releases"]}
    assert used == {
        package.release_id: channels for package, channels in zip(three_releases, (["old"], [], ["stable"]))
    }


def test_list_gives_size_and_completeness(store, three_releases):
    newest = catalog.releases(store)[0]
    sizes = sum(entry["size"] for entry in three_releases[2].files)
    assert newest.size == sizes + three_releases[2].path(SIGNATURE_NAME).stat().st_size
    assert newest.complete


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"schema_version": 1, "models": []}',
        b'{"schema_version": 99, "models": {}}',
        b'{"schema_version": 1, "models": {"small": {"release_id": "../../x"}}}',
        b'{"schema_version": 1, "models": {"\\u001b]0;x\\u0007": {"release_id": "%s", "manifest_sha256": "%s", '
        b'"package": "whisper_small_xeon"}}}' % (b"0" * 64, b"0" * 64),
        b"[" * 100_000,
        b" " * (5 << 20),
    ],
    ids=["cut off", "list", "newer", "path", "escapes", "deep", "huge"],
)
def test_a_broken_channel_is_named_and_the_others_are_listed(run, owner, three_releases, content):
    s3_client(owner).put_object(Bucket=owner.bucket, Key="channels/broken.json", Body=content)
    listed = run("list")
    assert listed.returncode == 1
    assert three_releases[2].release_id in listed.stdout
    assert len(listed.stderr.splitlines()) == 1
    assert "channels/broken.json" in listed.stderr
    assert [line for line in (listed.stdout + listed.stderr).splitlines() if not line.isprintable()] == []
    assert run("verify", three_releases[2].release_id[:12]).returncode == 0
    # Who deletes must know what every channel names.
    assert run("prune", "--keep", "1", "--delete").returncode != 0


def test_names_that_a_terminal_would_obey_are_not_listed(run, owner, three_releases):
    escape = "\x1b[31mgone\x1b[0m"
    for key in (
        f"channels/{escape}.json",
        f"releases/{escape}/whisper_small_xeon/manifest.json",
        f"releases/{'0' * 64}/{escape}/manifest.json",
        "releases/short/whisper_small_xeon/manifest.json",
    ):
        s3_client(owner).put_object(Bucket=owner.bucket, Key=key, Body=b"{}")
    listed = run("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "gone" not in listed.stdout
    assert "short" not in listed.stdout
    assert json.loads(run("list", "--json").stdout)["channels"].keys() == {"stable", "old"}


def test_verify_finds_every_release_whole(run, three_releases):
    result = run("verify")
    assert (result.returncode, result.stdout.count("intact")) == (0, 3)


def test_verify_names_an_altered_object_and_ends_with_status_4(run, owner, three_releases):
    key = release_key(three_releases[1].release_id, "whisper_small_xeon", "NEW")
    # The note of its digest says what it should be: only reading it tells.
    client = s3_client(owner)
    client.put_object(
        Bucket=owner.bucket, Key=key, Body=b"\7", Metadata=client.head_object(Bucket=owner.bucket, Key=key)["Metadata"]
    )
    result = run("verify")
    assert result.returncode == 4
    assert key in result.stderr
    assert run("verify", "--channel", "stable").returncode == 0


def test_verify_names_a_missing_object(run, owner, three_releases):
    key = release_key(three_releases[1].release_id, "whisper_small_xeon", "NEW")
    s3_client(owner).delete_object(Bucket=owner.bucket, Key=key)
    result = run("verify", three_releases[1].release_id[:8])
    assert result.returncode == 4
    assert f"{key} in bucket" in result.stderr
    assert "is missing" in result.stderr


def test_promote_makes_one_channel_name_what_another_names(run, store, three_releases, medium_package):
    store.publish(medium_package.directory, "staging")
    assert run("promote", "staging", "stable").returncode == 0
    assert store.resolve("medium", "stable").release_id == medium_package.release_id
    assert store.resolve("small", "stable").release_id == three_releases[2].release_id


def test_promote_of_one_model_leaves_the_others(run, store, three_releases, medium_package):
    store.publish(medium_package.directory, "old")
    assert run("promote", "old", "stable", "--model", "medium").returncode == 0
    assert store.resolve("small", "stable").release_id == three_releases[2].release_id


def test_promote_dry_run_changes_nothing(run, store, three_releases):
    result = run("promote", "old", "stable", "--dry-run")
    assert three_releases[0].release_id in result.stdout
    assert store.resolve("small", "stable").release_id == three_releases[2].release_id


def test_promote_refuses_a_release_that_is_not_complete(run, owner, three_releases):
    key = release_key(three_releases[0].release_id, "whisper_small_xeon", MANIFEST_NAME)
    s3_client(owner).delete_object(Bucket=owner.bucket, Key=key)
    assert run("promote", "old", "stable").returncode == 3


def test_promote_of_an_empty_channel_says_so(run, three_releases):
    result = run("promote", "absent", "stable")
    assert (result.returncode, "'absent' names no release" in result.stderr) == (3, True)


def test_prune_deletes_nothing_unless_told(run, store, three_releases):
    result = run("prune", "--keep", "1")
    assert three_releases[1].release_id in result.stdout
    assert "would be deleted" in result.stdout
    assert len(catalog.releases(store)) == 3


def test_prune_never_deletes_what_a_channel_names(run, store, three_releases):
    assert run("prune", "--keep", "1", "--delete").returncode == 0
    left = {release.release_id for release in catalog.releases(store)}
    assert left == {three_releases[0].release_id, three_releases[2].release_id}


def test_prune_keeps_the_newest_of_each_model(run, store, three_releases, medium_package):
    store.publish(medium_package.directory, "staging")
    run("prune", "--keep", "3", "--delete")
    assert len(catalog.releases(store)) == 4


def test_prune_brings_a_release_back_that_is_named_meanwhile(store, three_releases, monkeypatch):
    """A publisher that points a channel at the release between the listing and the deletion."""
    doomed = catalog.prune(store, keep=1)
    assert [release.release_id for release in doomed] == [three_releases[1].release_id]
    store.publish(three_releases[1].directory, "late")
    assert not catalog._delete(store, doomed[0])
    assert store.resolve("small", "late").release_id == three_releases[1].release_id


def test_prune_leaves_an_unfinished_release_of_today(store, owner, three_releases):
    client = s3_client(owner)
    client.put_object(Bucket=owner.bucket, Key=f"releases/{'0' * 64}/whisper_small_xeon/libwhisper.so", Body=b"")
    assert "0" * 64 not in [release.release_id for release in catalog.prune(store, keep=1)]


def test_prune_keeps_at_least_one(run, three_releases):
    assert run("prune", "--keep", "0").returncode == 1


class _Unconditional(http.server.BaseHTTPRequestHandler):
    """As little of S3 as a publish needs, without conditions: the fault that no store at hand has."""

    protocol_version = "HTTP/1.1"

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.server.objects[self.path] = (
            self.rfile.read(int(self.headers["Content-Length"])),
            self.headers.get("x-amz-meta-sha256", ""),
        )
        self._answer(200, ETag='"etag"')

    def do_HEAD(self):
        if self.path not in self.server.objects:
            self._answer(404)
            return
        body, sha256 = self.server.objects[self.path]
        self._answer(200, **{"Content-Length": str(len(body)), "ETag": '"etag"', "x-amz-meta-sha256": sha256})

    def do_GET(self):
        self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def log_message(self, *_):
        pass


def test_store_that_ignores_conditions_is_found_out_before_a_channel_is_written(small_package):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Unconditional) as server:
        server.objects = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        store = Store(StoreSettings(endpoint, access_key="anyone", secret_key="anything at all"), trusted=TRUSTED)
        with pytest.raises(ConditionsIgnored, match="ignores If-None-Match on writes"):
            store.publish(small_package.directory)
        server.shutdown()
    assert not [path for path in server.objects if "channels" in path]


@pytest.mark.parametrize("name", ["", "../stable", "Stable", "a/b", "x" * 64])
def test_name_that_is_no_channel_is_refused(store, small_package, name):
    with pytest.raises(StoreError, match="is not a valid channel name"):
        store.publish(small_package.directory, name)
