"""The units as the role renders them: they verify, and their exposure stays at what the design promises."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from paths import ROOT
from playbook import run_playbook

ROLE = ROOT / "roles" / "whisper_service"
NAMES = ("whisper-xeon.service", "whisper-xeon.socket")


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """Render both units with variables of the role and return their folder."""

    def run(**variables):
        folder = tmp_path_factory.mktemp("units")
        tasks = [
            {
                "name": "Render the unit",
                "ansible.builtin.template": {
                    "src": str(ROLE / "templates" / f"{name}.j2"),
                    "dest": str(folder / name),
                    "mode": "0644",
                },
            }
            for name in NAMES
        ]
        files = [str(ROLE / part / "main.yml") for part in ("defaults", "vars")]
        play = {"hosts": "localhost", "gather_facts": False, "vars_files": files, "tasks": tasks}
        given = {"ansible_python_interpreter": sys.executable, **variables}
        playbook = folder / "render.yml"
        playbook.write_text(json.dumps([play]), encoding="utf-8")
        run_playbook(playbook, "-c", "local", "-e", json.dumps(given), inventory="localhost,")
        return folder

    return run


@pytest.fixture(scope="module")
def units(render):
    """Folder of the units with nothing but the defaults."""
    return render(whisper_service_model="small")


def directives(path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if "=" in line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [({}, 4), ({"WHISPER_AUDIO_URL_ALLOW": "media.example.com"}, 12)],
    ids=["no network", "fetches audio"],
)
def test_exposure_is_at_most_what_the_design_promises(render, settings, threshold):
    # systemd-analyze counts in tenths.
    folder = render(whisper_service_model="small", whisper_service_settings=settings)
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(folder / NAMES[0])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_with_keys_of_the_role_the_service_reads_their_file_by_a_group_of_its_own(render):
    folder = render(whisper_service_model="small", whisper_service_api_keys="a-key")
    assert "SupplementaryGroups=whisper-xeon-keys" in directives(folder / NAMES[0])
    assert "a-key" not in (folder / NAMES[0]).read_text("utf-8")
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=4", str(folder / NAMES[0])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_a_certificate_that_others_write_is_read_by_the_same_group(render, units):
    own = {"WHISPER_TLS_CERT": "/etc/ssl/speech/cert.pem", "WHISPER_TLS_KEY": "/etc/ssl/speech/key.pem"}
    folder = render(whisper_service_model="small", whisper_service_settings=own)
    assert "SupplementaryGroups=whisper-xeon-keys" in directives(folder / NAMES[0])
    assert "SupplementaryGroups=" in directives(units / NAMES[0])


def test_every_directive_of_the_sandbox_has_its_reason_above_it(units):
    lines = (units / NAMES[0]).read_text("utf-8").partition("# The sandbox.")[2].splitlines()
    sandbox = [number for number, line in enumerate(lines) if "=" in line and not line.startswith(("#", "WantedBy"))]
    assert len(sandbox) > 30
    assert [lines[number] for number in sandbox if not lines[number - 1].startswith("# ")] == []


def test_unlimited_is_the_default(units):
    given = {line.partition("=")[0] for line in directives(units / NAMES[0])}
    assert given.isdisjoint({"MemoryMax", "CPUQuota", "CPUAffinity"})


def test_limits_are_set_by_variables(render):
    folder = render(
        whisper_service_memory_max="4G", whisper_service_cpu_quota="200%", whisper_service_cpu_affinity="0-1"
    )
    assert {"MemoryMax=4G", "CPUQuota=200%", "CPUAffinity=0-1"} <= set(directives(folder / NAMES[0]))


@pytest.mark.parametrize(
    ("address", "expected"), [("", "8000"), ("127.0.0.1", "127.0.0.1:8000"), ("[::1]", "[::1]:8000")]
)
def test_socket_listens_where_the_variables_say(render, address, expected):
    assert f"ListenStream={expected}" in directives(render(whisper_service_address=address) / NAMES[1])


def test_socket_is_byte_for_byte_what_earlier_versions_deployed(units):
    # Otherwise an upgrade restarts the socket, and clients are refused meanwhile.
    digest = hashlib.sha256((units / NAMES[1]).read_bytes()).hexdigest()
    assert digest == "c858d5d814274c7e241f9ce134c6cf8083b38589f46dbc53b208386fe9c7ab4a"
