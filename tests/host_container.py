"""Fixture `hosts`: two Debian machines in containers, made by the real role, reached by Ansible over SSH.

They stand on the network of fixture `minio`, so that a deploy can take its packages from there.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from playbook import Play, run_playbook

NAMES = {"small": "whisper-xeon-test-small", "medium": "whisper-xeon-test-medium"}
SSH_PORTS = {"small": 12201, "medium": 12202}
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


@dataclass(frozen=True)
class Hosts:
    """The two hosts and the inventory that names them, each with the model of its own name in its host variables."""

    inventory: Path
    small: Host
    medium: Host

    def play(self, playbook: str, *arguments: str, check: bool = True) -> Play:
        """Run a playbook for both hosts; see `run_playbook`."""
        return run_playbook(playbook, *arguments, inventory=self.inventory, check=check)

    def deploy_copy(self, artifact_dir: Path, *arguments: str, check: bool = True) -> Play:
        """Deploy from a folder of this machine, without a store."""
        copy = ("-e", "artifact_transport=copy", "-e", f"artifact_dir={artifact_dir}")
        return self.play("deploy.yml", *copy, *arguments, check=check)

    def deploy_from(self, store: Any, *arguments: str, check: bool = True) -> Play:
        """Deploy from the store of fixture `minio`."""
        wanted = {name: value for name, value in store.variables.items() if name.startswith("whisper_store_")}
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
        "container_host_project": "test",
        "container_host_state_dir": str(state),
    }
    members = {
        NAMES[model]: {
            "ansible_port": SSH_PORTS[model],
            "container_host_service_port": SERVICE_PORTS[model],
            "whisper_model": model,
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
    made.play("playbooks/demo_hosts.yml", "-e", "demo_hosts_state=absent")
    made.play("playbooks/demo_hosts.yml")
    yield made
    made.play("playbooks/demo_hosts.yml", "-e", "demo_hosts_state=absent")
