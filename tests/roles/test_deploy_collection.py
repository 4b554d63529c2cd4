"""The collection, built and installed as from a server of collections, is all that a playbook elsewhere needs."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from host_container import Host, Hosts
from paths import ROOT

# In files of the clone that are of no use elsewhere.
SECRET = secrets.token_hex(16)
PLAYBOOK = """\
- name: Deploy
  hosts: whisper-xeon-test-small
  become: true
  gather_facts: false
  roles:
    - role: whisper.xeon.whisper_service
      vars:
        whisper_service_model: medium
        whisper_service_transport: copy
        whisper_service_artifact_dir: dist
"""


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PWD": str(cwd), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-20000:]
    return result.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """What `ansible-galaxy collection build` makes of a clone in use, with secrets and builds in it."""
    folder = tmp_path_factory.mktemp("collection")
    clone = folder / "clone"
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("tests/fixtures/"):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    for name in (".env", ".state/demo/minio.yml", "inventory/local/group_vars/all/vault.yml", "dist/x", ".build/x"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(SECRET)
    run("ansible-galaxy", "collection", "build", "--output-path", folder, cwd=clone)
    (made,) = folder.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def installed(archive) -> Path:
    """Where the collection is installed, for ANSIBLE_COLLECTIONS_PATH."""
    target = archive.parent / "collections"
    # --force: also where the person who runs the tests has it.
    options = ("--offline", "--no-deps", "--force", "--collections-path", target)
    run("ansible-galaxy", "collection", "install", *options, archive, cwd=archive.parent)
    return target


def test_archive_is_named_after_the_version(archive):
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text("utf-8"))["version"]
    assert archive.name == f"whisper-xeon-{version}.tar.gz"


def test_archive_holds_what_roles_need_and_nothing_of_this_machine(archive):
    with tarfile.open(archive) as content:
        files = {member.name for member in content if member.isfile()}
        assert [name for name in files if SECRET.encode() in content.extractfile(name).read()] == []
    tops = {name.split("/")[0] for name in files}
    assert {"app", "docker", "meta", "playbooks", "plugins", "roles", "scripts", "versions.yml"} <= tops
    assert not {"tests", "molecule", "bench", "collections", ".ci", "Dockerfile", "Makefile"} & tops
    assert {name for name in files if name.startswith("scripts/")} == {
        "scripts/download_whisper_artifacts.py",
        "scripts/go_install.sh",
        "scripts/rename_variables.py",
    }
    assert not [name for name in files if name.startswith(("inventory/demo", "playbooks/demo"))]


def test_every_path_that_a_role_takes_from_the_collection_is_in_it(installed):
    collection = installed / "ansible_collections" / "whisper" / "xeon"
    roots = (r"role_path \| dirname \| dirname }}", r"role_path }}/\.\./\.\.", r"_project_dir }}")
    pattern = re.compile(rf"{{{{ \w*(?:{'|'.join(roots)})/([\w./-]+)")
    texts = [path.read_text("utf-8") for path in collection.glob("roles/*/*/*.yml")]
    found = {path.rstrip(".") for text in texts for path in pattern.findall(text)}
    outputs = {"dist", ".build/context"}
    assert found >= {"app", "versions.yml", "docker/builder", "docker/minio", "docker/host", "scripts/go_install.sh"}
    assert {path for path in found - outputs if not (collection / path).exists()} == set()


def test_collection_deploys_from_an_empty_directory(
    installed, hosts: Hosts, small: Host, artifacts_dir, exact_recordings, tmp_path
):
    (tmp_path / "playbook.yml").write_text(PLAYBOOK, "utf-8")
    (tmp_path / "dist").symlink_to(artifacts_dir)
    command = ("ansible-playbook", "-i", hosts.inventory, "playbook.yml")
    run(*command, cwd=tmp_path, env={"ANSIBLE_COLLECTIONS_PATH": str(installed)})
    assert small.version()["model"] == "medium"
    assert small.transcribe(exact_recordings[0]["path"]) == exact_recordings[0]["text"]
