"""How `build.yml` signs packages: with a key from a vault or a command of one's own, and without showing the key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from playbook import Play, run_playbook
from sealed_packages import hollow_package
from signing import KEY_FILE, PRIVATE, PUBLIC, TRUSTED
from whisper_package.manifest import SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import new_private_key, public_key

SECRET = PRIVATE.splitlines()[1]


@pytest.fixture
def package(tmp_path) -> Package:
    made = hollow_package(tmp_path)
    made.path(SIGNATURE_NAME).unlink()
    return made


@pytest.fixture
def sign(package, tmp_path):
    """Run the role's part that signs, with variables from an encrypted file, as loud as Ansible can be."""

    def run(check: bool = True, **variables) -> Play:
        role = {"name": "whisper.xeon.artifact_build", "tasks_from": "sign"}
        task = {"name": "Sign", "ansible.builtin.include_role": role}
        built = [{"path": str(package.directory), "model": package.model, "release_id": package.release_id}]
        play = {"hosts": "whisper_builder", "gather_facts": False, "tasks": [task]}
        playbook, vault, password = (tmp_path / name for name in ("playbook.json", "vault.json", "password"))
        playbook.write_text(json.dumps([{**play, "vars": {"artifact_build_packages": built}}]))
        vault.write_text(json.dumps({"artifact_build_signing_key": "", **variables}))
        password.write_text("of the vault")
        command = ["ansible-vault", "encrypt", "--vault-password-file", password, vault]
        subprocess.run(command, check=True, capture_output=True)
        loud = {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1", "ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
        result = run_playbook(playbook, "-vvv", "--diff", "-e", f"@{vault}", check=check, env=loud)
        assert SECRET not in result.output
        return result

    return run


@pytest.mark.parametrize("key", [PRIVATE, SECRET], ids=["PEM", "one line"])
def test_a_key_from_a_vault_signs_once_and_is_never_shown(sign, package, key):
    assert sign(artifact_build_signing_key=key).changed == 1
    assert Package(package.directory, TRUSTED).signature.release_id == package.release_id
    assert sign(artifact_build_signing_key=key).changed == 0


def test_another_key_signs_again(sign, package):
    sign(artifact_build_signing_key=PRIVATE)
    other = new_private_key()
    assert sign(artifact_build_signing_key=other).changed == 1
    assert Package(package.directory, (public_key(other),)).signature


def test_a_command_of_ones_own_signs(sign, package, tmp_path):
    script = f'cat >{tmp_path}/text; openssl pkeyutl -sign -rawin -inkey "$1" -in {tmp_path}/text'
    command = ["sh", "-c", script, "sh", str(KEY_FILE)]
    assert sign(artifact_build_signing_command=command).changed == 1
    assert Package(package.directory, TRUSTED).signature
    assert sign(artifact_build_signing_command=command).changed == 0


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"artifact_build_signing_key": f"{SECRET}=="}, "is not a private ed25519 key without a passphrase"),
        ({"artifact_build_signing_command": ["/nonexistent"]}, "the command that signs, /nonexistent, cannot be run"),
    ],
)
def test_what_cannot_sign_is_said_in_one_line(sign, package, variables, said):
    play = sign(check=False, **variables)
    assert play.returncode != 0
    assert said in play.said
    assert not package.path(SIGNATURE_NAME).exists()


def test_without_a_key_the_packages_stay_unsigned_and_a_message_says_how_to_make_one(sign, package):
    play = sign()
    assert "are not signed, and no host or container takes them like that" in play.said
    assert "`PYTHONPATH=app python -m whisper_store keys` makes a key" in play.said
    assert not package.path(SIGNATURE_NAME).exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "Nothing signs the packages, and what is not signed is not published."),
        (PRIVATE, f"so no host would take what it signs: add {PUBLIC} there"),
    ],
    ids=["no key", "a key that no host trusts"],
)
def test_a_build_that_could_not_be_published_ends_before_it_begins(tmp_path, key, said):
    variables = tmp_path / "variables.json"
    other = public_key(new_private_key())
    variables.write_text(json.dumps({"artifact_build_signing_key": key, "whisper_service_trusted_keys": [other]}))
    play = run_playbook("build.yml", "-e", f"@{variables}", check=False)
    assert play.returncode != 0
    assert said in play.said
    assert "Check the inputs and Docker" not in play.output
    assert SECRET not in play.output


def test_the_demos_keys_are_made_once_and_belong_together(tmp_path):
    state = ("-e", f"demo_state_dir={tmp_path / 'demo'}")
    play = ("playbooks/demo/credentials.yml", *state)
    run_playbook(*play, inventory="inventory/demo")
    assert run_playbook(*play, inventory="inventory/demo").changed == 0
    private, trusted = (Path(tmp_path, "demo", name) for name in ("signing-key.pem", "trusted-keys"))
    assert public_key(private.read_text()) == trusted.read_text().strip()
    assert private.stat().st_mode & 0o077 == 0
