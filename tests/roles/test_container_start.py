"""How the container starts and ends: settings, download, check of the package, signals, health. Real MinIO."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from attacks import (
    ATTACKS,
    Target,
    endless_manifest,
    evil,
    key_of_ones_own,
    manifest_exchanged,
    old_channel,
    published,
    unsigned_library,
)
from docker_client import docker, inspect
from minio_server import NETWORK
from next_door import OF_OTHERS
from paths import APP
from running_service import EXACT, wait_for
from service_container import PACKAGES, PORT, PUBLISHED, TRUSTING, transcribe
from signing import KEY_FILE, PUBLIC, TRUSTED, sign
from whisper_package.models import MODEL_CONFIGS
from whisper_package.signature import new_private_key, public_key
from whisper_store.client import s3_client

LIBRARY = f"{PACKAGES}/whisper_small_xeon/libwhisper.so.1"
WEIGHTS = f"{PACKAGES}/whisper_small_xeon/ggml-small-q5_1.bin"
FREQUENT_CHECKS = ("--health-interval=1s", "--health-timeout=5s")


@pytest.fixture(scope="session")
def store(minio, small_package):
    """What the container is told about a store that holds `small`."""
    minio.store("publisher").publish(small_package.directory)
    reader = minio.settings("reader")
    return {
        "MINIO_ENDPOINT": minio.variables["artifact_store_host_endpoint"],
        "MINIO_ACCESS_KEY": reader.access_key,
        "MINIO_SECRET_KEY": reader.secret_key,
    }


@pytest.fixture
def damage(service_image):
    """Change one byte of a file in a volume."""

    def change(volume: str, path: str) -> None:
        command = f"printf '\\377' | dd of={path} bs=1 seek=4096 conv=notrunc status=none"
        docker(
            "run", "--rm", "--user=0", "--entrypoint=sh", f"--volume={volume}:{PACKAGES}", service_image, "-c", command
        )

    return change


def one_line(result) -> str:
    """Return the only line that a failed start wrote."""
    lines = (result.stdout + result.stderr).splitlines()
    assert len(lines) == 1, lines
    return lines[0]


class TestSettings:
    def test_what_cannot_be_a_model_ends_with_one_line_that_lists_the_models(self, run_image):
        result = run_image(WHISPER_MODEL_SIZE="../small")
        assert result.returncode == 2
        line = one_line(result)
        assert "WHISPER_MODEL_SIZE='../small'" in line
        assert all(model in line for model in MODEL_CONFIGS)

    def test_a_model_is_named_in_any_case(self, run_image):
        assert "WHISPER_MODEL_SIZE=large-v3-turbo\n" in run_image("--check-config", WHISPER_MODEL_SIZE="Turbo").stdout

    def test_bad_setting_ends_before_anything_is_downloaded(self, run_image):
        result = run_image(WHISPER_QUEUE="many")
        assert result.returncode == 2
        assert "WHISPER_QUEUE='many'" in one_line(result)

    def test_options_of_the_service_need_no_package(self, run_image):
        assert run_image("--version").stdout.startswith("whisper-xeon ")

    def test_small_is_the_default(self, run_image):
        assert "WHISPER_MODEL_SIZE=small\n" in run_image("--check-config").stdout

    def test_a_command_runs_in_place_of_the_service(self, run_image):
        result = run_image("id", "-u")
        assert (result.returncode, result.stdout) == (0, "10001\n")


class TestServing:
    def test_filled_volume_serves(self, serving):
        assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]

    def test_service_is_process_1(self, serving):
        assert serving.run("cat", "/proc/1/cmdline").split("\0")[:3] == ["python3", "-m", "whisper_xeon"]

    def test_libraries_are_found_by_programs_that_the_service_starts(self, serving):
        assert f"LD_LIBRARY_PATH={PACKAGES}/whisper_small_xeon" in serving.environment()

    def test_no_process_of_its_user_reads_another(self, serving):
        done = json.loads(serving.run("python3", "-c", OF_OTHERS, "1"))
        # Signals are for the system to forbid to what the service did not start.
        assert done == {"python3": ["signal"], "wx-zygote": ["signal"], "wx-worker": ["signal"]}


class TestWithoutAStore:
    def test_self_test_passes(self, run_image, filled_volume):
        result = run_image("--self-test", volume=filled_volume)
        assert result.returncode == 0, result.stderr
        assert '"ok": true' in result.stdout

    def test_empty_volume_names_the_variables_to_set(self, run_image, volume):
        result = run_image(volume=volume)
        assert result.returncode == 2
        line = result.stderr.splitlines()[-1]
        assert all(name in line for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"))

    def test_a_model_without_a_package_is_answered_with_those_that_are_there(self, run_image, filled_volume):
        result = run_image(volume=filled_volume, WHISPER_MODEL_SIZE="smal")
        assert result.returncode == 2
        line = result.stderr.splitlines()[0]
        assert "whisper_smal_xeon does not exist; the packages there are of small (did you mean small?)" in line

    @pytest.mark.parametrize("options", [(), ("--provide",), ("--self-test",)])
    def test_a_package_in_the_old_layout_is_refused_with_the_command_that_adopts_it(
        self, run_image, old_packages, store, options
    ):
        mounted = (f"--volume={old_packages}:{PACKAGES}",)
        for environment in ({}, store):  # what is in the store does not replace somebody's only copy
            result = run_image(*options, options=mounted, network=NETWORK, **environment)
            assert result.returncode == 3
            assert f"python -m whisper_store adopt {PACKAGES}/whisper_small_xeon`" in one_line(result)
        assert len(list((old_packages / "whisper_small_xeon").iterdir())) == 5

    @pytest.mark.parametrize("options", [(), ("--self-test",), ("--self",), ("--",)])
    def test_damaged_package_is_refused_with_the_file_that_differs(self, run_image, filled_volume, damage, options):
        damage(filled_volume, LIBRARY)
        result = run_image(*options, volume=filled_volume)
        assert result.returncode == 4
        line = one_line(result)
        assert "libwhisper.so.1" in line
        assert "SHA-256" in line


class TestWithAStore:
    def test_package_is_downloaded_and_served(self, start_image, volume, store):
        service = start_image(volume=volume, network=NETWORK, options=PUBLISHED, **store)
        service.wait_ready()
        assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]

    def test_second_start_needs_the_store_no_more(self, run_image, volume, store):
        first = run_image("download_whisper_artifacts.py", "small", volume=volume, network=NETWORK, **store)
        assert first.returncode == 0, first.stderr
        assert run_image("--self-test", volume=volume, network="none").returncode == 0

    def test_damaged_package_is_downloaded_again(self, run_image, filled_volume, damage, store):
        damage(filled_volume, WEIGHTS)
        result = run_image("--self-test", volume=filled_volume, network=NETWORK, **store)
        assert result.returncode == 0, result.stderr
        assert "ggml-small-q5_1.bin differs from its manifest (SHA-256)" in result.stderr

    def test_wrong_password_ends_with_one_line_that_keeps_it(self, run_image, volume, store):
        wrong = "not-the-password-of-the-reader"
        result = run_image(volume=volume, network=NETWORK, **{**store, "MINIO_SECRET_KEY": wrong})
        assert result.returncode == 5
        line = result.stderr.splitlines()[-1]
        assert store["MINIO_ENDPOINT"] in line
        assert "secret" in line
        assert wrong not in result.stdout + result.stderr

    def test_store_that_does_not_answer_is_named(self, run_image, volume, store):
        result = run_image(volume=volume, network=NETWORK, **{**store, "MINIO_ENDPOINT": "http://127.0.0.1:9"})
        assert result.returncode == 5
        assert "http://127.0.0.1:9" in result.stderr.splitlines()[-1]

    def test_model_that_was_never_published_is_named(self, run_image, volume, store):
        result = run_image(volume=volume, network=NETWORK, WHISPER_MODEL_SIZE="medium", **store)
        assert result.returncode == 3
        assert "has no release of 'medium'; it has small: publish medium" in result.stderr.splitlines()[-1]

    def test_a_bucket_in_the_old_layout_is_refused_until_it_is_adopted_with_the_command_that_is_named(
        self, run_image, volume, store, minio, small_package, artifacts_dir
    ):
        settings = minio.settings("root", bucket=f"old-{uuid.uuid4().hex[:12]}")
        client = s3_client(settings)
        client.create_bucket(Bucket=settings.bucket)
        client.put_object(
            Bucket=settings.bucket,
            Key=f"{small_package.name}/{small_package.model_file.name}",
            Body=small_package.model_file.read_bytes(),
        )
        account = {"MINIO_ACCESS_KEY": settings.access_key, "MINIO_SECRET_KEY": settings.secret_key}
        where = {**store, **account, "MINIO_BUCKET": settings.bucket}
        result = run_image(volume=volume, network=NETWORK, **where)
        assert result.returncode == 3
        assert "python -m whisper_store adopt small`" in result.stderr.splitlines()[-1]
        operator = {
            **account,
            "MINIO_ENDPOINT": minio.endpoint,
            "MINIO_BUCKET": settings.bucket,
            "PYTHONPATH": str(APP),
        }
        subprocess.run(
            [sys.executable, "-m", "whisper_store", "adopt", "small", f"--libraries={artifacts_dir}"],
            env={**os.environ, **operator, **TRUSTING, "WHISPER_SIGNING_KEY_FILE": str(KEY_FILE)},
            check=True,
        )
        assert run_image("--self-test", volume=volume, network=NETWORK, **where).returncode == 0

    def test_full_disk_is_named_before_anything_is_written(self, run_image, store):
        little = ("--tmpfs", f"{PACKAGES}:size=4m,uid=10001,gid=10001")
        result = run_image(network=NETWORK, options=little, **store)
        assert result.returncode == 1
        line = result.stderr.splitlines()[-1]
        assert f"{PACKAGES} has" in line
        assert "free" in line

    def test_service_does_not_know_the_credentials(self, start_image, filled_volume, store):
        service = start_image(volume=filled_volume, network=NETWORK, options=PUBLISHED, **store)
        service.wait_ready()
        environment = service.environment()
        assert "WHISPER_MODEL_SIZE=small" in environment
        assert not any(variable.startswith("MINIO_") for variable in environment)


class TestTrust:
    """What the keys of the bucket, or of the volume, cannot do to a container."""

    @pytest.fixture
    def target(self, minio, small_package, tmp_path) -> Target:
        settings = minio.settings("root", bucket=f"attacks-{uuid.uuid4().hex[:12]}")
        s3_client(settings).create_bucket(Bucket=settings.bucket)
        return published(settings, TRUSTED, "stable", tmp_path, small_package)

    @pytest.fixture
    def start(self, run_image, volume, store, target):
        """Start the container with the store, and its self-test instead of serving."""
        account = {"MINIO_ACCESS_KEY": target.settings.access_key, "MINIO_SECRET_KEY": target.settings.secret_key}
        where = {**store, **account, "MINIO_BUCKET": target.settings.bucket}
        return functools.partial(run_image, "--self-test", volume=volume, network=NETWORK, **where)

    @pytest.fixture
    def put(self, service_image, volume):
        """Copy a package's directory into the volume."""

        def copy(directory: Path) -> None:
            mounts = (f"--volume={volume}:{PACKAGES}", f"--volume={directory}:/from/{directory.name}:ro")
            docker("run", "--rm", *mounts, service_image, "cp", "-r", f"/from/{directory.name}", PACKAGES)

        return copy

    def test_without_a_trusted_key_one_line_says_how_to_make_one(self, run_image, filled_volume):
        result = run_image("--self-test", volume=filled_volume, WHISPER_TRUSTED_KEYS="")
        assert result.returncode == 2
        assert "whisper_store keys` makes a pair and prints its public key" in one_line(result)

    def test_keys_in_a_mounted_file_are_trusted(self, run_image, filled_volume, tmp_path):
        (tmp_path / "keys").write_text(f"# ours\n{public_key(new_private_key())}\n{PUBLIC}\n")
        mounted = (f"--volume={tmp_path / 'keys'}:/run/secrets/keys:ro",)
        environment = {"WHISPER_TRUSTED_KEYS": "", "WHISPER_TRUSTED_KEYS_FILE": "/run/secrets/keys"}
        result = run_image("--self-test", volume=filled_volume, options=mounted, **environment)
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize("signed_by", ["nobody", "another key"])
    def test_another_library_in_the_volume_never_runs(self, run_image, volume, put, target, signed_by):
        made = evil(target)
        if signed_by == "another key":
            sign(made.directory, private=new_private_key())
        put(made.directory)
        result = run_image("--self-test", volume=volume)
        assert result.returncode == 6
        said = "is not signed: if it is yours" if signed_by == "nobody" else "is signed by none of the trusted keys"
        assert said in one_line(result)

    @pytest.mark.parametrize("attack", [unsigned_library, key_of_ones_own, manifest_exchanged, endless_manifest])
    def test_what_somebody_put_into_the_bucket_is_not_taken(self, start, target, attack):
        attack(target)
        result = start()
        assert result.returncode in (4, 6)
        assert ATTACKS[attack] in result.stderr.splitlines()[-1]
        assert result.stdout == ""

    def test_an_old_channel_is_not_followed_even_where_the_package_is_damaged(self, start, target, volume, damage):
        assert start().returncode == 0
        old_channel(target)
        assert start().returncode == 0  # what is there needs no store
        damage(volume, LIBRARY)
        result = start()
        assert result.returncode == 6
        assert "somebody put an old channel back" in result.stderr.splitlines()[-1]

    def test_a_package_from_before_signing_gets_its_signature_from_the_store(self, start, target, put, tmp_path):
        before = shutil.copytree(target.new.directory, tmp_path / "before" / target.new.name)
        (before / "manifest.json.sig").unlink()
        put(before)
        result = start()
        assert result.returncode == 0, result.stderr
        assert "is not signed" in result.stderr

    @pytest.mark.parametrize("workdir", ["/", PACKAGES])
    @pytest.mark.parametrize("option", ["--check-config", "--self-test"])
    def test_a_python_module_in_the_volume_never_runs(self, run_image, service_image, filled_volume, workdir, option):
        plant = """
            cd "$1"
            mkdir whisper_xeon
            for file in json.py whisper_xeon/__init__.py whisper_xeon/__main__.py; do
                echo 'print("planted", flush=True)' > "$file"
            done
        """
        mount = f"--volume={filled_volume}:{PACKAGES}"
        docker("run", "--rm", "--entrypoint=sh", mount, service_image, "-ec", plant, "sh", PACKAGES)
        result = run_image(option, volume=filled_volume, options=(f"--workdir={workdir}",))
        assert result.returncode == 0, result.stderr
        assert "planted" not in result.stdout + result.stderr


class TestProcess:
    def test_sigterm_ends_it_with_0(self, start_image, filled_volume):
        service = start_image(volume=filled_volume, options=PUBLISHED)
        service.wait_ready()
        assert service.stop() == 0

    def test_sigterm_that_comes_while_python_starts_is_not_lost(self, run_image, filled_volume):
        pending = ("env", "--block-signal=TERM", "bash", "-c", "kill -TERM $$; exec python3 -m whisper_xeon")
        result = run_image(*pending, volume=filled_volume)
        assert result.returncode == 0, result.stderr
        assert '"stopped"' in result.stderr


class TestHealth:
    def test_first_download_is_starting_however_often_it_is_asked(self, start_image, silent_store, volume):
        service = start_image(volume=volume, options=FREQUENT_CHECKS, **silent_store)
        wait_for(lambda: len(service.state["Health"]["Log"]) >= 5, 60)
        assert service.health == "starting"
        assert "being downloaded" in service.state["Health"]["Log"][-1]["Output"]

    def test_sigterm_ends_a_download(self, start_image, silent_store, volume):
        service = start_image(volume=volume, options=FREQUENT_CHECKS, **silent_store)
        wait_for(lambda: "download_whisper_artifacts" in docker("top", service.name).stdout)
        assert service.stop() == 143

    @pytest.mark.parametrize("options", [(), ("--init",)], ids=["as process 1", "under an init"])
    def test_loaded_service_is_healthy(self, start_image, filled_volume, options):
        service = start_image(volume=filled_volume, options=(*FREQUENT_CHECKS, *options))
        wait_for(lambda: service.health == "healthy", 60)

    def test_service_that_answers_no_more_is_unhealthy(self, start_image, filled_volume):
        service = start_image(volume=filled_volume, options=(*FREQUENT_CHECKS, "--health-timeout=1s"))
        wait_for(lambda: service.health == "healthy", 60)
        docker("kill", "--signal=STOP", service.name)
        wait_for(lambda: service.health == "unhealthy", 60)


@pytest.fixture
def silent_store(start_image):
    """A store that takes connections and never answers."""
    listen = "import socket, time; s = socket.create_server(('', 9000)); time.sleep(600)"
    silent = start_image("python3", "-c", listen)
    address = inspect(silent.name)["NetworkSettings"]["IPAddress"]
    return {"MINIO_ENDPOINT": f"http://{address}:9000", "MINIO_ACCESS_KEY": "any", "MINIO_SECRET_KEY": "any"}
