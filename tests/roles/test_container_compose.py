"""compose.yml and compose.store.yml as a person uses them: hardening, secrets, the store, `down` and `up`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from docker_client import inspect
from running_service import EXACT
from service_container import IMAGE, PACKAGES, PORT, PROJECT, STORE_PORT, Compose, compose_project, request, transcribe
from signing import PUBLIC, TRUSTED
from whisper_store.settings import StoreSettings
from whisper_store.store import Store
from whisper_xeon.settings import SETTINGS

# What the container decides, not the person who starts it.
FIXED = {"WHISPER_ARTIFACTS_DIR", "WHISPER_HOST", "WHISPER_PORT", "API_PORT"}
# Signs that mean something to a shell, a URL, YAML or compose.
PASSWORD = "r:@/ %2B'$${x}-of-the-store"
ROOT_ACCOUNT = {"MINIO_ROOT_USER": "test-root", "MINIO_ROOT_PASSWORD": PASSWORD}
CREDENTIALS = {"MINIO_ACCESS_KEY": "test-root", "MINIO_SECRET_KEY": PASSWORD}


@pytest.fixture
def filled(compose: Compose, fill) -> Compose:
    """A project whose volume holds `small`; there is no store."""
    compose("create")
    fill(f"{PROJECT}_packages", "small")
    return compose


@pytest.fixture
def with_store(compose: Compose, small_package) -> Compose:
    """A project with a store of its own that holds `small`; the service has not run yet."""
    project = compose.with_store()
    project("run", "--rm", "bucket", **ROOT_ACCOUNT)
    settings = StoreSettings(f"http://127.0.0.1:{STORE_PORT}", "test-root", PASSWORD)
    Store(settings, trusted=TRUSTED).publish(small_package.directory)
    return project


def test_every_setting_of_the_service_is_handed_on(compose: Compose):
    names = {name for setting in SETTINGS for name in (setting.name, *setting.aliases)} - FIXED
    service = json.loads(compose("config", "--format=json").stdout)["services"]["api"]
    assert names <= set(service["environment"])


def test_service_listens_on_the_loopback_unless_told_otherwise(compose: Compose):
    def host_ip(**environment: str) -> str:
        service = json.loads(compose("config", "--format=json", **environment).stdout)["services"]["api"]
        return service["ports"][0]["host_ip"]

    assert host_ip() == "127.0.0.1"
    assert host_ip(WHISPER_HOST="0.0.0.0") == "0.0.0.0"


class TestServing:
    """A project that serves `small` without store and variables, for tests that only look at it."""

    @pytest.fixture(scope="class")
    def project(self, service_image, compose_client, fill) -> Iterator[Compose]:
        with compose_project(compose_client) as project:
            project("create")
            fill(f"{PROJECT}_packages", "small")
            project("up", "--detach")
            project.api.wait_ready()
            yield project

    def test_it_transcribes(self, project):
        assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]

    def test_container_uses_the_image_and_its_healthcheck(self, project):
        container = inspect(project.api.name)
        assert container["Image"] == inspect(IMAGE)["Id"]
        assert container["Config"]["Healthcheck"] == inspect(IMAGE)["Config"]["Healthcheck"]

    def test_process_is_an_unprivileged_user_for_good(self, project):
        lines = project.api.run("cat", "/proc/1/status").splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert set(status["Uid"].split()) == {"10001"}
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"

    def test_only_packages_and_tmp_can_be_written(self, project):
        folders = ("/", "/opt/whisper-xeon", "/etc", "/var/tmp", "/tmp", PACKAGES)
        written = project.api.run(
            "sh",
            "-c",
            'for folder; do touch "$folder/probe" 2>/dev/null && rm "$folder/probe" && echo "$folder"; done; true',
            "-",
            *folders,
        )
        assert written.split() == ["/tmp", PACKAGES]


class TestWithoutAStore:
    def test_whisper_cli_of_the_package_serves_the_same_text(self, filled: Compose):
        filled("up", "--detach", USE_WHISPER_LIBRARY="false")
        filled.api.wait_ready()
        assert request(PORT, "GET", "/version")["adapter"] == "cli"
        assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]

    def test_folder_of_this_machine_serves_in_place_of_the_volume(self, compose: Compose, artifacts_dir):
        compose("up", "--detach", WHISPER_PACKAGES=str(artifacts_dir))
        compose.api.wait_ready()
        assert request(PORT, "GET", "/version")["model"] == "small"

    def test_down_and_up_lose_nothing(self, filled: Compose):
        filled("up", "--detach")
        filled.api.wait_ready()
        before = filled.api.run("find", PACKAGES, "-printf", "%p %i %T@\n")
        filled("down")
        filled("up", "--detach")
        filled.api.wait_ready()
        assert filled.api.run("find", PACKAGES, "-printf", "%p %i %T@\n") == before

    def test_down_lets_the_service_end_by_itself(self, filled: Compose):
        filled("up", "--detach")
        filled.api.wait_ready()
        filled("stop")
        assert filled.api.state["ExitCode"] == 0

    def test_empty_volume_names_the_variables_to_set(self, compose: Compose):
        result = compose("up", "--no-log-prefix", check=False)
        assert inspect(compose.api.name)["State"]["ExitCode"] == 2
        assert all(name in result.stderr for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"))

    def test_trusted_keys_come_from_a_file(self, filled: Compose, tmp_path):
        keys = tmp_path / "keys"
        keys.write_text(f"{PUBLIC}\n", encoding="utf-8")
        filled("up", "--detach", WHISPER_TRUSTED_KEYS="", WHISPER_TRUSTED_KEYS_FILE=str(keys))
        filled.api.wait_ready()

    def test_api_keys_come_from_a_file(self, filled: Compose, tmp_path):
        keys = tmp_path / "keys"
        keys.write_text("key-of-a-client\n", encoding="utf-8")
        keys.chmod(0o644)
        filled("up", "--detach", WHISPER_API_KEY_FILE=str(keys))
        filled.api.wait_ready()
        with pytest.raises(OSError, match="401"):
            transcribe(PORT)


class TestWithAStore:
    def test_store_needs_its_administrator(self, compose: Compose):
        result = compose.with_store()("up", "--detach", check=False)
        assert result.returncode != 0
        assert "MINIO_ROOT_" in result.stderr  # compose names the first it finds, in no order

    def test_package_comes_from_the_store_and_stays(self, with_store: Compose, compose: Compose):
        with_store("up", "--detach", **ROOT_ACCOUNT, **CREDENTIALS)
        with_store.api.wait_ready()
        assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]
        with_store("down", **ROOT_ACCOUNT)
        compose("up", "--detach")
        compose.api.wait_ready()
        assert request(PORT, "GET", "/version")["model"] == "small"

    def test_store_keeps_what_was_published(self, with_store: Compose):
        with_store("down", **ROOT_ACCOUNT)
        with_store("up", "--detach", **ROOT_ACCOUNT, **CREDENTIALS)
        with_store.api.wait_ready()

    def test_secret_from_a_file_stands_nowhere_in_the_container(self, with_store: Compose, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        secret.chmod(0o644)
        with_store("up", "--detach", **ROOT_ACCOUNT, MINIO_ACCESS_KEY="test-root", MINIO_SECRET_KEY_FILE=str(secret))
        with_store.api.wait_ready()
        assert PASSWORD not in json.dumps(inspect(with_store.api.name)) + with_store.api.logs()

    def test_wrong_password_is_said_in_the_log_and_not_shown(self, with_store: Compose):
        wrong = "not-the-password-of-the-store"
        result = with_store(
            "up", "--no-log-prefix", "api", check=False, **ROOT_ACCOUNT, **{**CREDENTIALS, "MINIO_SECRET_KEY": wrong}
        )
        assert inspect(with_store.api.name)["State"]["ExitCode"] == 5
        assert "http://store:9000" in result.stderr
        assert wrong not in result.stdout + result.stderr
