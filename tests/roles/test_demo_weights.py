"""What the demo serves: real weights or the fixtures, as `make demo` was told, and as the commands after it find it."""

from __future__ import annotations

import json

import pytest

from paths import ROOT
from playbook import run_playbook

INVENTORY = ROOT / "inventory" / "demo"


def note(weights: str, directory, **how):
    variables = json.dumps({"demo_weights": weights, "demo_state_dir": str(directory)})
    return run_playbook("playbooks/demo/credentials.yml", "--extra-vars", variables, inventory=INVENTORY, **how)


@pytest.mark.parametrize(("weights", "models"), [("openai", "base tiny.en"), ("fixture", "small medium")])
def test_later_runs_follow_what_the_demo_was_told(weights, models, tmp_path):
    note(weights, tmp_path)
    play = tmp_path / "models.yml"
    message = "serves {{ groups.whisper_hosts | map('extract', hostvars, 'whisper_service_model') | join(' ') }}"
    task = {"ansible.builtin.debug": {"msg": message}}
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    found = run_playbook(play, "--extra-vars", json.dumps({"demo_state_dir": str(tmp_path)}), inventory=INVENTORY)
    assert f"serves {models}" in found.said


def test_unknown_weights_are_rejected(tmp_path):
    found = note("fixtures", tmp_path / "state", check=False)
    assert found.returncode == 2
    assert "WEIGHTS=fixtures: the demo has openai and fixture" in found.said
    assert not (tmp_path / "state").exists()
