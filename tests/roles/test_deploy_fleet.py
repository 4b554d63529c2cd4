"""What an operator does with a fleet of real systemd hosts: ask what serves, choose a release, hold the lock, limit."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
import uuid
from collections.abc import Iterator

import pytest

from host_container import LOCK, Host, Hosts, table_row
from minio_server import gateway
from paths import RECORDINGS, ROOT
from playbook import run_playbook
from sealed_packages import variant

MEDIUM = ("-e", "model=medium")


def status(hosts: Hosts, check: bool = True):
    """Run status.yml; with `check` a host that does not serve fails the test."""
    return hosts.play("playbooks/status.yml", check=check)


def test_status_shows_what_each_host_serves_and_has_answered(both, exact_recordings):
    both.small.transcribe(exact_recordings[0]["path"])
    line = table_row(status(both).output, both.small)
    version = both.small.version()
    name, model, release, signed, variant = line.split()[:5]
    assert (name, model, variant) == (both.small.name, "small", version["cpu_variant"])
    assert release == version["release_id"][:12]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", signed)
    requests, errors, state = line.split()[-3:]
    assert int(requests) >= 1
    assert (errors, state) == ("0", "serving")


def test_status_fails_and_names_the_host_that_does_not_serve(both):
    both.medium.run("systemctl", "stop", "whisper-xeon.socket", "whisper-xeon.service")
    play = status(both, check=False)
    assert play.returncode == 2
    assert "inactive" in table_row(play.output, both.medium)
    assert table_row(play.output, both.small).endswith("serving")
    assert f"{both.medium.name}: see the column" in play.said


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"ansible_port": 1}, "alias-1 failed or could not be reached: no host of a later batch was changed"),
        ({"ansible_python_interpreter": "/nonexistent/python3"}, "'/nonexistent/python3' was not found"),
    ],
    ids=["unreachable", "failing"],
)
def test_a_batch_that_loses_a_host_is_the_last(small, deploy, hosts, tmp_path, variables, reason):
    if not small.link("previous"):
        deploy(*MEDIUM)
    known = json.loads(hosts.inventory.read_text("utf-8"))["all"]["children"]["whisper_hosts"]
    aliases = {f"alias-{number}": known["hosts"][small.name] for number in range(4)}
    aliases["alias-1"] = {**aliases["alias-1"], **variables}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": aliases, "vars": known["vars"]}}), encoding="utf-8")
    play = run_playbook(ROOT / "tests" / "playbooks" / "batches.yml", inventory=inventory, check=False)
    assert play.returncode != 0
    assert reason in play.said
    assert "[alias-3]" not in play.output


def test_a_package_of_another_model_is_a_line_of_the_report(both, artifacts_dir):
    play = both.deploy_copy(artifacts_dir / "whisper_small_xeon", "-e", "whisper_service_port=99999", check=False)
    assert play.returncode != 0
    assert "Nothing was changed on any host" in play.said
    assert f"{both.medium.name}: " in play.said
    assert "this host gets 'medium'" in play.said
    for host in (both.small, both.medium):
        assert f"{host.name}: whisper_service_port is 99999: set a number from 1 to 65535" in play.said


def test_a_host_whose_variables_are_refused_is_a_line_of_the_report(both, artifacts_dir, tmp_path):
    inventory = tmp_path / "refused.json"
    refused = {both.medium.name: {"whisper_service_port": "http"}}
    inventory.write_text(json.dumps({"all": {"hosts": refused}}), encoding="utf-8")
    play = both.deploy_copy(artifacts_dir, "-i", str(inventory), check=False)
    assert play.returncode != 0
    assert "Nothing was changed on any host" in play.said
    assert f"{both.medium.name}: its variables are rejected, see above" in play.said


def test_a_release_can_be_named(hosts, small, minio, small_package, tmp_path):
    channel = f"test-{uuid.uuid4().hex[:12]}"
    older, newer = (variant(small_package, tmp_path / name, {"NOTE": uuid.uuid4().bytes}) for name in ("a", "b"))
    for package in (older, newer):
        minio.store().publish(package.directory, channel)
    named = ("-e", f"artifact_store_channel={channel}", "-e", f"release={older.release_id[:12]}")
    hosts.deploy_from(minio, "--limit", small.name, *named)
    assert small.version()["release_id"] == older.release_id


@pytest.fixture
def foreign_lock(small: Host) -> Iterator[Host]:
    """The small host, held by a run of another control node."""
    owner = {"user": "ada", "node": "elsewhere", "pid": 1, "started": "1", "machine": "another"}
    content = json.dumps({"owner": owner, "since": 0})
    small.run("sh", "-c", f"echo '{content}' > {LOCK}")
    yield small
    small.run("rm", "--force", LOCK)


def test_a_host_that_another_control_node_holds_is_refused_by_its_name(foreign_lock, deploy):
    play = deploy("-e", "whisper_service_lock_wait=0", check=False)
    assert play.returncode != 0
    assert f"ada on elsewhere (process 1) has been changing {foreign_lock.name}" in play.said


@pytest.mark.parametrize("way", ["told to", "lapsed"])
def test_the_lock_of_a_dead_control_node_is_taken_over(foreign_lock, deploy, way):
    if way == "lapsed":
        foreign_lock.run("touch", "--date=-1 hour", LOCK)
        deploy("-e", "whisper_service_lock_wait=0")
    else:
        deploy("-e", "whisper_service_lock_wait=0", "-e", "whisper_service_lock_take_over=true")
    assert foreign_lock.run("find", "/run", "-maxdepth", "1", "-path", LOCK) == ""


@pytest.fixture
def media_server(minio) -> Iterator[str]:
    """Address of a server with the recordings, as the hosts reach this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=RECORDINGS)
    with http.server.ThreadingHTTPServer((gateway(), 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{server.server_address[0]}:{server.server_port}"
        server.shutdown()


def test_limits_and_a_service_that_fetches_audio_hold_on_the_host(host, deploy, media_server, exact_recordings):
    variables = {
        "whisper_service_settings": {"WHISPER_AUDIO_URL_ALLOW": media_server},
        "whisper_service_memory_max": "2G",
        "whisper_service_cpu_quota": "150%",
        "whisper_service_cpu_affinity": "0",
    }
    deploy("-e", json.dumps(variables))
    recording = exact_recordings[0]
    asked = json.dumps({"audio_url": f"{media_server}/{recording['file']}"}).encode()
    assert host.request("POST", "/transcribe", asked)["text"] == recording["text"]
    shown = host.run("systemctl", "show", "whisper-xeon.service").splitlines()
    effective = dict(line.split("=", 1) for line in shown if "=" in line)
    expected = {
        "MemoryMax": str(2 << 30),
        "CPUQuotaPerSecUSec": "1.500000s",
        "CPUAffinity": "0",
        "WatchdogUSec": "30s",
        "LogRateLimitIntervalUSec": "10s",
        "LogRateLimitBurst": "2000",
        "PrivateNetwork": "no",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    }
    assert {name: effective[name] for name in expected} == expected
    assert "169.254.0.0/16" in effective["IPAddressDeny"]
