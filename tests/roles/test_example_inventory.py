"""inventory/example is what a user copies: it parses, says only what somebody reads, and the docs show its groups."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from paths import ROOT
from playbook import run_playbook
from signing import PUBLIC
from whisper_package.models import MODEL_CONFIGS
from whisper_xeon.settings import load_settings

EXAMPLE = ROOT / "inventory" / "example"
VAULT_TEMPLATE = EXAMPLE / "group_vars" / "all" / "vault.yml.example"
VARIABLE_FILES = sorted([*EXAMPLE.glob("*_vars/**/*.yml"), VAULT_TEMPLATE])
HOSTS = {f"speech-{number}.example.org" for number in range(1, 5)} | {"speech-5.internal.example.org"}
TRUSTING = json.dumps({"whisper_service_trusted_keys": [PUBLIC]})
CONNECTION = {"ansible_connection", "ansible_python_interpreter", "ansible_ssh_common_args", "ansible_user"}


def inventory_tool(*arguments: str, inventory: Path = EXAMPLE) -> str:
    return subprocess.run(
        ["ansible-inventory", "-i", str(inventory), *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def variables(path: Path) -> dict:
    return yaml.safe_load(path.read_text("utf-8")) or {}


def settings_by_host(inventory: Path, folder: Path) -> dict[str, dict]:
    """Return what Ansible makes of `whisper_service_settings` for each host."""
    play = {
        "hosts": "whisper_hosts",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "dest": str(folder / "settings.json"),
                    "content": "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all"
                    " | map('extract', hostvars, 'whisper_service_settings'))) | to_json }}",
                },
                "delegate_to": "localhost",
                "run_once": True,
            }
        ],
    }
    playbook = folder / "settings.yml"
    playbook.write_text(json.dumps([play]), "utf-8")
    run_playbook(playbook, inventory=inventory)
    return json.loads((folder / "settings.json").read_text("utf-8"))


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy to change, as README tells a user to make one."""
    return shutil.copytree(EXAMPLE, tmp_path / "local")


@pytest.fixture(scope="module")
def listed() -> dict:
    return json.loads(inventory_tool("--list"))


def test_the_docs_show_the_groups():
    assert inventory_tool("--graph") in (ROOT / "docs" / "inventory.md").read_text("utf-8")


def test_every_host_serves_a_model_that_exists(listed):
    models = {host: listed["_meta"]["hostvars"][host]["whisper_service_model"] for host in HOSTS}
    assert set(models.values()) <= set(MODEL_CONFIGS)


def test_every_variable_is_read_by_a_role_or_the_inventory_itself():
    options = {
        name
        for path in ROOT.glob("roles/*/meta/argument_specs.yml")
        for entry in variables(path)["argument_specs"].values()
        for name in entry.get("options", {})
    }
    expressions = " ".join(re.findall(r"{{.*?}}", "".join(path.read_text("utf-8") for path in VARIABLE_FILES)))
    known = options | CONNECTION | set(re.findall(r"\w+", expressions))
    assert {(path.name, name) for path in VARIABLE_FILES for name in variables(path) if name not in known} == set()


def test_every_file_of_variables_belongs_to_a_group_or_a_host(listed):
    groups = {path.stem for path in EXAMPLE.glob("group_vars/*")}
    hosts = {path.name.removesuffix(".yml") for path in EXAMPLE.glob("host_vars/*")}
    assert groups - set(listed) == set()
    assert hosts == HOSTS | {"localhost"}


def test_service_takes_the_settings_of_every_host(tmp_path):
    found = settings_by_host(EXAMPLE, tmp_path)
    assert set(found) == HOSTS
    for settings in found.values():
        assert load_settings({name: str(value) for name, value in settings.items()})[1] == []


def test_one_more_machine_is_one_more_line_and_its_model(copy, tmp_path):
    hosts = copy / "hosts.yml"
    line = "            speech-4.example.org:\n"
    hosts.write_text(hosts.read_text("utf-8").replace(line, line + line.replace("4", "6")), "utf-8")
    (copy / "host_vars" / "speech-6.example.org.yml").write_text("whisper_service_model: medium\n", "utf-8")
    found = settings_by_host(copy, tmp_path)
    assert found["speech-6.example.org"] == found["speech-4.example.org"]


def test_jump_host_leads_to_the_machines_behind_it(listed):
    behind = {
        host for host in HOSTS if "ProxyJump" in listed["_meta"]["hostvars"][host].get("ansible_ssh_common_args", "")
    }
    assert behind == set(listed["behind_jump_host"]["hosts"])


def test_every_play_of_a_deploy_is_for_all_hosts():
    said = run_playbook("deploy.yml", "--list-hosts", inventory=EXAMPLE).said
    plays = [set(text.split(" play #")[0].split()) for text in said.split("hosts (5): ")[1:]]
    assert len(plays) == said.count("play #")
    assert [play for play in plays if play != HOSTS] == []


def test_example_holds_no_credential():
    assert {name: value for name, value in variables(VAULT_TEMPLATE).items() if value} == {}
    secret = re.compile(r"_(access_key|secret_key|password|root_user)$")
    reference = re.compile(r"\{\{ artifact_store_\w+( \| default\(''\))? \}\}")
    plain = [path for path in VARIABLE_FILES if path != VAULT_TEMPLATE]
    values = [item for path in plain for item in variables(path).items() if secret.search(item[0])]
    assert [(name, value) for name, value in values if not reference.fullmatch(value)] == []


class TestVault:
    """The vault, made as README's quick start says; a key is trusted, and the store's address leads nowhere."""

    @pytest.fixture
    def deploy(self, copy, tmp_path, monkeypatch):
        """Fill the template's lines in, encrypt them and deploy; what ansible-playbook said."""

        # README has a user set it; ansible-vault takes one password to encrypt with.
        monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)

        def run(**values: str):
            password = tmp_path / "password"
            password.write_text("of the vault", "utf-8")
            folder = copy / "group_vars" / "all"
            (folder / "vault.yml.example").write_text(json.dumps({**variables(VAULT_TEMPLATE), **values}), "utf-8")
            command = ["ansible-vault", "encrypt", "--output", "vault.yml", "vault.yml.example"]
            subprocess.run([*command, "--vault-password-file", password], cwd=folder, check=True, capture_output=True)
            nowhere = ("-e", "artifact_store_endpoint=http://127.0.0.1:9", "-e", TRUSTING)
            return run_playbook(
                "deploy.yml", *nowhere, "--vault-password-file", str(password), inventory=copy, check=False
            )

        return run

    def test_empty_lines_are_refused_by_name(self, deploy):
        play = deploy()
        assert play.returncode != 0
        assert "artifact_store_access_key, artifact_store_secret_key without a value" in play.said

    def test_filled_lines_are_all_that_a_deploy_needs(self, deploy):
        play = deploy(artifact_store_reader_access_key="reader", artifact_store_reader_secret_key="of the reader")
        assert play.returncode != 0
        assert "http://127.0.0.1:9 does not answer" in play.said
        assert "of the reader" not in play.said
