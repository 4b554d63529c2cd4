"""Two clones on one machine: a demo belongs to the one that made it, until that is gone."""

from __future__ import annotations

import json

import pytest

from docker_client import docker
from paths import ROOT
from playbook import Play, run_playbook

PROJECT = "test-demo-owner"
VOLUME = "whisper-xeon-test-demo-owner"


@pytest.fixture
def leave():
    """Leave a demo's volume behind, as the clone in a folder would."""

    def remove() -> None:
        docker("volume", "rm", "--force", VOLUME)

    def leave(clone) -> None:
        remove()
        labels = {"io.whisper-xeon.project": PROJECT, "io.whisper-xeon.clone": str(clone)}
        docker("volume", "create", *(f"--label={name}={value}" for name, value in labels.items()), VOLUME)

    yield leave
    remove()


def look(state_dir) -> Play:
    variables = {"demo_project": PROJECT, "demo_state_dir": str(state_dir)}
    arguments = ["--extra-vars", json.dumps(variables)]
    return run_playbook("playbooks/demo/owner.yml", *arguments, inventory=ROOT / "inventory" / "demo", check=False)


def volumes() -> str:
    return docker("volume", "ls", "--quiet", "--filter", f"label=io.whisper-xeon.project={PROJECT}").stdout.strip()


def test_the_demo_of_a_clone_that_is_there_is_left_alone(leave, tmp_path):
    leave(tmp_path)
    found = look(tmp_path / "state")
    assert found.returncode == 2
    assert f"The demo of {tmp_path} is on this machine: run `make clean` there first" in found.said
    assert volumes() == VOLUME


def test_what_a_clone_that_is_gone_left_is_removed(leave, tmp_path):
    leave(tmp_path / "gone")
    assert look(tmp_path / "state").returncode == 0
    assert volumes() == ""


@pytest.mark.parametrize("clone", [ROOT, ROOT / "moved from here"])
def test_the_own_demo_stays(leave, tmp_path, clone):
    (tmp_path / "minio.yml").write_text("{}")  # a clone that moves takes its state along
    leave(clone)
    assert look(tmp_path).changed == 0
    assert volumes() == VOLUME
