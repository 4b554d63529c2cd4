"""The demo's own authority: made once, its keys for nobody else, and its certificate for the second host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from paths import ROOT
from playbook import Play, run_playbook

INVENTORY = ROOT / "inventory" / "demo"
VARIABLES = ("whisper_service_tls_certificate", "whisper_service_tls_key")


def on_demo(playbook: Path | str, state: Path) -> Play:
    return run_playbook(playbook, "--extra-vars", json.dumps({"demo_state_dir": str(state)}), inventory=INVENTORY)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("state")
    on_demo("playbooks/demo/authority.yml", directory)
    return directory


def served(state: Path, directory: Path) -> dict[str, list[str]]:
    """Return what the inventory gives each host of `VARIABLES`."""
    play, answer = directory / "variables.yml", directory / "variables.json"
    values = {
        host: [f"{{{{ hostvars['{host}'].{name} | default('') }}}}" for name in VARIABLES]
        for host in ("whisper-xeon-demo-1", "whisper-xeon-demo-2")
    }
    task = {"ansible.builtin.copy": {"content": "{{ values | to_json }}", "dest": str(answer)}}
    play.write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": {"values": values}, "tasks": [task]}])
    )
    on_demo(play, state)
    return json.loads(answer.read_text("utf-8"))


def test_its_certificate_is_for_the_address_that_the_tour_calls(state):
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "127.0.0.1"]
    files = ["-CAfile", state / "tls" / "authority.pem", state / "tls" / "certificate.pem"]
    subprocess.run([*command, *files], check=True, capture_output=True)


def test_its_keys_are_for_nobody_else(state):
    assert (state / "tls").stat().st_mode & 0o777 == 0o700
    for name in ("authority.key", "certificate.key"):
        assert (state / "tls" / name).stat().st_mode & 0o777 == 0o600


def test_it_is_made_once(state):
    before = {path.name: path.read_bytes() for path in (state / "tls").iterdir()}
    assert on_demo("playbooks/demo/authority.yml", state).changed == 0
    assert {path.name: path.read_bytes() for path in (state / "tls").iterdir()} == before


def test_the_second_host_gets_certificate_and_key_and_nobody_the_authority(state, tmp_path):
    own = [(state / "tls" / name).read_text("utf-8").strip() for name in ("certificate.pem", "certificate.key")]
    assert served(state, tmp_path) == {"whisper-xeon-demo-1": ["", ""], "whisper-xeon-demo-2": own}


def test_a_demo_from_before_it_serves_plain_http(tmp_path):
    assert served(tmp_path, tmp_path)["whisper-xeon-demo-2"] == ["", ""]
