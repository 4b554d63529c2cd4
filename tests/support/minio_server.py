"""Fixture `minio`: the real store, started by the real playbook, with names, ports and credentials of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from playbook import Play, one_at_a_time, run_playbook
from signing import PUBLIC, TRUSTED
from whisper_store.settings import StoreSettings
from whisper_store.store import Store

# Each worker of pytest-xdist has its own. Another port lets a second test session run beside this one.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORT = int(os.environ.get("WHISPER_XEON_TEST_MINIO_PORT", "19000")) + 2 * WORKER
CONTAINER = "whisper-xeon-test-minio" + (f"-{PORT}" if PORT != 19000 else "")
NETWORK = "whisper-xeon-test"
# What MinIO makes: the bucket and the accounts with which the store is used; and what the playbooks hand on.
MINIO = {
    "artifact_store_trusted_keys": "{{ whisper_service_trusted_keys }}",
    "minio_bucket": "{{ artifact_store_bucket }}",
    "minio_publisher_access_key": "{{ artifact_store_access_key }}",
    "minio_publisher_secret_key": "{{ artifact_store_secret_key }}",
    "minio_reader_access_key": "{{ artifact_store_reader_access_key }}",
    "minio_reader_secret_key": "{{ artifact_store_reader_secret_key }}",
}


def gateway() -> str:
    """Return the address at which what stands on the network of `minio` reaches this machine."""
    command = ["docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", NETWORK]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@dataclass(frozen=True)
class MinioServer:
    """A running MinIO; `variables` says all about it as inventory variables, which `variables_file` holds as JSON."""

    inventory: Path
    variables_file: Path
    variables: dict[str, Any] = field(repr=False)

    @property
    def endpoint(self) -> str:
        """Address of the store as this machine reaches it."""
        return self.variables["artifact_store_endpoint"]

    @property
    def secrets(self) -> list[str]:
        """Every secret that no output may ever show."""
        return [value for name, value in self.variables.items() if name.endswith(("_secret_key", "_password"))]

    def settings(self, account: str = "publisher", **changes: Any) -> StoreSettings:
        """Return the settings of account `publisher`, `reader` or `root`."""
        access_key, secret_key = {
            "publisher": ("artifact_store_access_key", "artifact_store_secret_key"),
            "reader": ("artifact_store_reader_access_key", "artifact_store_reader_secret_key"),
            "root": ("minio_root_user", "minio_root_password"),
        }[account]
        values = {
            "endpoint": self.endpoint,
            "access_key": self.variables[access_key],
            "secret_key": self.variables[secret_key],
            "bucket": self.variables["artifact_store_bucket"],
        }
        return StoreSettings(**{**values, **changes})

    def store(self, account: str = "publisher", **changes: Any) -> Store:
        """Return the store as an account uses it that trusts the tests' key."""
        return Store(self.settings(account, **changes), trusted=TRUSTED)

    def play(self, playbook: Path | str, *arguments: str, check: bool = True) -> Play:
        """Run a playbook with this store's inventory; see `run_playbook`."""
        return run_playbook(playbook, *arguments, inventory=self.inventory, check=check)

    def remove(self) -> None:
        """Remove the container and its data, also those of a run that was cut off."""
        self.play("playbooks/minio.yml", "-e", "minio_state=absent", "-e", "minio_remove_volume=true")


@pytest.fixture(scope="session")
def minio(tmp_path_factory) -> MinioServer:
    """The store of this test session, on 127.0.0.1 (port 19000, console 19001) and on network `whisper-xeon-test`."""
    folder = tmp_path_factory.mktemp("minio")
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "minio_container_name": CONTAINER,
        "minio_network": NETWORK,
        "minio_labels": {"io.whisper-xeon.project": "test"},
        "minio_port": PORT,
        "minio_console_port": PORT + 1,
        "minio_root_user": "test-root",
        # Signs that mean something to a shell, a URL or YAML.
        "minio_root_password": "r:@/ %2B'$" + secrets.token_hex(12),
        "artifact_store_endpoint": f"http://127.0.0.1:{PORT}",
        "artifact_store_host_endpoint": f"http://{CONTAINER}:9000",
        "artifact_store_bucket": "whisper-artifacts",
        "artifact_store_access_key": "test-publisher",
        "artifact_store_secret_key": secrets.token_hex(16),
        "artifact_store_reader_access_key": "test-reader",
        "artifact_store_reader_secret_key": secrets.token_hex(16),
        "whisper_service_trusted_keys": [PUBLIC],
    }
    variables_file = folder / "variables.json"
    variables_file.touch(mode=0o600)
    variables_file.write_text(json.dumps(variables), encoding="utf-8")
    inventory = folder / "inventory.json"
    inventory.touch(mode=0o600)
    group = {"hosts": {"localhost": None}, "vars": MINIO}
    inventory.write_text(
        json.dumps({"all": {"vars": variables, "children": {"whisper_store": group}}}), encoding="utf-8"
    )
    server = MinioServer(inventory, variables_file, variables)
    with one_at_a_time():
        server.remove()
    try:
        with one_at_a_time():
            server.play("playbooks/minio.yml")
        yield server
    finally:
        with one_at_a_time():
            server.remove()


def account_environment(settings: StoreSettings) -> dict[str, str]:
    """Return the environment of a command that reaches the store with an account: nothing else of ours is in it."""
    ours = ("MINIO_", "WHISPER_", "AWS_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "MINIO_ENDPOINT": settings.endpoint,
        "MINIO_ACCESS_KEY": settings.access_key,
        "MINIO_SECRET_KEY": settings.secret_key,
        "WHISPER_TRUSTED_KEYS": PUBLIC,
    }
