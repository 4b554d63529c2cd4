"""Every playbook rejects variables under their old names, in one report, and accepts what the script renamed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from paths import FIXTURES, ROOT
from playbook import playbook_process, run_playbook
from signing import PUBLIC

NAMES = ("build", "deploy", "images", "minio", "rollback", "status", "uninstall")


@pytest.fixture
def old(tmp_path) -> Path:
    """An inventory as inventory/example was before variables were renamed."""
    return shutil.copytree(FIXTURES / "old_inventory", tmp_path / "local")


def rename(inventory: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "rename_variables.py", inventory]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def renamed(old) -> Path:
    """The same after the script."""
    rename(old)
    return old


@pytest.mark.parametrize("name", NAMES)
def test_every_playbook_begins_by_rejecting_old_names(name):
    first = yaml.safe_load((ROOT / "playbooks" / f"{name}.yml").read_text("utf-8"))[0]
    task = (first.get("pre_tasks") or first["tasks"])[0]
    assert "whisper.xeon.renamed_variables" in task
    assert task["tags"] == ["always"]


def test_no_playbook_is_missing_above():
    assert {path.stem for path in (ROOT / "playbooks").glob("*.yml")} == set(NAMES)


def test_one_report_says_of_every_old_name_where_it_is_and_what_it_is_called_now(old):
    play = run_playbook("deploy.yml", "-e", '{"artifact_dir": "dist"}', inventory=old, check=False)
    assert play.returncode == 2
    assert play.output.count("TASK [") == 1
    report = [line.strip() for line in play.output.partition("fatal: ")[2].partition("msg: |-")[2].splitlines()]
    store = old / "group_vars" / "all" / "store.yml"
    lines = {text.split(":")[0]: number for number, text in enumerate(store.read_text("utf-8").splitlines(), 1)}
    hosts = [f"{path}:{2 if '-1' in path.name else 1}" for path in sorted((old / "host_vars").glob("speech-*"))]
    assert report[1:10] == [
        "These variables have new names or are gone:",
        "artifact_dir is now whisper_service_artifact_dir (<CLI option '-e'>)",
        f"whisper_model is now whisper_service_model ({', '.join(hosts)})",
        *(
            f"whisper_store_{name} is now artifact_store_{name} ({store}:{lines[f'whisper_store_{name}']})"
            for name in ("bucket", "channel", "endpoint", "host_endpoint", "region")
        ),
        f"`scripts/rename_variables.py {old}` renames them in an inventory; `--dry-run` only shows what it would do.",
    ]


def test_the_command_that_the_report_names_works_where_the_run_was_started(old):
    how = playbook_process(ROOT / "deploy.yml", inventory="local", env={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")})
    here = {"cwd": old.parent, "env": {**how["env"], "PWD": str(old.parent)}}
    said = " ".join(subprocess.run(**{**how, **here}, stdout=subprocess.PIPE, text=True).stdout.split())
    command = re.search(r"`([^`]+)` renames them", said)[1]
    renames = subprocess.run([sys.executable, *shlex.split(command)], **here, capture_output=True, text=True)
    assert renames.returncode == 0, renames.stderr
    assert "local/group_vars/all/store.yml: whisper_store_endpoint -> artifact_store_endpoint" in renames.stdout


def test_a_variable_that_is_gone_is_reported_with_what_to_do_instead():
    given = ("-e", '{"whisper_service_model_of": {}}')
    play = run_playbook("deploy.yml", *given, inventory=ROOT / "inventory" / "example", check=False)
    assert play.returncode != 0
    assert "whisper_service_model_of is gone: set whisper_service_model on each host (<CLI option '-e'>)" in play.said


def test_a_name_in_an_encrypted_file_is_reported_without_its_value(old, tmp_path):
    (tmp_path / "password").write_text("of the vault")
    vault = old / "group_vars" / "all" / "vault.yml"
    vault.write_text("whisper_store_secret_key: hidden-value\n")
    command = ["ansible-vault", "encrypt", "--vault-password-file", tmp_path / "password", vault]
    subprocess.run(command, check=True, capture_output=True)
    given = ("--vault-password-file", str(tmp_path / "password"))
    play = run_playbook("playbooks/status.yml", *given, inventory=old, check=False)
    assert f"whisper_store_secret_key is now artifact_store_secret_key ({vault}:1)" in play.said
    assert "hidden-value" not in play.output


def keep(inventory: Path, **values: str) -> None:
    """Write what a vault would hold."""
    (inventory / "group_vars" / "all" / "vault.yml").write_text(yaml.safe_dump(values))


def test_renamed_inventory_is_all_that_a_deploy_needs(renamed):
    assert "http://127.0.0.1:9 does not answer" in deploy_from_nowhere(renamed)


@pytest.mark.parametrize("given", [(), ("-e", "release=12345678")], ids=["inventory", "command line"])
def test_releases_that_an_inventory_gives_to_models_are_those_of_a_deploy(old, given):
    releases = {"artifact_publish_releases": {"medium": "6cb04b80", "small": 87654321}}
    (old / "group_vars" / "all" / "releases.yml").write_text(yaml.safe_dump(releases))
    rename(old)
    asked = re.findall(r"does not answer \((releases/\w+)", deploy_from_nowhere(old, *given))
    # Of the first host's model.
    assert set(asked) == ({"releases/12345678"} if given else {"releases/87654321"})


def deploy_from_nowhere(inventory: Path, *arguments: str) -> str:
    """Return what a deploy says without a store to fetch from."""
    keep(inventory, artifact_store_reader_access_key="reader", artifact_store_reader_secret_key="of the reader")
    nowhere = {"artifact_store_endpoint": "http://127.0.0.1:9", "whisper_service_trusted_keys": [PUBLIC]}
    play = run_playbook("deploy.yml", "-e", json.dumps(nowhere), *arguments, inventory=inventory, check=False)
    assert play.returncode != 0
    return play.said


def test_renamed_inventory_gives_minio_the_accounts_of_the_store(renamed):
    keys = {"artifact_store_access_key": "publisher", "artifact_store_secret_key": "short"}
    keep(renamed, **keys, minio_root_user="root", minio_root_password="long enough for MinIO")
    play = run_playbook("playbooks/minio.yml", inventory=renamed, check=False)
    assert play.returncode != 0
    assert "minio_publisher_secret_key needs at least 12 characters" in play.said
    assert "minio_reader" not in play.output
