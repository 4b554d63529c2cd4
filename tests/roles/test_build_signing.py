"""How `build.yml` signs packages: with a key from a vault or a command of one's own, and without showing the key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from playbook import Play, run_playbook
from sealed_packages import hollow_package
from signing import KEY_FILE, PRIVATE, PUBLIC, TRUSTED
from signing import sign as sign_package
from whisper_package.manifest import SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import new_private_key, public_key

SECRET = PRIVATE.splitlines()[1]
# openssl wants to know the length of what it signs, which it cannot of a pipe.
_SCRIPT = 'cat >"$0.$$" && openssl pkeyutl -sign -rawin -inkey "$0" -in "$0.$$"; rm "$0.$$"'
OWN_COMMAND = ["sh", "-c", _SCRIPT, str(KEY_FILE)]
OTHER = public_key(new_private_key())


@pytest.fixture
def package(tmp_path) -> Package:
    made = hollow_package(tmp_path)
    made.path(SIGNATURE_NAME).unlink()
    return made


@pytest.fixture
def sign(package, tmp_path):
    """Run the role's part that signs, with variables from an encrypted file, as loud as Ansible can be."""

    def run(*arguments: str, check: bool = True, tasks_after: tuple[dict, ...] = (), **variables) -> Play:
        role = {"name": "whisper.xeon.artifact_build", "tasks_from": "sign"}
        task = {"name": "Sign", "ansible.builtin.include_role": role}
        built = [{"path": str(package.directory), "model": package.model, "release_id": package.release_id}]
        play = {"hosts": "whisper_builder", "gather_facts": False, "tasks": [task, *tasks_after]}
        playbook, vault, password = (tmp_path / name for name in ("playbook.json", "vault.json", "password"))
        playbook.write_text(json.dumps([{**play, "vars": {"artifact_build_packages": built}}]))
        vault.write_text(json.dumps({"artifact_build_signing_key": "", **variables}))
        password.write_text("of the vault")
        command = ["ansible-vault", "encrypt", "--vault-password-file", password, vault]
        subprocess.run(command, check=True, capture_output=True)
        loud = {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1", "ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
        result = run_playbook(playbook, "-vvv", "--diff", "-e", f"@{vault}", *arguments, check=check, env=loud)
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


def test_a_command_of_ones_own_signs(sign, package):
    assert sign(artifact_build_signing_command=OWN_COMMAND).changed == 1
    assert Package(package.directory, TRUSTED).signature
    assert sign(artifact_build_signing_command=OWN_COMMAND).changed == 0


def test_a_command_signs_again_what_no_trusted_key_has_signed(sign, package):
    sign_package(package.directory, private=new_private_key())
    trusting = {"artifact_build_signing_command": OWN_COMMAND, "artifact_build_trusted_keys": [PUBLIC]}
    assert sign(**trusting).changed == 1
    assert Package(package.directory, TRUSTED).signature
    assert sign(**trusting).changed == 0


@pytest.mark.parametrize("signed_by", ["nobody", "another key"])
def test_check_mode_says_that_what_the_build_would_sign_would_be_published(sign, package, signed_by):
    if signed_by == "another key":
        sign_package(package.directory, private=new_private_key())
    before = sorted(package.directory.iterdir())
    publish = {
        "name": "Publish",
        "ansible.builtin.include_role": {"name": "whisper.xeon.artifact_store"},
        "vars": {
            "artifact_store_packages": "{{ artifact_build_packages | map(attribute='path') }}",
            "artifact_store_to_be_signed": "{{ artifact_build_signed }}",
            "artifact_store_trusted_keys": [PUBLIC],
            # Nothing answers there, and nothing is asked.
            "artifact_store_endpoint": "http://127.0.0.1:1",
            "artifact_store_access_key": "of-nobody",
            "artifact_store_secret_key": "of-nobody",
        },
    }
    play = sign("--check", tasks_after=(publish,), artifact_build_signing_key=PRIVATE)
    assert f"{package.directory} would be signed and published to channel 'stable'" in play.said
    assert play.changed == 2
    assert sorted(package.directory.iterdir()) == before


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
    ("key", "command", "trusted", "said"),
    [
        ("", [], [OTHER], "Nothing signs the packages, and what is not signed is not published."),
        (PRIVATE, [], [OTHER], f"so no host would take what it signs: add {PUBLIC} there"),
        (PRIVATE, [], [], "whisper_service_trusted_keys has no value for localhost"),
        ("", OWN_COMMAND, [], "whisper_service_trusted_keys has no value for localhost"),
        ("", OWN_COMMAND, [OTHER], "artifact_build_signing_command signs with a key that is not in"),
        ("", ["false"], [PUBLIC], "the command that signs, false, ended with 1"),
        ("", ["true"], [PUBLIC], "what signs did not return an ed25519 signature"),
    ],
    ids=[
        "no key",
        "a key that no host trusts",
        "no trusted key",
        "no trusted key for a command",
        "a command that no host trusts",
        "a command that fails",
        "a command that does not sign",
    ],
)
def test_a_build_that_could_not_be_published_ends_before_it_begins(tmp_path, key, command, trusted, said):
    variables = tmp_path / "variables.json"
    signing = {"artifact_build_signing_key": key, "artifact_build_signing_command": command}
    variables.write_text(json.dumps({**signing, "whisper_service_trusted_keys": trusted}))
    play = run_playbook("build.yml", "-e", f"@{variables}", check=False)
    assert play.returncode != 0
    assert said in play.said
    assert "Check the inputs and Docker" not in play.output
    assert SECRET not in play.output


def test_a_build_that_publishes_nothing_asks_for_no_trusted_keys(tmp_path):
    """The demo's inventory is the default, and has none before `make demo`."""
    variables = {"demo_state_dir": str(tmp_path / "demo"), "artifact_build_cmake_flags": ["no option"]}
    arguments = ("--skip-tags", "publish", "-e", json.dumps(variables))
    play = run_playbook("build.yml", *arguments, inventory="inventory/demo", check=False)
    assert "artifact_build_cmake_flags takes options of the form" in play.said


def test_the_demos_keys_are_made_once_and_belong_together(tmp_path):
    state = ("-e", f"demo_state_dir={tmp_path / 'demo'}")
    play = ("playbooks/demo/credentials.yml", *state)
    run_playbook(*play, inventory="inventory/demo")
    assert run_playbook(*play, inventory="inventory/demo").changed == 0
    private, trusted = (Path(tmp_path, "demo", name) for name in ("signing-key.pem", "trusted-keys"))
    assert public_key(private.read_text()) == trusted.read_text().strip()
    assert private.stat().st_mode & 0o077 == 0
