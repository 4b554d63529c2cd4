"""compose.yml and compose.store.yml as a person uses them: hardening, secrets, the store, `down` and `up`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from certificates import Authority
from docker_client import inspect
from running_service import EXACT, wait_for
from service_container import (
    IMAGE,
    PACKAGES,
    PORT,
    PROJECT,
    STORE_PORT,
    Compose,
    compose_project,
    is_ready,
    request,
    transcribe,
)
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
def key_file(tmp_path) -> Path:
    """A file with one API key that user 10001 can read."""
    keys = tmp_path / "keys"
    keys.write_text("key-of-a-client\n", encoding="utf-8")
    keys.chmod(0o644)
    return keys


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
        assert compose.package.state["ExitCode"] == 2
        assert all(name in result.stderr for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"))

    def test_a_package_in_the_old_layout_ends_the_start_once_and_for_all(self, compose: Compose, old_packages):
        as_shipped = Compose(compose.config, ("compose.yml",))  # with the policies for restarts that people get
        result = as_shipped("up", "--detach", check=False, WHISPER_PACKAGES=str(old_packages))
        assert result.returncode != 0
        assert 'service "package" didn\'t complete successfully: exit 3' in result.stderr
        assert f"whisper_store adopt {PACKAGES}/whisper_small_xeon`" in compose.package.logs()
        ended, service = inspect(compose.package.name), inspect(compose.api.name)
        assert (ended["State"]["ExitCode"], ended["HostConfig"]["RestartPolicy"]["Name"]) == (3, "no")
        assert service["State"]["Status"] == "created"  # never started, so there is nothing that could be restarted

    def test_trusted_keys_come_from_a_file(self, filled: Compose, tmp_path):
        keys = tmp_path / "keys"
        keys.write_text(f"{PUBLIC}\n", encoding="utf-8")
        filled("up", "--detach", WHISPER_TRUSTED_KEYS="", WHISPER_TRUSTED_KEYS_FILE=str(keys))
        filled.api.wait_ready()

    def test_api_keys_come_from_a_file(self, filled: Compose, key_file):
        filled("up", "--detach", WHISPER_API_KEY_FILE=str(key_file))
        filled.api.wait_ready()
        with pytest.raises(OSError, match="401"):
            transcribe(PORT)

    def test_api_keys_in_a_directory_by_mistake_do_not_open_the_service(self, filled: Compose, tmp_path):
        result = filled("up", "--no-log-prefix", check=False, WHISPER_API_KEY_FILE=str(tmp_path))
        assert "WHISPER_API_KEY_FILE='/run/secrets/whisper_api_keys' is not allowed" in result.stderr
        assert not is_ready(PORT)

    def test_certificate_comes_from_files_and_the_container_is_healthy(self, filled: Compose, tmp_path):
        authority = Authority(tmp_path)
        certificate, key = authority.issue("localhost")
        for path in (certificate, key):
            path.chmod(0o644)
        filled("up", "--detach", "--wait", WHISPER_TLS_CERT=str(certificate), WHISPER_TLS_KEY=str(key))
        with closing(HTTPSConnection("localhost", PORT, timeout=60, context=authority.client())) as connection:
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200


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
        result = with_store("up", "--detach", check=False, **ROOT_ACCOUNT, **{**CREDENTIALS, "MINIO_SECRET_KEY": wrong})
        assert with_store.package.state["ExitCode"] == 5
        assert "http://store:9000" in with_store.package.logs()
        assert wrong not in result.stdout + result.stderr + with_store.package.logs()


class TestWithCompose1:
    """docker-compose 1.29 of Debian 12, which people who come from older systems have."""

    def test_service_and_store_come_up_with_every_secret_from_a_file(
        self, with_store: Compose, compose_1: Compose, key_file, tmp_path
    ):
        secret, trusted = tmp_path / "secret", tmp_path / "trusted"
        secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
        trusted.write_text(f"{PUBLIC}\n", encoding="utf-8")
        secret.chmod(0o644)
        with_store("down", **ROOT_ACCOUNT)
        compose_1.with_store()(
            *("up", "--detach"),
            **ROOT_ACCOUNT,
            MINIO_ACCESS_KEY="test-root",
            MINIO_SECRET_KEY_FILE=str(secret),
            WHISPER_API_KEY_FILE=str(key_file),
            WHISPER_TRUSTED_KEYS="",
            WHISPER_TRUSTED_KEYS_FILE=str(trusted),
        )
        compose_1.api.wait_ready()
        with pytest.raises(OSError, match="401"):
            transcribe(PORT)
        assert PASSWORD not in json.dumps(inspect(compose_1.api.name)) + compose_1.api.logs()
        compose_1.with_store()("down", **ROOT_ACCOUNT)

    def test_variable_switches_the_model_without_a_store(self, compose_1: Compose, fill):
        compose_1("create")
        fill(f"{PROJECT}_packages", "small", "medium")
        for model in ("small", "medium"):
            compose_1("up", "--detach", WHISPER_MODEL_SIZE=model)
            compose_1.api.wait_ready()
            assert request(PORT, "GET", "/version")["model"] == model
            assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]
        wait_for(lambda: compose_1.api.health == "healthy", 60)
        compose_1("down")

    def test_a_model_of_ones_own_takes_the_limit_of_another(self, compose_1: Compose):
        told = compose_1("config", WHISPER_MODEL_SIZE="Support-Calls-DE", WHISPER_LIMITS_OF="medium").stdout
        assert "mem_limit: 7g" in told
