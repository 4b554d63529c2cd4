"""What stands on a host after a deploy with nothing but the defaults."""

import json
import subprocess
from pathlib import Path

import pytest

RECORDINGS = Path(__file__).resolve().parents[3] / "tests" / "fixtures" / "recordings"
UNIT = "whisper-xeon.service"
SOCKET = "whisper-xeon.socket"
CURRENT = "/opt/whisper-xeon/current"


@pytest.fixture(scope="module")
def properties(host):
    """What systemd says of the service."""
    return host.service(UNIT).systemd_properties


@pytest.fixture(scope="module")
def socket_properties(host):
    """What systemd says of the socket."""
    return host.service(SOCKET).systemd_properties


@pytest.fixture(scope="module")
def main_pid(properties):
    """Process id of the front process."""
    return properties["MainPID"]


@pytest.mark.parametrize("package", ["ffmpeg", "libgomp1", "python3"])
def test_package_is_installed(host, package):
    assert host.package(package).is_installed


@pytest.mark.parametrize("package", ["python3-pip", "python3-apt", "build-essential"])
def test_package_is_not_installed(host, package):
    assert not host.package(package).is_installed


@pytest.mark.parametrize("unit", [UNIT, SOCKET])
def test_unit_runs_and_starts_with_the_machine(host, unit):
    service = host.service(unit)
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("unit", [UNIT, SOCKET])
def test_unit_is_the_one_of_the_deployment(host, unit):
    assert host.file(f"/etc/systemd/system/{unit}").linked_to.startswith("/opt/whisper-xeon/deployments/")


@pytest.mark.parametrize("link", ["current", "confirmed"])
def test_link_names_the_one_deployment(host, link):
    (deployment,) = host.file("/opt/whisper-xeon/deployments").listdir()
    assert host.file(f"/opt/whisper-xeon/{link}").linked_to == f"/opt/whisper-xeon/deployments/{deployment}"


def test_everything_of_a_deployment_belongs_to_root(host):
    assert host.check_output("find /opt/whisper-xeon ! -user root -o ! -group root") == ""


def test_nothing_of_a_deployment_can_be_written(host):
    assert host.check_output(f"find {CURRENT}/ -perm /222 ! -type l") == ""


def test_deployment_holds_no_code_that_was_not_deployed(host):
    assert host.check_output(f"find {CURRENT}/ -name __pycache__") == ""


def test_service_runs_as_a_user_of_its_own(host, main_pid):
    assert host.check_output(f"stat --format=%u /proc/{main_pid}") not in ("0", "65534")


def test_service_has_no_capability(host, main_pid):
    status = host.file(f"/proc/{main_pid}/status").content_string
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Cap")} == {"0000000000000000"}


def test_service_can_gain_no_privilege(host, main_pid):
    assert "NoNewPrivs:\t1" in host.file(f"/proc/{main_pid}/status").content_string


def test_service_is_filtered_by_seccomp(host, main_pid):
    assert "Seccomp:\t2" in host.file(f"/proc/{main_pid}/status").content_string


def test_service_has_a_network_of_its_own_with_nothing_but_loopback(host, main_pid):
    devices = host.file(f"/proc/{main_pid}/net/dev").content_string
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]


def test_service_sees_the_disk_read_only(host, main_pid):
    mounts = host.file(f"/proc/{main_pid}/mounts").content_string.splitlines()
    (root,) = (line.split() for line in mounts if line.split()[1] == "/")
    assert "ro" in root[3].split(",")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Type", "notify"),
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateNetwork", "yes"),
        ("PrivateUsers", "no"),
        ("ProtectProc", "invisible"),
        ("ProcSubset", "all"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictRealtime", "yes"),
        ("LockPersonality", "yes"),
        ("SystemCallArchitectures", "native"),
        ("Restart", "always"),
        ("StartLimitIntervalUSec", "0"),
        ("RestartPreventExitStatus", "2 3"),
        ("OOMPolicy", "continue"),
        ("KillMode", "mixed"),
    ],
)
def test_property_of_the_service_is_in_effect(properties, name, value):
    assert properties.get(name, "") == value


@pytest.mark.parametrize(("name", "value"), [("TriggerLimitIntervalUSec", "0"), ("Backlog", "1024"), ("Accept", "no")])
def test_property_of_the_socket_is_in_effect(socket_properties, name, value):
    assert socket_properties[name] == value


def test_exposure_is_at_most_what_is_promised(host):
    result = host.run(f"systemd-analyze security --threshold=4 {UNIT}")
    assert result.succeeded, result.stdout


def test_service_is_what_was_deployed(host):
    said = json.loads(host.check_output("curl --silent --fail http://127.0.0.1:8000/version"))
    deployed = json.loads(host.file(f"{CURRENT}/deployment.json").content_string)
    assert (said["model"], said["release_id"]) == (deployed["model"], deployed["release_id"])


def transcribe(recording: Path) -> str:
    """Return the text of a recording that curl sends from this machine."""
    address = "http://127.0.0.1:28001/v1/audio/transcriptions"
    command = ["curl", "--silent", "--fail", "-F", f"file=@{recording}", address]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["text"]


def test_service_transcribes_for_curl_on_another_machine():
    recording = json.loads((RECORDINGS / "refs.json").read_text("utf-8"))["recordings"][0]
    assert transcribe(RECORDINGS / recording["file"]) == recording["text"]


def test_service_writes_no_file_for_an_upload_that_it_has_to_convert(host, main_pid, tmp_path):
    upload = tmp_path / "call.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", RECORDINGS / "en-00.wav", upload], check=True)
    assert transcribe(upload)
    user = host.check_output(f"stat --format=%u /proc/{main_pid}")
    assert host.check_output(f"find / /dev/shm /run /run/lock -xdev -user {user}") == ""
