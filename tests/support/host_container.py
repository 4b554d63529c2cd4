"""Fixtures `hosts`, `host`, `small` and `both`: Debian machines in containers, made by the real role, reached over SSH.

They stand on the network of fixture `minio`, so that a deploy can take its packages from there.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from playbook import Play, one_at_a_time, run_playbook
from signing import PUBLIC

NAMES = {"small": "whisper-xeon-test-small", "medium": "whisper-xeon-test-medium"}
SSH_PORTS = {"small": 12201, "medium": 12202}
LOCK = "/run/whisper-xeon-deploy.json"  # who changes a host, while somebody does
SERVICE_PORTS = {"small": 18001, "medium": 18002}


@dataclass(frozen=True)
class Host:
    """One container that plays a server."""

    name: str
    port: int

    @property
    def url(self) -> str:
        """Address of its service as this machine reaches it."""
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command as root inside and return what it printed."""
        result = subprocess.run(
            ["docker", "exec", self.name, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert result.returncode == 0 or not check, f"{' '.join(command)} on {self.name}:\n{result.stdout}"
        return result.stdout

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        """Return the JSON of an answer of the service; anything but 200 fails the test."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path} on {self.name}: {answer.status} {content!r}"
        return json.loads(content)

    def version(self) -> dict[str, Any]:
        """What `/version` says."""
        return self.request("GET", "/version")

    def transcribe(self, recording: Path) -> str:
        """Return the text of a recording."""
        boundary = "whisper-xeon-test"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{recording.name}"\r\n\r\n'
        body = head.encode() + recording.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.request("POST", "/v1/audio/transcriptions", body, headers)["text"]

    def main_pid(self) -> str:
        """Process id of the service; another one after each restart."""
        return self.run("systemctl", "show", "--property=MainPID", "--value", "whisper-xeon.service").strip()

    def link(self, name: str) -> str:
        """Digest of the deployment that `current`, `confirmed` or `previous` names."""
        return self.run("readlink", f"/opt/whisper-xeon/{name}", check=False).strip().rpartition("/")[2]

    def serves(self, digest: str) -> bool:
        """Whether it serves deployment `digest`, so that a deploy of the same would change nothing."""
        units = ("whisper-xeon.service", "whisper-xeon.socket")
        return (
            self.link("current") == self.link("confirmed") == digest
            and self.run("systemctl", "is-active", *units, check=False).split() == ["active", "active"]
            and self.version()["release_id"] == self.deployed()["release_id"]
        )

    def deployed(self) -> dict[str, Any]:
        """The record of the deployment that `current` names."""
        return json.loads(self.run("cat", "/opt/whisper-xeon/current/deployment.json"))


def table_row(output: str, host: Host) -> str:
    """Return the line about a host in the last table of a run's output, with single spaces; the recap's has a colon."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip().startswith(f"{host.name}  ")]
    return [line for line in lines if not line.startswith(f"{host.name} :")][-1]


@dataclass(frozen=True)
class Hosts:
    """The two hosts and the inventory that names them, each with the model of its own name in its host variables."""

    inventory: Path
    small: Host
    medium: Host
    wanted: dict[str, str] = field(default_factory=dict)  # host name: digest of what its host variables ask for

    def play(self, playbook: str, *arguments: str, check: bool = True) -> Play:
        """Run a playbook for both hosts; see `run_playbook`."""
        return run_playbook(playbook, *arguments, inventory=self.inventory, check=check)

    def restore(self, artifacts_dir: Path, *members: Host) -> None:
        """Let hosts serve what their host variables ask for; those that do are left alone.

        A rollback is tried where it would do, because it takes half of a deploy's time.
        """
        stray = self._stray(members)
        if back := [host for host in stray if host.link("previous") == self.wanted.get(host.name)]:
            self.play("playbooks/rollback.yml", "--limit", ",".join(host.name for host in back), check=False)
            stray = self._stray(members)
        if stray:
            self.deploy_copy(artifacts_dir, "--limit", ",".join(host.name for host in stray))
            self.note_wanted(*stray)

    def note_wanted(self, *members: Host) -> None:
        """Note that hosts have just got what their host variables ask for."""
        self.wanted.update({host.name: host.link("confirmed") for host in members})

    def _stray(self, members: Iterable[Host]) -> list[Host]:
        return [host for host in members if not host.serves(self.wanted.get(host.name, "unknown"))]

    def deploy_copy(self, artifact_dir: Path | str, *arguments: str, check: bool = True) -> Play:
        """Deploy from a folder of this machine, without a store."""
        copy = ("-e", "whisper_service_transport=copy", "-e", f"whisper_service_artifact_dir={artifact_dir}")
        return self.play("deploy.yml", *copy, *arguments, check=check)

    def deploy_from(self, store: Any, *arguments: str, check: bool = True) -> Play:
        """Deploy from the store of fixture `minio`."""
        wanted = {name: value for name, value in store.variables.items() if name.startswith("artifact_store_")}
        variables = self.inventory.parent / "store.json"
        variables.touch(mode=0o600)
        variables.write_text(json.dumps(wanted), encoding="utf-8")
        return self.play("deploy.yml", "-e", f"@{variables}", *arguments, check=check)


def write_inventory(folder: Path) -> Path:
    """Write the inventory of the two hosts into `folder` and return its path."""
    state = folder / "state"
    variables = {
        "ansible_host": "127.0.0.1",
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(state / "ssh" / "id_ed25519"),
        "ansible_ssh_common_args": f"-o IdentitiesOnly=yes -o UserKnownHostsFile={state / 'ssh' / 'known_hosts'}",
        "whisper_service_trusted_keys": [PUBLIC],
        "container_host_project": "test",
        "container_host_state_dir": str(state),
    }
    members = {
        NAMES[model]: {
            "ansible_port": SSH_PORTS[model],
            "container_host_service_port": SERVICE_PORTS[model],
            "whisper_service_model": model,
        }
        for model in NAMES
    }
    inventory = folder / "hosts.json"
    inventory.write_text(
        json.dumps({"all": {"children": {"whisper_hosts": {"hosts": members, "vars": variables}}}}), encoding="utf-8"
    )
    return inventory


@pytest.fixture(scope="session")
def hosts(tmp_path_factory) -> Iterator[Hosts]:
    """Two fresh hosts with nothing of whisper-xeon on them, on 127.0.0.1:18001 and :18002."""
    inventory = write_inventory(tmp_path_factory.mktemp("hosts"))
    made = Hosts(inventory, *(Host(NAMES[model], SERVICE_PORTS[model]) for model in ("small", "medium")))
    absent = ("playbooks/demo/hosts.yml", "-e", "container_host_state=absent")
    with one_at_a_time():
        made.play(*absent)
        made.play("playbooks/demo/hosts.yml")
    yield made
    with one_at_a_time():
        made.play(*absent)


@pytest.fixture
def both(hosts: Hosts, artifacts_dir) -> Hosts:
    """Both hosts, each serving the model of its host variables."""
    hosts.restore(artifacts_dir, hosts.small, hosts.medium)
    return hosts


@pytest.fixture
def small(hosts: Hosts, artifacts_dir) -> Host:
    """The small host, serving `small`."""
    hosts.restore(artifacts_dir, hosts.small)
    return hosts.small


@pytest.fixture
def host(hosts: Hosts) -> Host:
    """The small host, whatever it serves: for tests that only look at what a deploy of their own leaves."""
    return hosts.small


@pytest.fixture
def deploy(hosts: Hosts, artifacts_dir, host: Host) -> Callable[..., Play]:
    """Deploy to the small host by copy, from the real packages if no folder is given."""

    def run(*arguments: str, artifact_dir: Path | str = artifacts_dir, check: bool = True) -> Play:
        return hosts.deploy_copy(artifact_dir, "--limit", host.name, *arguments, check=check)

    return run
