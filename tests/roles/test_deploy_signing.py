"""Signed releases on real systemd hosts: what the bucket's own keys cannot do, and a lost and a stolen signing key."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from attacks import ATTACKS, Target, old_channel, published
from host_container import Host, Hosts, table_row
from playbook import one_at_a_time
from sealed_packages import variant
from signing import PRIVATE, PUBLIC, TRUSTED, sign
from whisper_package.manifest import SIGNATURE_NAME
from whisper_package.signature import new_private_key, new_serial, public_key
from whisper_store.client import s3_client
from whisper_store.store import Store

THIRD = Host("whisper-xeon-test-third", 18013)


@pytest.fixture
def target(minio, small_package, tmp_path) -> Target:
    """What is published, in a bucket that only this test uses, with the keys of its publisher."""
    settings = minio.settings("root", bucket=f"attacks-{uuid.uuid4().hex[:12]}")
    s3_client(settings).create_bucket(Bucket=settings.bucket)
    return published(settings, TRUSTED, f"test-{uuid.uuid4().hex[:12]}", tmp_path, small_package)


@pytest.fixture
def follow(hosts, minio, target):
    """Deploy what the channel names to the small host: `follow(*arguments, check=True)`."""

    def run(*arguments: str, fleet: Hosts = hosts, limit: str = hosts.small.name, check: bool = True):
        account = {
            "artifact_store_bucket": target.settings.bucket,
            "artifact_store_channel": target.channel,
            "artifact_store_reader_access_key": target.settings.access_key,
            "artifact_store_reader_secret_key": target.settings.secret_key,
        }
        store = dataclasses.replace(minio, variables={**minio.variables, **account})
        return fleet.deploy_from(store, "--limit", limit, "-e", "model=small", *arguments, check=check)

    return run


def trust(*keys: str) -> tuple[str, str]:
    return "-e", json.dumps({"whisper_service_trusted_keys": keys})


def test_an_older_release_needs_its_name_and_a_rollback_needs_nothing(hosts, follow, target):
    follow()
    old_channel(target)
    assert "and must sign that release again" in follow(check=False).said
    follow("-e", f"release={target.old.release_id[:12]}")
    assert hosts.small.version()["release_id"] == target.old.release_id
    hosts.play("playbooks/rollback.yml", "--limit", hosts.small.name)
    assert hosts.small.version()["release_id"] == target.new.release_id
    # What was confirmed stays, whatever was deployed by name.
    assert "and must sign that release again" in follow(check=False).said


@pytest.fixture(scope="module")
def three(hosts) -> Iterator[Hosts]:
    """The two hosts and a third one."""
    content = json.loads(hosts.inventory.read_text())
    members = content["all"]["children"]["whisper_hosts"]["hosts"]
    # Removing a host removes the SSH files of its directory: it has one of its own.
    state = hosts.inventory.parent / "third"
    members[THIRD.name] = {
        "ansible_port": 12213,
        "ansible_ssh_private_key_file": str(state / "ssh" / "id_ed25519"),
        "ansible_ssh_common_args": f"-o IdentitiesOnly=yes -o UserKnownHostsFile={state / 'ssh' / 'known_hosts'}",
        "container_host_service_port": THIRD.port,
        "container_host_state_dir": str(state),
        "whisper_service_model": "small",
    }
    inventory = hosts.inventory.with_name("three.json")
    inventory.write_text(json.dumps(content))
    fleet = dataclasses.replace(hosts, inventory=inventory)
    made = ("playbooks/demo/hosts.yml", "--limit", THIRD.name)
    with one_at_a_time():
        fleet.play(*made)
    yield fleet
    with one_at_a_time():
        fleet.play(*made, "-e", "container_host_state=absent")


def releases(fleet: Hosts) -> set[str]:
    return {host.version()["release_id"] for host in (fleet.small, fleet.medium, THIRD)}


def test_a_lost_and_a_stolen_key_on_three_hosts(three, follow, target):
    store = Store(target.settings, trusted=TRUSTED)
    follow(fleet=three, limit="all")
    fleet = (three.small, three.medium, THIRD)
    before = [(host.link("current"), host.main_pid()) for host in fleet]

    # Lost: two keys are trusted, the channel's release is signed by the new one, nothing restarts.
    own = new_private_key()
    both = trust(PUBLIC, public_key(own))
    sign(target.new.directory, new_serial(), own)
    Store(target.settings, trusted=(PUBLIC, public_key(own))).publish(target.new.directory, target.channel)
    follow(*both, fleet=three, limit="all")
    follow(*trust(public_key(own)), fleet=three, limit="all")
    assert [(host.link("current"), host.main_pid()) for host in fleet] == before
    assert "signed by none of the trusted keys" in follow(*trust(PUBLIC), fleet=three, limit="all", check=False).said

    # Stolen: the thief gets a release onto one host, with a serial of the far future.
    thief = variant(target.new, target.scratch, {"THEFT": uuid.uuid4().bytes})
    sign(thief.directory, "20990101000000", own)
    target.upload(thief)
    target.point(thief)
    follow(*trust(public_key(own)), fleet=three)
    assert three.small.version()["release_id"] == thief.release_id

    # Its key is exchanged for another: what it signed is refused, and its serial does not count.
    assert "signed by none of the trusted keys" in follow(fleet=three, limit="all", check=False).said
    sign(target.new.directory, new_serial(), PRIVATE)
    store.publish(target.new.directory, target.channel)
    follow(fleet=three, limit="all")
    assert releases(three) == {target.new.release_id}


def test_nothing_that_the_keys_of_the_bucket_do_gets_to_a_host(hosts, follow, target):
    follow()
    before = hosts.small.link("confirmed"), hosts.small.main_pid()
    accepted = []
    for attack, said in ATTACKS.items():
        attack(target)
        play = follow(check=False)
        if play.returncode == 0 or said not in play.said:
            accepted.append((attack.__name__, play.said[-500:]))
        target.restore()
    assert accepted == []
    assert (hosts.small.link("confirmed"), hosts.small.main_pid()) == before
    follow()


def test_the_owner_signs_again_and_status_warns_of_what_was_signed_long_ago(hosts, follow, target):
    long_ago = new_serial(datetime.now(timezone.utc) - timedelta(days=200))
    sign(target.new.directory, long_ago)
    target.restore()
    play = follow()
    assert f"WARNING: more than 90 days ago was signed what these hosts took last: {hosts.small.name}" in play.said
    store = Store(target.settings, trusted=TRUSTED)
    serial = new_serial()
    sign(target.new.directory, serial)
    store.publish(target.new.directory, target.channel)
    before = hosts.small.main_pid()
    play = follow()
    assert "WARNING: more than" not in play.said
    assert f"{serial[:4]}-{serial[4:6]}-{serial[6:8]}" in table_row(play.output, hosts.small)
    assert hosts.small.main_pid() == before
    assert follow().changed == 0


def test_a_directory_that_is_not_signed_is_refused_for_every_host_before_any_is_changed(hosts, small_package, tmp_path):
    made = variant(small_package, tmp_path, {"NOTE": uuid.uuid4().bytes})
    made.path(SIGNATURE_NAME).unlink()
    play = hosts.deploy_copy(tmp_path, "-e", "model=small", check=False)
    assert play.returncode != 0
    for host in (hosts.small, hosts.medium):
        where = f"{host.name}: whisper_service_artifact_dir: {made.directory}"
        assert f"{where} is not signed: if it is yours, sign it with" in play.said
    assert "Nothing was changed on any host" in play.said


def test_an_inventory_without_keys_is_answered_with_the_command_that_makes_them(hosts, follow, artifacts_dir):
    said = "whisper_service_trusted_keys names no trusted key, and nothing is used that none has signed: "
    for play in (follow(*trust(), check=False), hosts.deploy_copy(artifacts_dir, *trust(), check=False)):
        assert play.returncode != 0
        assert f"{said}`PYTHONPATH=app python -m whisper_store keys` makes a pair" in play.said
