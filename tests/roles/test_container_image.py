"""What the image is: small, without model, library or secret, and checked by Docker as the contract says."""

from __future__ import annotations

import mmap
import tarfile
from pathlib import Path

import pytest

from docker_client import docker, inspect
from paths import ROOT
from playbook import run_playbook
from service_container import BUILD

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def config(service_image) -> dict:
    """The image's configuration."""
    return inspect(service_image)["Config"]


@pytest.fixture(scope="module")
def files(service_image, tmp_path_factory) -> list[str]:
    """Path of every file in the image's file system."""
    container = docker("create", "--label=io.whisper-xeon.project=test", service_image).stdout.strip()
    archive = tmp_path_factory.mktemp("image") / "files.tar"
    try:
        docker("export", f"--output={archive}", container)
    finally:
        docker("rm", container)
    with tarfile.open(archive) as content:
        names = [member.name for member in content if not member.isdir()]
    archive.unlink()
    return names


def test_image_has_at_most_700_megabytes(service_image):
    assert inspect(service_image)["Size"] <= 700_000_000


def test_image_holds_no_model_and_no_library_of_whisper_cpp(files):
    foreign = ("ggml-", "libggml", "libwhisper")
    assert [name for name in files if Path(name).name.startswith(foreign) or name.endswith(".bin")] == []


def test_image_holds_of_the_repository_only_what_it_runs(files):
    modules = {
        f"opt/whisper-xeon/{path.relative_to(ROOT)}"
        for package in ("whisper_package", "whisper_xeon", "whisper_store")
        for path in (ROOT / "app" / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    started = {"check_package.py", "entrypoint.sh", "healthcheck.py", "make_bucket.py"}
    expected = modules | {f"opt/whisper-xeon/{name}" for name in started}
    expected.add("opt/whisper-xeon/scripts/download_whisper_artifacts.py")
    found = {name for name in files if name.startswith("opt/") and "__pycache__" not in name}
    assert found == expected


def test_secrets_of_the_one_who_builds_reach_neither_layers_nor_history(service_image, tmp_path):
    secret = "kept-out-of-the-image"
    run_playbook(*BUILD, env={"MINIO_ACCESS_KEY": secret, "MINIO_SECRET_KEY": secret})
    archive = tmp_path / "image.tar"
    docker("save", f"--output={archive}", service_image)
    with archive.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as everything:
        assert everything.find(b"opt/whisper-xeon/entrypoint.sh") > 0
        assert everything.find(secret.encode()) < 0
    archive.unlink()


def test_image_names_no_credential_and_no_store(config):
    assert [variable for variable in config["Env"] if variable.startswith("MINIO_")] == []


def test_image_runs_as_a_user_that_is_not_root(config):
    assert config["User"] == "10001:10001"


def test_no_program_of_the_image_gains_the_rights_of_its_owner(service_image):
    everything = ("run", "--rm", "--user=0", "--entrypoint=find", service_image, "/", "-xdev", "-type", "f")
    assert docker(*everything, "-perm", "/6000").stdout == ""
    assert "/usr/bin/ffmpeg" in docker(*everything, "-perm", "/0111").stdout


def test_docker_asks_every_30_seconds_waits_10_and_tries_3_times(config):
    check = config["Healthcheck"]
    assert (check["Interval"], check["Timeout"], check["Retries"]) == (30 * SECOND, 10 * SECOND, 3)


def test_ffmpeg_starts_without_the_files_that_the_image_leaves_out(service_image):
    missing = docker("run", "--rm", "--entrypoint=sh", service_image, "-c", 'ldd "$(command -v ffmpeg)"').stdout
    assert "libavdevice" in missing
    assert "not found" not in missing


def test_a_quota_of_processor_time_says_how_many_cores_there_are(service_image):
    def cores(*options: str) -> int:
        code = "from whisper_xeon.engine.cores import available_cores; print(available_cores())"
        return int(docker("run", "--rm", *options, "--entrypoint=python3", service_image, "-c", code).stdout)

    if cores() == 1:
        pytest.skip("this machine lends a container one core only")
    assert cores("--cpus=1") == 1
    assert cores("--cpus=1.9") == 1
    assert cores("--cpus=2") == 2
