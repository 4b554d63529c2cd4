"""Deploying to real systemd hosts: what is served after a deploy, a repetition, a fault, a rollback.

Each test starts from the small host (or both) serving what the inventory says and may leave it as it likes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from certificates import Authority
from host_container import table_row
from paths import ROOT
from running_service import wait_for
from sealed_packages import rewrite, variant
from whisper_package.package import packaged_models
from whisper_store.client import s3_client

MEDIUM = ("-e", "model=medium")


def edited_app(folder, relative: str, before: str, after: str):
    """Copy the application into `folder`, replace text in one of its files; return the arguments that deploy it."""
    app = folder / "app"
    shutil.copytree(ROOT / "app", app, ignore=shutil.ignore_patterns("__pycache__"))
    path = app / relative
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    return "-e", f"whisper_service_app_dir={app}"


def test_each_host_serves_the_model_of_its_host_variables(both):
    assert (both.small.version()["model"], both.medium.version()["model"]) == ("small", "medium")


def test_a_deployed_host_transcribes(small, exact_recordings):
    recording = exact_recordings[0]
    assert small.transcribe(recording["path"]) == recording["text"]


def test_a_host_transcribes_with_whisper_cli_in_the_same_sandbox(host, deploy, exact_recordings):
    deploy("-e", json.dumps({"whisper_service_settings": {"WHISPER_ADAPTER": "cli"}}))
    assert host.version()["adapter"] == "cli"
    assert host.transcribe(exact_recordings[0]["path"]) == exact_recordings[0]["text"]


def test_a_host_with_a_certificate_speaks_https_only_and_serves_a_new_one_without_a_restart(host, deploy, tmp_path):
    authority = Authority(tmp_path)

    def deploy_pair(certificate: Path, key: Path, **how):
        texts = {"certificate": certificate.read_text("ascii"), "key": key.read_text("ascii")}
        given = {f"whisper_service_tls_{name}": text for name, text in texts.items()}
        play = deploy("-e", json.dumps(given), **how)
        assert "PRIVATE KEY-----" not in play.output
        return play

    def deploy_certificate() -> str:
        deploy_pair(*authority.issue("speech.example"))
        with (
            socket.create_connection(("127.0.0.1", host.port), timeout=60) as sock,
            authority.client().wrap_socket(sock, server_hostname="speech.example") as secured,
        ):
            secured.sendall(b"GET /version HTTP/1.1\r\nHost: speech.example\r\nConnection: close\r\n\r\n")
            assert b'"model": "small"' in b"".join(iter(lambda: secured.recv(65536), b""))
            return secured.getpeercert()["serialNumber"]

    first, before = deploy_certificate(), host.main_pid()
    with socket.create_connection(("127.0.0.1", host.port), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert plain.recv(65536).startswith(b"HTTP/1.1 400 ")
    key = "/etc/whisper-xeon-tls/key.pem"
    assert host.run("stat", "--format=%U %G %a", key).split() == ["root", "whisper-xeon-keys", "640"]
    assert host.run("getent", "group", "whisper-xeon-keys").strip().endswith(":")
    time.sleep(1.2)  # as long as the old one may be served
    assert deploy_certificate() != first
    assert host.main_pid() == before

    written = host.run("sha256sum", key)
    certificate, _ = authority.issue("speech.example")
    _, key_of_another = authority.issue("other.example", "other.pem", "other.key")
    play = deploy_pair(certificate, key_of_another, check=False)
    assert "whisper_service_tls_key cannot be used: they do not belong together" in play.said
    assert host.run("sha256sum", key) == written


def test_a_host_serves_a_certificate_that_others_write_there(host, deploy, tmp_path):
    folder = "/etc/speech-tls"
    host.run("groupadd", "--force", "--system", "whisper-xeon-keys")
    host.run("install", "-d", "-m", "750", "-g", "whisper-xeon-keys", folder)
    settings = {}
    for name, path in zip(("WHISPER_TLS_CERT", "WHISPER_TLS_KEY"), Authority(tmp_path).issue("speech.example")):
        settings[name] = f"{folder}/{path.name}"
        write = 'printf %s "$2" > "$1"; chgrp whisper-xeon-keys "$1"; chmod 640 "$1"'
        host.run("sh", "-ec", write, "sh", settings[name], path.read_text("ascii"))
    deploy("-e", json.dumps({"whisper_service_settings": settings}))
    assert host.deployed()["url"].startswith("https://")


def test_a_second_run_plans_once_changes_nothing_also_from_a_relative_directory_and_ends_with_the_table(
    small, deploy, artifacts_dir
):
    before = small.main_pid()
    play = deploy(artifact_dir=os.path.relpath(artifacts_dir, ROOT))
    assert play.output.count(": Plan the deployment]") == 1
    assert play.changed == 0
    assert small.main_pid() == before
    assert table_row(play.output, small).endswith("serving")


def test_check_mode_on_a_converged_host_reports_no_change(small, deploy):
    assert deploy("--check").changed == 0


def test_check_mode_with_another_model_changes_nothing_on_the_host(small, deploy):
    before = small.link("current")
    assert deploy("--check", *MEDIUM).changed > 0
    assert small.link("current") == before


def test_an_unknown_model_is_refused_once_before_any_host_is_touched_with_those_that_exist(hosts, artifacts_dir):
    play = hosts.deploy_copy(artifacts_dir, "-e", "model=meduim", check=False)
    assert play.returncode != 0
    assert play.output.count("fatal: ") == 1
    assert "Check every host" not in play.output
    there = ", ".join(packaged_models(artifacts_dir))
    assert f'there is no model "meduim" in {artifacts_dir}, which has {there} (did you mean medium?)' in play.said
    assert f"(for {hosts.small.name}, {hosts.medium.name})" in play.said


def test_what_cannot_be_a_model_is_refused_once_before_any_host_is_touched(hosts, artifacts_dir):
    play = hosts.deploy_copy(artifacts_dir, "-e", "model=../medium", check=False)
    assert play.returncode != 0
    assert play.output.count("fatal: ") == 1
    assert "Check every host" not in play.output
    assert "'../medium' is not a model's name" in play.said


def test_no_more_than_three_deployments_stay_those_in_use_do_and_shared_files_are_stored_once(small, deploy):
    deployments = "/opt/whisper-xeon/deployments"
    for digest in ("0" * 64, "1" * 64, "2" * 64):
        small.run("cp", "--archive", f"{deployments}/{small.link('current')}", f"{deployments}/{digest}")
    deploy(*MEDIUM)
    kept = small.run("ls", "--almost-all", deployments).split()
    assert len(kept) == 3
    assert {small.link("current"), small.link("previous")} < set(kept)
    library = "/opt/whisper-xeon/current/package/whisper_medium_xeon/libggml-cpu.so.0"
    assert int(small.run("stat", "--dereference", "--format=%h", library)) > 1


def test_another_port_is_listened_on_after_the_deploy(host, deploy):
    deploy("-e", "whisper_service_port=8123")
    assert "8123" in host.run("systemctl", "show", "--property=Listen", "whisper-xeon.socket")


def test_keys_of_the_inventory_are_read_by_the_service_alone_and_change_without_a_restart(
    host, deploy, exact_recordings
):
    def transcribes(key: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=120)
        sound = exact_recordings[0]["path"].read_bytes()
        connection.request("POST", "/transcribe", sound, {"Content-Type": "audio/wav", "X-API-Key": key})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert "text" in answer or answer["error"]["code"] == "invalid_api_key"
        return answer.get("text") == exact_recordings[0]["text"]

    def with_keys(content: str) -> tuple[str, str]:
        return "-e", json.dumps({"whisper_service_api_keys": content})

    deploy("--check", *with_keys("first-key name=calls"))
    play = deploy(*with_keys("first-key name=calls"))
    assert "first-key" not in play.output
    assert (transcribes("first-key"), transcribes("small")) == (True, False)
    file = "/etc/whisper-xeon-api-keys"
    assert host.run("stat", "--format=%a %U %G", file).split() == ["640", "root", "whisper-xeon-keys"]
    assert "first-key" not in host.run("runuser", "--user", "nobody", "--", "cat", file, check=False)
    before = host.main_pid()
    # A word that is in everything that the modules return.
    assert deploy(*with_keys("small\n")).changed == 1
    assert (wait_for(lambda: transcribes("small")), transcribes("first-key")) == (True, False)
    assert host.main_pid() == before
    play = deploy(*with_keys("third key"), check=False)
    assert "whisper_service_api_keys: line 1: after the key, a space and nothing but name=" in play.said
    assert host.main_pid() == before


def test_rollback_needs_no_store_and_no_package_a_second_one_returns_and_a_host_without_a_previous_one_stays(
    both, deploy
):
    deploy(*MEDIUM)
    both.medium.run("rm", "--force", "/opt/whisper-xeon/previous")
    before = both.medium.main_pid()
    play = both.play("playbooks/rollback.yml")
    assert f"{both.medium.name} has no previous deployment" in play.said
    assert (both.small.version()["model"], both.medium.main_pid()) == ("small", before)
    both.play("playbooks/rollback.yml", "--limit", both.small.name)
    assert both.small.version()["model"] == "medium"


def test_a_deploy_that_was_cut_off_after_the_switch_is_finished_by_the_next(small, deploy):
    deploy(*MEDIUM)
    link = f"deployments/{small.link('previous')}"
    # The link was moved, and nothing came after that: the old process serves on.
    small.run("ln", "--symbolic", "--force", "--no-dereference", link, "/opt/whisper-xeon/current")
    deploy()
    assert small.version()["model"] == "small"
    assert small.link("confirmed") == small.link("current")


def test_an_altered_file_keeps_the_old_deployment_and_is_named_before_the_table(
    small, deploy, medium_package, tmp_path
):
    # A file that no deployment on the host has: others would not be fetched at all.
    altered = variant(medium_package, tmp_path, {"NOTE": uuid.uuid4().bytes})
    altered.path("NOTE").write_bytes(uuid.uuid4().bytes)
    play = deploy(*MEDIUM, artifact_dir=tmp_path, check=False)
    assert play.returncode != 0
    assert "NOTE is missing or differs from its manifest (SHA-256)" in play.output
    assert small.version()["model"] == "small"
    assert ".staging" not in small.run("ls", "--almost-all", "/opt/whisper-xeon/deployments")
    assert table_row(play.output, small).endswith("serving")


def test_a_candidate_that_hears_other_words_is_never_switched_to(small, deploy, medium_package, tmp_path):
    wrong = variant(medium_package, tmp_path, {})
    rewrite(wrong.directory, lambda manifest: manifest["selftest"].update(text="quite other words"))
    before = small.main_pid()
    play = deploy(*MEDIUM, artifact_dir=tmp_path, check=False)
    assert play.returncode != 0
    assert "transcribes its self-test clip incorrectly" in play.output
    assert small.main_pid() == before


def test_a_service_that_answers_wrongly_is_rolled_back_with_its_last_lines(small, deploy, tmp_path):
    lie = edited_app(
        tmp_path, "whisper_xeon/web/routes.py", '"release_id": self._package.release_id', '"release_id": "0" * 64'
    )
    play = deploy(*lie, check=False)
    assert play.returncode != 0
    assert "serves what it served before" in play.output
    assert "model loaded" in play.output
    assert small.version()["release_id"] != "0" * 64


def test_a_failed_host_stops_the_run_before_the_next(both, artifacts_dir, tmp_path):
    broken = edited_app(tmp_path, "whisper_xeon/__main__.py", "def main(", "raise SystemExit('broken')\n\n\ndef main(")
    before = both.medium.link("current")
    play = both.deploy_copy(artifacts_dir, *broken, check=False)
    assert play.returncode != 0
    assert "broken" in play.output
    assert both.medium.link("current") == before


def test_a_store_that_does_not_answer_leaves_the_old_model_serving(hosts, small, minio):
    nowhere = ("-e", "artifact_store_endpoint=http://127.0.0.1:1")
    play = hosts.deploy_from(minio, "--limit", small.name, *MEDIUM, *nowhere, check=False)
    assert play.returncode != 0
    assert "127.0.0.1:1" in play.output
    assert small.version()["model"] == "small"


@pytest.fixture
def published(minio, medium_package, tmp_path):
    """A package of model `medium` that the store alone has, and the arguments that deploy it."""
    package = variant(medium_package, tmp_path, {"NOTE": uuid.uuid4().bytes})
    channel = f"test-{uuid.uuid4().hex[:12]}"
    minio.store().publish(package.directory, channel)
    return package, (*MEDIUM, "-e", f"artifact_store_channel={channel}")


def test_a_package_comes_from_the_store_without_a_credential_or_signed_address_on_host_or_screen(
    hosts, small, minio, published
):
    package, arguments = published
    play = hosts.deploy_from(minio, "--limit", small.name, *arguments, "-vvv", "--diff")
    assert small.version()["release_id"] == package.release_id
    found = [secret for secret in (*minio.secrets, "X-Amz-Signature") if secret in play.output]
    for secret in (*minio.secrets, "X-Amz-Signature"):
        places = ("/etc", "/home", "/opt", "/root", "/run", "/tmp", "/usr/local", "/var")
        found += small.run("grep", "--recursive", "--fixed-strings", "-l", "-e", secret, *places, check=False).split()
    assert found == []


def test_a_file_that_the_store_lost_is_named_and_the_old_model_serves(hosts, small, minio, published):
    package, arguments = published
    lost = f"releases/{package.release_id}/{package.name}/NOTE"
    s3_client(minio.settings("root")).delete_object(Bucket=minio.settings().bucket, Key=lost)
    play = hosts.deploy_from(minio, "--limit", small.name, *arguments, check=False)
    assert play.returncode != 0
    assert "NOTE" in play.output
    assert "404" in play.output
    assert small.version()["model"] == "small"


def test_a_stopped_container_is_started_again_and_serves(hosts, small):
    subprocess.run(["docker", "stop", "--time", "5", small.name], check=True, stdout=subprocess.DEVNULL)
    hosts.play("playbooks/demo/hosts.yml")
    small.run("systemctl", "start", "whisper-xeon.service")
    assert small.version()["model"] == "small"


def test_uninstalling_removes_what_a_deploy_made_in_a_directory_of_others_and_stops_nothing_that_serves_from_elsewhere(
    hosts, small, deploy
):
    uninstall = ("playbooks/uninstall.yml", "--limit", small.name)
    shared = ("-e", "whisper_service_root=/srv/shared")
    small.run(
        "sh", "-c", "mkdir --parents /srv/shared/deployments/site && touch /srv/shared/photo /srv/shared/current.bak"
    )
    refused = hosts.play(*uninstall, *shared, check=False)
    assert refused.returncode != 0
    assert "has no deployment in /srv/shared, but serves from /opt/whisper-xeon" in refused.said
    assert small.version()["model"] == "small"

    deploy(*shared)
    before = small.main_pid()
    hosts.play(*uninstall)
    assert small.main_pid() == before
    assert small.run("ls", "/opt/whisper-xeon", check=False).split() == ["installed-packages"]

    of_others = "/etc/whisper-xeon-tls/of-others"
    small.run("install", "-D", "/dev/null", of_others)
    play = hosts.play(*uninstall, *shared)
    assert (
        f"{small.name} keeps 3 in /srv/shared that no deployment made: current.bak, photo, deployments/site"
        in play.said
    )
    there = small.run("find", "/srv/shared", "-mindepth", "1", "-printf", "%P\n").split()
    assert sorted(there) == ["current.bak", "deployments", "deployments/site", "photo"]
    assert small.run("systemctl", "is-active", "whisper-xeon.socket", check=False).strip() == "inactive"
    assert hosts.play(*uninstall, *shared).changed == 0
    small.run("rm", of_others)
    assert hosts.play(*uninstall, *shared).changed == 1
    assert small.run("find", "/etc", "-maxdepth", "1", "-name", "whisper-xeon*") == ""
    small.run("rm", "--recursive", "/srv/shared")
