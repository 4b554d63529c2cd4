"""Role `artifact_store` against the real store: changed, check mode, diff, messages, and no secret anywhere."""

from __future__ import annotations

import json
import uuid

import pytest

from minio_server import PORT
from playbook import run_playbook
from sealed_packages import variant
from whisper_store.client import s3_client


@pytest.fixture
def channel():
    """A channel that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def fresh_package(small_package, tmp_path):
    """A package that the store does not hold."""
    return variant(small_package, tmp_path, {"NEW": uuid.uuid4().bytes})


def include_role(tasks_from, **variables):
    """Return the task that includes an entry point of the role."""
    include = {"name": "whisper.xeon.artifact_store", "tasks_from": tasks_from}
    return {"name": "Include the role", "ansible.builtin.include_role": include, "vars": variables}


@pytest.fixture
def play_role(minio, tmp_path):
    """Run the role, or another of its entry points, with variables; returns how it ended."""

    def play(*arguments, tasks_from="main", tasks_after=(), check=True, **variables):
        role = include_role(tasks_from, **variables)
        playbook = tmp_path / "playbook.yml"
        playbook.write_text(
            json.dumps([{"hosts": "whisper_store", "gather_facts": False, "tasks": [role, *tasks_after]}]),
            encoding="utf-8",
        )
        return minio.play(playbook, *arguments, check=check)

    return play


def test_first_run_changes_and_second_does_not(play_role, channel, fresh_package):
    variables = {
        "artifact_store_packages": [str(fresh_package.directory)],
        "artifact_store_channel": channel,
    }
    assert play_role(**variables).changed == 1
    assert play_role(**variables).changed == 0


def test_check_mode_shows_the_change_and_makes_none(minio, play_role, channel, fresh_package):
    result = play_role(
        "--check",
        "--diff",
        artifact_store_packages=[str(fresh_package.directory)],
        artifact_store_channel=channel,
    )
    assert result.changed == 1
    assert fresh_package.release_id in result.output
    assert minio.store("reader").read_channel(channel).models == {}


def test_check_mode_before_the_first_build_only_announces(play_role, channel, tmp_path):
    result = play_role("--check", artifact_store_packages=[str(tmp_path / "absent")], artifact_store_channel=channel)
    assert result.changed == 1


def test_diff_shows_the_channel_before_and_after(play_role, channel, small_package, fresh_package):
    play_role(artifact_store_packages=[str(small_package.directory)], artifact_store_channel=channel)
    result = play_role("--diff", artifact_store_packages=[str(fresh_package.directory)], artifact_store_channel=channel)
    assert f'-   "release_id": "{small_package.release_id}"' in result.output
    assert f'+   "release_id": "{fresh_package.release_id}"' in result.output


def test_resolved_urls_are_good_for_a_machine_without_a_credential(play_role, channel, fresh_package, tmp_path):
    play_role(artifact_store_packages=[str(fresh_package.directory)], artifact_store_channel=channel)
    target = tmp_path / "downloaded"
    for file in fresh_package.manifest["files"]:
        (target / file["path"]).parent.mkdir(parents=True, exist_ok=True)
    download = {
        "name": "Download each file",
        "ansible.builtin.get_url": {
            "url": "{{ artifact_store_urls.small[item.path] }}",
            "dest": f"{target}/{{{{ item.path }}}}",
            "checksum": "sha256:{{ item.sha256 }}",
            "mode": "0644",
        },
        "loop": "{{ artifact_store_resolved.small.files }}",
        "no_log": True,
    }
    play_role(
        tasks_from="resolve",
        tasks_after=[download],
        artifact_store_models=["small"],
        artifact_store_channel=channel,
        artifact_store_host_endpoint=f"http://localhost:{PORT}",
    )
    package = type(fresh_package)(target)
    package.verify()
    assert package.release_id == fresh_package.release_id


def test_a_model_may_have_a_release_of_its_own(play_role, channel, small_package, fresh_package):
    packages = [str(package.directory) for package in (small_package, fresh_package)]
    require = {
        "name": "Require the release that is named, not that of the channel",
        "ansible.builtin.assert": {"that": f"artifact_store_resolved.small.release_id == '{small_package.release_id}'"},
    }
    play_role(
        tasks_after=[
            include_role(
                "resolve",
                artifact_store_models=["small"],
                artifact_store_channel=channel,
                artifact_store_releases={"small": small_package.release_id[:12], "medium": "of no model of this run"},
            ),
            require,
        ],
        artifact_store_packages=packages,
        artifact_store_channel=channel,
    )


def test_urls_signed_again_are_those_of_the_resolved_release_whatever_the_channel_names_by_then(
    play_role, channel, small_package, fresh_package
):
    packages = [[str(package.directory)] for package in (small_package, fresh_package)]
    key = f"releases/{small_package.release_id}/{small_package.name}/manifest.json"
    play_role(
        tasks_after=[
            include_role("resolve", artifact_store_models=["small"], artifact_store_channel=channel),
            include_role("main", artifact_store_packages=packages[1], artifact_store_channel=channel),
            {"name": "Forget the URLs", "ansible.builtin.set_fact": {"artifact_store_urls": {}}},
            include_role("sign"),
            {
                "name": "Require a URL of the first release",
                "ansible.builtin.assert": {"that": f"'/{key}?' in artifact_store_urls.small['manifest.json']"},
            },
        ],
        artifact_store_packages=packages[0],
        artifact_store_channel=channel,
    )


def test_no_output_shows_a_secret_or_a_signature(minio, play_role, channel, fresh_package):
    published = play_role(
        "-vvv", "--diff", artifact_store_packages=[str(fresh_package.directory)], artifact_store_channel=channel
    )
    resolved = play_role(
        "-vvv",
        tasks_from="resolve",
        artifact_store_models=["small"],
        artifact_store_channel=channel,
    )
    output = published.output + resolved.output
    assert [secret for secret in minio.secrets if secret in output] == []
    assert "X-Amz-Signature" not in output


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"artifact_store_secret_key": "wrong-secret"}, "rejects the credentials"),
        ({"artifact_store_endpoint": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
        ({"artifact_store_bucket": "absent-bucket"}, "absent-bucket"),
        ({"artifact_store_endpoint": "127.0.0.1:9000"}, "must be http://HOST:PORT"),
    ],
    ids=["wrong secret", "unreachable", "no bucket", "bad endpoint"],
)
def test_unusable_store_is_told_in_one_message(play_role, variables, message):
    result = play_role(tasks_from="check", check=False, **variables)
    assert result.returncode != 0
    assert message in result.said
    assert "Traceback" not in result.output


def test_a_model_that_cannot_be_is_told_why(play_role):
    result = play_role(tasks_from="resolve", check=False, artifact_store_models=["../small"])
    assert result.returncode != 0
    assert "'../small' is not a model's name: a name begins with a letter" in result.said


def test_deploy_from_a_bucket_in_the_old_layout_names_the_command_that_adopts_it(minio, small_package, tmp_path):
    root = minio.settings("root", bucket=f"old-{uuid.uuid4().hex[:12]}")
    client = s3_client(root)
    client.create_bucket(Bucket=root.bucket)
    weights = small_package.model_file
    client.put_object(Bucket=root.bucket, Key=f"{small_package.name}/{weights.name}", Body=weights.read_bytes())
    account = {"access_key": root.access_key, "secret_key": root.secret_key}
    variables = {
        **minio.variables,
        **{f"artifact_store_{part}{name}": value for part in ("", "reader_") for name, value in account.items()},
        "artifact_store_bucket": root.bucket,
        "whisper_service_model": "small",
    }
    nobody = {"ansible_connection": "ssh", "ansible_host": "192.0.2.1"}
    inventory = tmp_path / "inventory.json"
    inventory.write_text(
        json.dumps({"all": {"vars": variables, "children": {"whisper_hosts": {"hosts": {"speech-1": nobody}}}}})
    )
    result = run_playbook("deploy.yml", inventory=inventory, check=False)
    assert result.returncode != 0
    assert "python -m whisper_store adopt small` makes a release of it" in result.said
    assert "unreachable=0" in result.output
