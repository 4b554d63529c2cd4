"""Attacks with the bucket's own keys on the download command, which containers run too: TUF's list, on real MinIO."""

from __future__ import annotations

import http.server
import resource
import subprocess
import sys
import threading
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from attacks import ATTACKS, NEW_SERIAL, OLD_SERIAL, RENEWED, endless_channel, evil, old_channel, published
from minio_server import account_environment
from paths import ROOT
from sealed_packages import hollow_package
from signing import KEY_FILE, TRUSTED, sign
from whisper_package.manifest import SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import new_private_key, new_serial, public_key
from whisper_store.client import s3_client
from whisper_store.errors import Untrusted
from whisper_store.store import Store, release_key


@pytest.fixture
def settings(minio):
    """An account that writes to a bucket of this test's own, so that what is put into it spoils no other."""
    root = minio.settings("root", bucket=f"attacks-{uuid.uuid4().hex[:12]}")
    s3_client(root).create_bucket(Bucket=root.bucket)
    return root


@pytest.fixture
def target(settings, tmp_path):
    base = hollow_package(tmp_path / "base")
    return published(settings, TRUSTED, f"test-{uuid.uuid4().hex[:12]}", tmp_path, base)


@pytest.fixture
def run(settings, tmp_path):
    """Run the download command, or another of `whisper_store`, in the directory `victim`."""
    victim = tmp_path / "victim"
    victim.mkdir()

    def run(command, *arguments, limit=None, **more):
        environment = {
            **account_environment(settings),
            "PYTHONPATH": str(ROOT / "app"),
            "MINIO_BUCKET": settings.bucket,
            **more,
        }
        return subprocess.run(
            [sys.executable, "-m", "whisper_store", command, *arguments],
            cwd=victim,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None,
        )

    run.directory = victim
    return run


def installed(run) -> Package:
    """What the victim has, every byte of it verified."""
    package = Package(run.directory / "whisper_small_xeon", TRUSTED)
    package.verify()
    return package


@pytest.mark.parametrize(("attack", "said"), ATTACKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_attack_is_refused_and_what_was_there_stays(run, target, attack, said):
    assert run("download", "small", "--channel", target.channel).returncode == 0
    attack(target)
    result = run("download", "small", "--channel", target.channel)
    # A channel that is none has no status of its own.
    assert result.returncode == 1 if attack is endless_channel else result.returncode in (4, 6)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert installed(run).release_id == target.new.release_id


def test_no_more_of_a_file_is_read_than_was_signed(run, target):
    target.put(target.key("WHICH"), target.new.path("WHICH").read_bytes() + bytes(32 << 20))
    run("download", "small", "--channel", target.channel)
    assert installed(run).path("WHICH").read_bytes() == target.new.path("WHICH").read_bytes()
    verified = run("verify", target.new.release_id)
    assert (verified.returncode, verified.stdout) == (4, f"{target.new.release_id} whisper_small_xeon: corrupt\n")


@pytest.mark.parametrize("command", ["publish", "sign"])
def test_what_is_too_large_to_be_a_signature_is_replaced(run, target, command):
    target.put(target.key(SIGNATURE_NAME), b"x" * (8 << 20))
    if command == "publish":
        result = run("publish", str(target.new.directory), "--channel", target.channel)
        assert f"sign whisper_small_xeon as of {NEW_SERIAL}" in result.stderr
        again = run("publish", str(target.new.directory), "--channel", target.channel)
        assert again.returncode == 0
        assert "as of" not in again.stderr  # the store's signature stays
    else:
        result = run("sign", target.new.release_id, WHISPER_SIGNING_KEY_FILE=str(KEY_FILE))
    assert result.returncode == 0, result.stderr
    assert run("download", "small", "--channel", target.channel).returncode == 0
    assert installed(run).release_id == target.new.release_id


def test_a_store_that_never_ends_its_answer_is_left_after_a_few_megabytes(run, target):
    sent = []

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("ETag", '"0"')
            self.end_headers()
            try:
                while True:
                    sent.append(self.wfile.write(b" " * (1 << 20)))
            except OSError:
                pass

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = run("download", "small", MINIO_ENDPOINT=f"http://127.0.0.1:{server.server_port}", limit=1 << 30)
        server.shutdown()
    assert result.returncode == 1
    assert "larger than any" in result.stderr
    assert sum(sent) < 32 << 20


def test_what_a_frozen_channel_names_is_taken_with_a_warning_of_its_age(run, target):
    sign(target.new.directory, new_serial(datetime.now(timezone.utc) - timedelta(days=100, hours=1)))
    target.restore()
    result = run("download", "small", "--channel", target.channel)
    assert result.returncode == 0
    assert f"release {target.new.release_id[:12]} of small was signed 100 days ago" in result.stderr
    assert "days ago" not in run("download", "small", "--channel", target.channel, WHISPER_SIGNED_DAYS="120").stderr


def test_an_old_release_is_taken_by_its_name_and_the_next_download_follows_the_channel(run, target):
    run("download", "small", "--channel", target.channel)
    assert run("download", "small", "--release", target.old.release_id).returncode == 0
    assert installed(run).release_id == target.old.release_id
    assert run("download", "small", "--channel", target.channel).returncode == 0
    assert installed(run).release_id == target.new.release_id


def test_an_owner_who_points_the_channel_back_signs_the_old_release_again(run, target):
    run("download", "small", "--channel", target.channel)
    old_channel(target)
    result = run("sign", target.old.release_id, WHISPER_SIGNING_KEY_FILE=str(KEY_FILE))
    assert result.returncode == 0, result.stderr
    assert run("download", "small", "--channel", target.channel).returncode == 0
    assert installed(run).release_id == target.old.release_id


def test_a_renewed_signature_replaces_the_old_one_and_nothing_else(run, target):
    run("download", "small", "--channel", target.channel)
    file = run.directory / "whisper_small_xeon" / "WHICH"
    before = file.stat().st_ino
    renewed = run("sign", "--channel", target.channel, WHISPER_SIGNING_KEY_FILE=str(KEY_FILE))
    assert f"{target.new.release_id} whisper_small_xeon, signed {NEW_SERIAL} before: signed" in renewed.stdout
    result = run("download", "small", "--channel", target.channel)
    assert "already complete" in result.stdout
    assert installed(run).signature.serial > NEW_SERIAL
    assert file.stat().st_ino == before


@pytest.mark.parametrize(("attack", "said"), RENEWED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_renewal_of_a_channel_signs_nothing_that_somebody_else_wrote_into_it(run, target, attack, said):
    assert run("download", "small", "--channel", target.channel).returncode == 0
    attack(target)
    before = [target.get(release_key(each.release_id, each.name, SIGNATURE_NAME)) for each in (target.old, target.new)]
    result = run("sign", "--channel", target.channel, WHISPER_SIGNING_KEY_FILE=str(KEY_FILE))
    assert result.returncode == 6
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    after = [target.get(release_key(each.release_id, each.name, SIGNATURE_NAME)) for each in (target.old, target.new)]
    assert after == before
    assert run("download", "small", "--channel", target.channel).returncode == 6
    assert installed(run).release_id == target.new.release_id


def test_a_renewal_needs_the_trusted_keys(run, target):
    signing = {"WHISPER_SIGNING_KEY_FILE": str(KEY_FILE), "WHISPER_TRUSTED_KEYS": ""}
    result = run("sign", "--channel", target.channel, **signing)
    assert (result.returncode, result.stdout) == (2, "")
    assert "names no trusted key" in result.stderr


def test_an_older_release_that_the_owner_names_by_its_id_is_signed_with_the_rest_of_the_channel(run, target):
    target.point(target.old)
    signing = {"WHISPER_SIGNING_KEY_FILE": str(KEY_FILE)}
    result = run("sign", target.old.release_id, "--channel", target.channel, **signing)
    assert result.returncode == 0, result.stderr
    assert {line.split()[0] for line in result.stdout.splitlines()} == {
        target.old.release_id,
        target.medium.release_id,
    }
    assert run("download", "small", "--channel", target.channel).returncode == 0
    assert installed(run).release_id == target.old.release_id


def test_a_stolen_key_is_worth_nothing_once_another_is_trusted(run, target):
    stolen, own = new_private_key(), new_private_key()
    made = evil(target)
    sign(made.directory, "20990101000000", stolen)
    target.upload(made)
    target.point(made)
    taken = run("download", "small", "--channel", target.channel, WHISPER_TRUSTED_KEYS=public_key(stolen))
    assert taken.returncode == 0
    # The thief stated a serial of the far future; the new key's releases are taken nevertheless.
    refused = run("download", "small", "--channel", target.channel, WHISPER_TRUSTED_KEYS=public_key(own))
    assert refused.returncode == 6
    key = run.directory / "own.pem"
    key.write_text(own)
    target.point(target.new)
    run("sign", target.new.release_id, WHISPER_SIGNING_KEY_FILE=str(key))
    taken = run("download", "small", "--channel", target.channel, WHISPER_TRUSTED_KEYS=public_key(own))
    assert taken.returncode == 0, taken.stderr


def test_sign_all_adopts_a_bucket_and_nothing_gets_newer_than_what_the_channel_names(run, target, settings):
    client = s3_client(settings)
    for package in (target.old, target.new):
        client.delete_object(
            Bucket=settings.bucket, Key=f"releases/{package.release_id}/{package.name}/{SIGNATURE_NAME}"
        )
    assert run("download", "small", "--channel", target.channel).returncode == 6
    planned = run("sign", "--all", "--dry-run")  # who looks needs no key
    assert planned.returncode == 0, planned.stderr
    assert f"{target.old.release_id} whisper_small_xeon" in planned.stdout
    assert run("download", "small", "--channel", target.channel).returncode == 6
    assert run("sign", "--all", WHISPER_SIGNING_KEY_FILE=str(KEY_FILE)).returncode == 0
    store = Store(settings, trusted=TRUSTED)
    old, new = (store.resolve("small", release=package.release_id) for package in (target.old, target.new))
    assert OLD_SERIAL < old.signature.serial < new.signature.serial
    assert run("sign", "--all", WHISPER_SIGNING_KEY_FILE=str(KEY_FILE)).stdout == ""


def test_verify_names_what_is_not_signed(run, target):
    made = evil(target)
    target.upload(made)
    result = run("verify", made.release_id)
    assert (result.returncode, result.stdout) == (6, f"{made.release_id} whisper_small_xeon: untrusted\n")
    assert "is not signed" in result.stderr


def test_without_a_trusted_key_one_line_says_how_to_make_one(run, target):
    result = run("download", "small", WHISPER_TRUSTED_KEYS="")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "python -m whisper_store keys` makes a pair" in result.stderr


def test_keys_makes_a_key_once_that_only_its_owner_can_read_and_prints_the_public_one(run):
    first, second = run("keys", "own.pem"), run("keys", "own.pem")
    assert first.stdout == second.stdout == f"{public_key((run.directory / 'own.pem').read_text())}\n"
    assert (run.directory / "own.pem").stat().st_mode & 0o777 == 0o600
    private = (run.directory / "own.pem").read_text().splitlines()[1]
    assert private not in first.stdout + first.stderr


def test_a_package_that_is_not_signed_is_not_published(settings, target):
    made = evil(target)
    channel = f"test-{uuid.uuid4().hex[:12]}"
    with pytest.raises(Untrusted, match=r"nothing was published: .* is not signed"):
        Store(settings, trusted=TRUSTED).publish(made.directory, channel)
    assert Store(settings).read_channel(channel).models == {}
