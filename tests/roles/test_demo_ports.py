"""The demo's ports are looked at before anything is made, and a wrong or taken one is told by what chooses it."""

from __future__ import annotations

import json
import socket

import pytest

from paths import ROOT
from playbook import Play, run_playbook

NAMES = ("MINIO", "CONSOLE", "1", "2", "1_SSH", "2_SSH")
# The containers of the tests that stand where the demo has its own.
CONTAINERS = ("minio", "minio", "small", "medium", "small", "medium")


@pytest.fixture
def free() -> dict[str, str]:
    """Settings with six ports on which nobody listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
    ports = {name: str(each.getsockname()[1]) for name, each in zip(NAMES, sockets, strict=True)}
    for each in sockets:
        each.close()
    return ports


def look(ports: dict[str, str], project: str = "test-demo-ports") -> Play:
    env = {f"WHISPER_XEON_DEMO_{name}_PORT": port for name, port in ports.items()}
    containers = {
        f"WHISPER_XEON_DEMO_{name}_PORT": f"whisper-xeon-{project}-{container}"
        for name, container in zip(NAMES, CONTAINERS, strict=True)
    }
    arguments = ["--extra-vars", json.dumps({"demo_project": project, "demo_containers": containers})]
    inventory = ROOT / "inventory" / "demo"
    return run_playbook("playbooks/demo/ports.yml", *arguments, inventory=inventory, env=env, check=False)


def test_free_ports_are_taken(free):
    assert look(free).returncode == 0


def test_every_taken_port_is_told_by_what_chooses_it(free):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("0.0.0.0", 0)) as other:
        taken = {"1": str(one.getsockname()[1]), "MINIO": str(other.getsockname()[1])}
        found = look({**free, **taken})
    assert found.returncode == 2
    for name, port in taken.items():
        container = f"whisper-xeon-test-demo-ports-{dict(zip(NAMES, CONTAINERS, strict=True))[name]}"
        assert f"Port {port} of 127.0.0.1 is in use, and not by {container}" in found.said
        assert f"choose another port with `export WHISPER_XEON_DEMO_{name}_PORT=`" in found.said


@pytest.mark.parametrize("port", ["eight", "0", "70000", "8001;id", "8002"])
def test_what_is_no_port_of_its_own_is_refused(free, port):
    found = look({**free, "2": "8002", "1": port})
    assert found.returncode == 2
    assert f"WHISPER_XEON_DEMO_1_PORT={port}: the demo's ports must be distinct" in found.said


def test_ports_of_the_demo_itself_are_its_own(free, small):
    assert look({**free, "1": str(small.port)}, project="test").returncode == 0
    assert look({**free, "2": str(small.port)}, project="test").returncode == 2
