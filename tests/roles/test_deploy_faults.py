"""Faults of a deploy to real systemd hosts: what served goes on serving, the run fails and names the cause.

Nothing is left behind either: no staging folder, no candidate, no lock. roles/whisper_service/README.md has the table.
Further faults, of a package or an application that arrives whole, stand in test_deploy_host.py.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from host_container import LOCK, Host, Hosts
from minio_server import gateway
from playbook import Play, playbook_process
from sealed_packages import rewrite, variant
from tcp_proxy import TcpProxy
from whisper_package.package import Package
from whisper_package.variants import cpu_flags
from whisper_store.client import s3_client

MEDIUM = ("-e", "model=medium")
SERVICE = "/opt/whisper-xeon"
DEPLOYMENTS = f"{SERVICE}/deployments"
BIG = 8 << 20
# Flags of real processors that no processor has all of.
RARE_FLAGS = ("fma4", "sse4a", "avx512_vp2intersect", "avx512_4vnniw", "amx_tile")


@pytest.fixture
def proxy(minio) -> Iterator[TcpProxy]:
    """A proxy before the store, on the address at which the hosts reach this machine."""
    with TcpProxy(int(minio.endpoint.rsplit(":", 1)[1]), gateway()) as proxy:
        yield proxy


class Release(NamedTuple):
    """A release of model `small` that the store alone has, and the arguments that deploy it to the small host."""

    package: Package
    arguments: tuple[str, ...]


@pytest.fixture
def release(minio, proxy, small, small_package, tmp_path) -> Release:
    """A release whose file NOTE (8 MB) no host has; the host gets it by way of the proxy."""
    package = variant(small_package, tmp_path, {"NOTE": os.urandom(BIG)})
    channel = f"test-{uuid.uuid4().hex[:12]}"
    minio.store().publish(package.directory, channel)
    variables = {name: value for name, value in minio.variables.items() if name.startswith("artifact_store_")}
    variables.update(artifact_store_channel=channel, artifact_store_host_endpoint=proxy.endpoint)
    file = tmp_path / "store.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(variables), encoding="utf-8")
    return Release(package, ("--limit", small.name, "-e", f"@{file}"))


@pytest.fixture
def copied(artifacts_dir) -> tuple[str, ...]:
    """The arguments that deploy the real packages without a store."""
    return "-e", "whisper_service_transport=copy", "-e", f"whisper_service_artifact_dir={artifacts_dir}"


@pytest.fixture
def little_disk(small: Host) -> Iterator[Host]:
    """The small host with the folder of the service on a disk of its own, which has room for one more deployment."""
    small.run(
        "sh",
        "-ec",
        "mkdir -p /mnt/disk; size=$(( $(du --summarize --block-size=1M $0 | cut -f 1) + 120 ));"
        "mount -t tmpfs -o size=${size}m tmpfs /mnt/disk; cp --archive $0/. /mnt/disk; mount --bind /mnt/disk $0;"
        "systemctl restart whisper-xeon.service",
        SERVICE,
    )
    yield small
    small.run(
        "sh",
        "-ec",
        "systemctl stop whisper-xeon.service; umount $0; umount /mnt/disk; systemctl start whisper-xeon.service",
        SERVICE,
    )


def fill_disk(host: Host) -> None:
    """Leave no room on the disk of the service."""
    host.run("dd", "if=/dev/zero", f"of={SERVICE}/ballast", "bs=1M", check=False)


def state_of(host: Host) -> dict[str, str]:
    """Return what a fault has to leave as it was."""
    return {
        "release": host.version()["release_id"],
        "process": host.main_pid(),
        "current": host.link("current"),
        "confirmed": host.link("confirmed"),
        "deployments": host.run("ls", "--almost-all", DEPLOYMENTS),
        "lock": host.run("find", "/run", "-maxdepth", "1", "-path", LOCK),
    }


def assert_tidy(host: Host) -> None:
    """Require that one deployment serves for good, and that no run has left a folder or the lock."""
    state = state_of(host)
    assert state["current"] == state["confirmed"]
    assert not any(name.startswith(".") for name in state["deployments"].split())
    assert state["lock"] == ""


@contextlib.contextmanager
def unharmed(*members: Host) -> Iterator[None]:
    """Require that hosts serve what they did, by the same process, and hold nothing new."""
    before = [state_of(host) for host in members]
    for host in members:
        assert_tidy(host)
    yield
    assert [state_of(host) for host in members] == before


def assert_failed(play: Play, *reasons: str) -> None:
    """Require that a run failed and gave these reasons."""
    assert play.returncode != 0
    missing = [reason for reason in reasons if reason not in play.said]
    assert not missing, f"{missing} not in:\n{play.output}"


class Deploy:
    """A deploy that runs beside the test, in a process group of its own; a context manager that ends it."""

    def __init__(self, hosts: Hosts, log: Path, *arguments: str):
        """Start it; `log` gets its output."""
        self._log = log
        with log.open("wb") as output:
            how = playbook_process("deploy.yml", *arguments, inventory=hosts.inventory)
            self._process = subprocess.Popen(**how, stdout=output, start_new_session=True)
        self.pid = self._process.pid

    def __enter__(self) -> Deploy:
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.wait()

    def kill(self) -> None:
        """Kill Ansible, whose workers end with what they are at. Nobody reaps it, as where there is no init process."""
        assert self._process.poll() is None, f"the deploy was over already:\n{self.result().output}"
        os.killpg(self.pid, signal.SIGKILL)

    def wait_until_it_says(self, text: str) -> None:
        """Return as soon as `text` is in the output."""
        while text not in (said := self._log.read_text("utf-8")):
            assert self._process.poll() is None, f"the deploy ended without {text!r}:\n{said}"
            time.sleep(0.1)

    def wait_until_on(self, host: Host, condition: str) -> None:
        """Return as soon as a shell condition holds on a host."""
        while not host.run("sh", "-c", f"if {condition}; then echo so it is; fi"):
            assert self._process.poll() is None, f"the deploy ended without {condition}:\n{self.result().output}"

    def result(self, seconds: float = 600) -> Play:
        """Wait for its end; one that takes longer than `seconds` fails the test with what it has said so far."""
        try:
            return Play(self._process.wait(seconds), self._log.read_text("utf-8"))
        except subprocess.TimeoutExpired:
            pytest.fail(f"the deploy did not end in {seconds:.0f} s:\n{self._log.read_text('utf-8')}", pytrace=False)


IN_TRANSFER = f"test -s {DEPLOYMENTS}/.staging-*/package/*/NOTE"
IN_SWITCH = f'test "$(readlink {SERVICE}/current)" != "$(readlink {SERVICE}/confirmed)"'


def test_a_store_that_goes_in_the_middle_of_a_transfer_is_named(hosts, small, proxy, release):
    proxy.after(BIG // 2, proxy.refuse)
    with unharmed(small):
        play = hosts.play("deploy.yml", *release.arguments, check=False)
    # Of the files on their way, which fails first is chance.
    assert_failed(
        play, f"package/{release.package.name}/", f" did not arrive from {proxy.endpoint}: Connection refused"
    )


def test_a_transfer_that_breaks_off_once_goes_on_where_it_stopped(hosts, small, proxy, release):
    proxy.after(BIG // 2, proxy.cut)
    hosts.play("deploy.yml", *release.arguments)
    assert small.version()["release_id"] == release.package.release_id
    assert proxy.answered_bytes < BIG * 5 // 4
    assert_tidy(small)


def test_other_bytes_in_the_store_than_were_published_are_named(hosts, small, minio, proxy, release):
    client, bucket = s3_client(minio.settings("root")), minio.settings().bucket
    key = f"releases/{release.package.release_id}/{release.package.name}/NOTE"
    altered = bytearray(release.package.path("NOTE").read_bytes())
    altered[BIG // 2] ^= 1
    client.put_object(Bucket=bucket, Key=key, Body=bytes(altered))
    with unharmed(small):
        play = hosts.play("deploy.yml", *release.arguments, check=False)
    assert_failed(play, f"NOTE from {proxy.endpoint} differs from its manifest (SHA-256)")


def test_a_disk_without_room_is_refused_before_anything_changes(little_disk, deploy):
    fill_disk(little_disk)
    with unharmed(little_disk):
        # Not another model, whose deployment may be on the host already and would need no room.
        play = deploy("-e", "whisper_service_stop_timeout=63", check=False)
    assert_failed(play, f"{little_disk.name}: the disk of {SERVICE} has 0 MB free")


def test_a_disk_that_fills_during_the_transfer_is_named(hosts, little_disk, proxy, release):
    proxy.after(BIG // 4, lambda: fill_disk(little_disk))
    with unharmed(little_disk):
        play = hosts.play("deploy.yml", *release.arguments, check=False)
    # Of the files on their way, which fails first is chance.
    assert_failed(play, f"/package/{release.package.name}/", " cannot be written: No space left on device")


def test_a_release_for_another_processor_is_refused_before_anything_changes(small, deploy, small_package, tmp_path):
    package = variant(small_package, tmp_path, {})
    lacking = next(flag for flag in RARE_FLAGS if flag not in cpu_flags())
    variants = [{**each, "cpu_flags": [*each["cpu_flags"], lacking]} for each in package.manifest["variants"]]
    rewrite(package.directory, lambda manifest: manifest.update(variants=variants))
    with unharmed(small):
        play = deploy(artifact_dir=tmp_path, check=False)
    assert_failed(play, f"{small.name}: the processor lacks {lacking}")


def test_a_model_file_that_does_not_load_is_named(small, deploy, small_package, tmp_path):
    model = small_package.model_file
    variant(small_package, tmp_path, {model.name: model.read_bytes()[: model.stat().st_size // 2]})
    with unharmed(small):
        play = deploy(artifact_dir=tmp_path, check=False)
    assert_failed(play, f"{model.name} is damaged or not a Whisper model: it ends after")


def test_a_service_that_hangs_is_started_anew(host, deploy):
    deploy("-e", "whisper_service_watchdog=3")
    hung = host.main_pid()
    host.run("kill", "-STOP", hung)
    assert host.version()["model"] == "small"
    assert host.main_pid() != hung


def test_a_host_that_does_not_answer_stops_the_run_before_any_host_changes(both, artifacts_dir, tmp_path):
    inventory = tmp_path / "more.json"
    gone = {"whisper-xeon-test-gone": {"ansible_port": 1, "whisper_service_model": "small"}}
    inventory.write_text(json.dumps({"whisper_hosts": {"hosts": gone}}), encoding="utf-8")
    with unharmed(both.small, both.medium):
        play = both.deploy_copy(
            artifacts_dir, "-i", str(inventory), "-e", "whisper_service_stop_timeout=61", check=False
        )
    assert_failed(
        play, "Nothing was changed on any host", "whisper-xeon-test-gone: unreachable: ", "Connection refused"
    )


def test_a_host_that_goes_during_the_run_keeps_what_it_serves(both, copied, tmp_path):
    before, other = both.small.link("current"), "whisper_service_stop_timeout=62"
    with unharmed(both.medium), Deploy(both, tmp_path / "log", *copied, "-e", other) as deploy:
        try:
            deploy.wait_until_on(both.small, f"test -e {LOCK}")
            both.medium.run("sh", "-c", "systemctl stop ssh.service; pkill -x sshd")
            play = deploy.result()
        finally:
            both.medium.run("systemctl", "start", "ssh.service")
    assert_failed(play, f"[{both.medium.name}]: UNREACHABLE!")
    assert both.small.link("current") != before
    assert_tidy(both.small)


def test_a_control_node_that_dies_in_a_transfer_leaves_the_rest_to_the_next_run(hosts, small, proxy, release, tmp_path):
    before = (small.link("current"), small.main_pid())
    proxy.slow_after(BIG // 4, BIG / 300)
    with Deploy(hosts, tmp_path / "log", *release.arguments) as deploy:
        deploy.wait_until_on(small, IN_TRANSFER)
        deploy.kill()
        assert (small.link("current"), small.main_pid()) == before
        assert small.version()["model"] == "small"
        proxy.bytes_per_second = None
        hosts.play("deploy.yml", *release.arguments)
    assert small.version()["release_id"] == release.package.release_id
    assert_tidy(small)


def test_a_control_node_that_dies_in_a_switch_leaves_the_rest_to_the_next_run(hosts, small, copied, tmp_path):
    arguments = ("--limit", small.name, *copied, *MEDIUM)
    with Deploy(hosts, tmp_path / "log", *arguments) as deploy:
        deploy.wait_until_on(small, IN_SWITCH)
        deploy.kill()
        assert small.version()["model"] in ("small", "medium")
        hosts.play("deploy.yml", *arguments)
    assert small.version()["model"] == "medium"
    assert_tidy(small)


def test_of_two_deploys_at_once_the_second_is_refused_by_name_or_waits(hosts, small, copied, proxy, release, tmp_path):
    arguments = ("--limit", small.name, *copied, *MEDIUM)
    proxy.slow_after(BIG // 4, BIG / 300)
    with Deploy(hosts, tmp_path / "first", *release.arguments) as first:
        first.wait_until_on(small, IN_TRANSFER)
        refused = hosts.play("deploy.yml", *arguments, "-e", "whisper_service_lock_wait=0", check=False)
        who = f"{getpass.getuser()} on {platform.node()} (process {first.pid}) has been changing {small.name} since"
        assert_failed(refused, who, "this run changed nothing there")
        with Deploy(hosts, tmp_path / "second", *arguments) as second:
            second.wait_until_it_says(": waiting for up to")
            proxy.bytes_per_second = None
            # Left at its rate the transfer alone would take longer.
            assert first.result(180).returncode == 0
            assert second.result().returncode == 0
    assert small.version()["model"] == "medium"
    first_of_both = json.loads(small.run("cat", f"{SERVICE}/previous/deployment.json"))
    assert first_of_both["release_id"] == release.package.release_id
    assert_tidy(small)


def test_every_problem_of_every_host_is_in_one_report(both, artifacts_dir, tmp_path):
    inventory = tmp_path / "unfit.json"
    unfit = {
        both.small.name: {
            "whisper_service_port": 8123,
            "whisper_service_settings": {"WHISPER_QUEUE": "long", "WHISPER_LANGAUGE": "de"},
            "whisper_service_memory_max": "1M",
        },
        both.medium.name: {"whisper_service_port": 22, "whisper_service_root": "/mnt/little"},
    }
    inventory.write_text(json.dumps({"all": {"hosts": unfit}}), encoding="utf-8")
    both.small.run("systemd-run", "--unit=other", "--collect", "python3", "-m", "http.server", "8123")
    both.medium.run("sh", "-ec", "mkdir -p /mnt/little; mount -t tmpfs -o size=9m tmpfs /mnt/little")
    try:
        with unharmed(both.small, both.medium):
            play = both.deploy_copy(artifacts_dir, "-i", str(inventory), check=False)
    finally:
        both.small.run("systemctl", "stop", "other.service")
        both.medium.run("umount", "/mnt/little")
    assert_failed(play, "Nothing was changed on any host")
    report = [line.strip() for line in play.output.partition("fatal: ")[2].splitlines()]
    for problem in (
        f"{both.small.name}: whisper_service_settings: WHISPER_QUEUE='long' is not allowed",
        f"{both.small.name}: whisper_service_settings: WHISPER_LANGAUGE is not a setting",
        f"{both.small.name}: whisper_service_memory_max is 1M, but the weights alone take 8 MB",
        f"{both.small.name}: port 8123 is taken by python3",
        f"{both.medium.name}: the disk of /mnt/little has 9 MB free",
        f"{both.medium.name}: port 22 is taken by ",
    ):
        assert len([line for line in report if line.startswith(problem)]) == 1, play.output
    assert "did you mean WHISPER_LANGUAGE?" in play.said
    assert "\\n" not in play.output
    assert play.output.count("fatal: ") == 1


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("memory_max=8M", "did it run out of memory (whisper_service_memory_max is 8M)"),
        ("cpu_affinity=4000", "CPUAFFINITY is whisper_service_cpu_affinity (4000)"),
    ],
    ids=["memory", "processors"],
)
def test_a_candidate_that_ends_without_a_word_is_told_with_its_limit(small, deploy, limit, reason):
    with unharmed(small):
        play = deploy("-e", f"whisper_service_{limit}", check=False)
    assert_failed(play, "still serves what it served before", reason)
