"""What the deploy says of keys and certificates before it touches a host."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from certificates import Authority
from collection_module import load_module
from paths import ROOT
from playbook import run_playbook

secrets = load_module("whisper_service_secrets")


@pytest.fixture
def pairs(tmp_path) -> list[tuple[str, str]]:
    """Texts of the certificates and keys of two hosts."""
    authority = Authority(tmp_path)
    issued = [authority.issue(name, f"{name}.pem", f"{name}.key") for name in ("one", "two")]
    return [(chain.read_text("ascii"), key.read_text("ascii")) for chain, key in issued]


def test_a_pair_is_fine_and_so_is_none(pairs):
    assert secrets.certificate_problems(*pairs[0]) == []
    assert secrets.certificate_problems("", "") == []


def test_the_key_of_another_host_is_a_problem(pairs):
    (problem,) = secrets.certificate_problems(pairs[0][0], pairs[1][1])
    assert "whisper_service_tls_key cannot be used: they do not belong together" in problem


@pytest.mark.parametrize("missing", [0, 1])
def test_half_a_pair_is_a_problem(pairs, missing):
    half = [text if number != missing else "" for number, text in enumerate(pairs[0])]
    (problem,) = secrets.certificate_problems(*half)
    assert "must both be set, or neither" in problem


def test_what_is_no_pem_is_a_problem_that_tells_nothing_of_the_key(pairs):
    body = pairs[0][1].splitlines()[1]
    (problem,) = secrets.certificate_problems(pairs[0][0], body)
    assert "whisper_service_tls_key cannot be used: " in problem
    assert body not in problem


def test_a_key_with_a_password_is_a_problem(pairs):
    locked = subprocess.run(
        ["openssl", "pkey", "-aes256", "-passout", "pass:word"], input=pairs[0][1], capture_output=True, text=True
    ).stdout
    (problem,) = secrets.certificate_problems(pairs[0][0], locked)
    assert "the key has a password" in problem


def test_keys_are_checked_and_not_told():
    assert secrets.key_problems("key-one name=calls\n", {}) == []
    assert secrets.key_problems("key-one and more", {})[0].startswith("whisper_service_api_keys: line 1: after the key")
    assert "both set" in secrets.key_problems("key-one", {"WHISPER_API_KEY_FILE": "/etc/keys"})[0]


def test_a_key_that_can_be_guessed_is_warned_of_by_its_line():
    text = f"# of 2026\n{'k' * 16} name=calls\n\nword name=archive-of-the-year\nsha256:{'0' * 64}\n"
    (warning,) = secrets.key_warnings(text)
    assert warning.startswith("whisper_service_api_keys: line 4: a key of fewer than 16 characters")
    assert "word" not in warning


@pytest.fixture
def plan(tmp_path):
    """Have the role check the secrets and plan a deployment; return both results, without a package to deploy."""

    def run(**variables) -> tuple[dict, dict]:
        role = {"name": "whisper.xeon.whisper_service", "tasks_from": "steps/plan.yml", "public": True}
        found = "{{ [__whisper_service_secrets, __whisper_service_plan] | to_json }}"
        tasks = [
            {"ansible.builtin.include_role": role},
            {"ansible.builtin.copy": {"content": found, "dest": str(tmp_path / "found"), "mode": "0600"}},
        ]
        play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
        (tmp_path / "plan.yml").write_text(json.dumps([play]), "utf-8")
        given = {
            "ansible_python_interpreter": sys.executable,
            "whisper_service_app_dir": str(ROOT / "app"),
            "whisper_service_artifact_dir": str(tmp_path),
            "whisper_service_model": "small",
            "whisper_service_transport": "copy",
            "whisper_service_trusted_keys": [],
            **variables,
        }
        run_playbook(tmp_path / "plan.yml", "-c", "local", "-e", json.dumps(given), inventory="localhost,")
        return tuple(json.loads((tmp_path / "found").read_text("utf-8")))

    return run


def test_a_key_that_is_a_word_of_the_plan_leaves_the_plan_alone(plan):
    """Ansible blanks out secrets in the results of the module that is given them."""
    checked, planned = plan(whisper_service_api_keys="small")
    assert (checked["problems"], planned["package"]) == ([], "whisper_small_xeon")
    assert len(checked["warnings"]) == 1


def test_a_certificate_among_the_settings_makes_the_health_check_ask_by_https(plan):
    own = {"WHISPER_TLS_CERT": "/etc/ssl/speech/cert.pem", "WHISPER_TLS_KEY": "/etc/ssl/speech/key.pem"}
    assert plan(whisper_service_settings=own)[1]["url"] == "https://127.0.0.1:8000"
    assert plan()[1]["url"] == "http://127.0.0.1:8000"
