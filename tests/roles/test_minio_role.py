"""Role `minio` and its playbook on a real Docker daemon: what runs, what a second run does, what is refused."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest

from docker_client import docker, inspect
from minio_server import CONTAINER, NETWORK, PORT
from whisper_store.bucket import Bucket

PLAYBOOK = "playbooks/minio.yml"


@pytest.fixture
def container(minio):
    """What `docker inspect` says about the container."""
    return inspect(CONTAINER)


@pytest.fixture(scope="module")
def second_run(minio):
    """The playbook's second run, as wordy as anyone makes it."""
    return minio.play(PLAYBOOK, "-vvv", "--diff")


def test_second_run_changes_nothing(second_run):
    assert second_run.changed == 0


def test_no_output_shows_a_secret(minio, second_run):
    assert [secret for secret in minio.secrets if secret in second_run.output] == []


def test_check_mode_of_a_running_server_changes_nothing(minio):
    assert minio.play(PLAYBOOK, "--check").changed == 0


def test_check_mode_passes_where_nothing_is_yet(minio):
    absent = "whisper-xeon-test-absent"
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        free = {"minio_port": one.getsockname()[1], "minio_console_port": other.getsockname()[1]}
    names = {"minio_container_name": absent, "minio_network": absent}
    result = minio.play(PLAYBOOK, "--check", "-e", json.dumps({**names, **free}))
    assert "failed=0" in result.output
    assert absent not in docker("ps", "--all", "--format", "{{.Names}}").stdout
    assert absent not in docker("network", "ls", "--format", "{{.Name}}").stdout


def test_stopped_container_is_started_as_it_was(minio):
    docker("stop", CONTAINER)
    assert minio.play(PLAYBOOK).changed == 1


def test_new_password_is_taken_over(minio):
    minio.play(PLAYBOOK, "-e", json.dumps({"minio_root_password": "another password"}))
    assert Bucket(minio.settings("root", secret_key="another password")).check() is None
    minio.play(PLAYBOOK)
    assert Bucket(minio.settings("root")).check() is None


def test_ports_are_published_on_the_bound_address_only(container):
    ports = container["NetworkSettings"]["Ports"]
    assert ports["9000/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]
    assert ports["9001/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(PORT + 1)}]


def test_container_is_on_the_network_by_its_name(container):
    assert CONTAINER in container["Name"]
    assert list(container["NetworkSettings"]["Networks"]) == [NETWORK]


def test_server_runs_without_root_and_without_capabilities(container):
    assert container["Config"]["User"] == "10001:10001"
    assert container["HostConfig"]["CapDrop"] == ["ALL"]


@pytest.mark.parametrize("kind", ["container", "volume", "network"])
def test_everything_carries_the_label(minio, kind):
    name = {"container": CONTAINER, "volume": f"{CONTAINER}-data", "network": NETWORK}[kind]
    found = json.loads(docker(kind, "inspect", name).stdout)[0]
    labels = found.get("Labels") or found["Config"]["Labels"]
    assert labels["io.whisper-xeon.project"] == "test"


def test_docker_inspect_shows_no_secret(minio, container):
    assert [secret for secret in minio.secrets if secret in json.dumps(container)] == []


def test_image_holds_no_secret(minio, container):
    history = docker("history", "--no-trunc", container["Image"]).stdout + docker("inspect", container["Image"]).stdout
    assert [secret for secret in minio.secrets if secret in history] == []


def test_container_without_its_password_file_never_falls_back_to_a_default(container):
    environment = [f"--env={entry}" for entry in container["Config"]["Env"]]
    result = subprocess.run(
        ["docker", "run", "--rm", *environment, "--tmpfs=/data:mode=0777", container["Config"]["Image"]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "MINIO_ROOT_PASSWORD" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"minio_root_user": "minioadmin"}, "minio_root_user is MinIO's own default"),
        ({"minio_root_password": "minioadmin"}, "minio_root_password needs at least 12 characters"),
        ({"minio_root_user": "test-root-user", "minio_root_password": "test-root-user"}, "is the same as"),
        (
            {"minio_publisher_secret_key": "short"},
            "minio_publisher_secret_key needs at least 12 characters",
        ),
        (
            {"minio_reader_access_key": "test-publisher"},
            "minio_reader_access_key is the name of another account",
        ),
    ],
    ids=["default", "short", "same", "account", "name taken"],
)
def test_of_the_credentials_what_is_refused_is_told_and_nothing_else(minio, variables, problem):
    result = minio.play(PLAYBOOK, "-e", json.dumps(variables), check=False)
    assert result.returncode != 0
    assert problem in result.said
    report = result.output.partition("fatal: ")[2].partition("msg: ")[2].partition("Set them in the inventory")[0]
    assert [line for line in report.splitlines()[1:-1] if problem not in line] == []


@pytest.fixture
def taken_port():
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["run", "check mode"])
def test_a_port_that_somebody_else_has_is_told_before_anything_is_made(minio, taken_port, mode):
    absent = "whisper-xeon-test-absent"
    variables = {"minio_container_name": absent, "minio_network": absent, "minio_console_port": taken_port}
    result = minio.play(PLAYBOOK, *mode, "-e", json.dumps(variables), check=False)
    assert result.returncode != 0
    for name, port in (("minio_port", PORT), ("minio_console_port", taken_port)):
        assert f"{name} {port} is in use on 127.0.0.1, and not by container {absent}" in result.said
    for kind in ("container", "volume", "network"):
        assert absent not in docker(kind, "ls", *(["--all"] if kind == "container" else [])).stdout


def test_existing_store_is_only_checked(minio):
    result = minio.play(PLAYBOOK, "-e", "minio_managed=false", "-e", "minio_container_name=whisper-xeon-test-absent")
    assert result.changed == 0
    assert "whisper-xeon-test-absent" not in docker("ps", "--all", "--format", "{{.Names}}").stdout


def test_existing_store_that_is_not_there_is_named(minio):
    result = minio.play(
        PLAYBOOK, "-e", "minio_managed=false", "-e", "artifact_store_endpoint=http://127.0.0.1:9", check=False
    )
    assert result.returncode != 0
    assert "http://127.0.0.1:9 does not answer" in result.said
