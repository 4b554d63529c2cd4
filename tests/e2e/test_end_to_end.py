"""The one real pass: build, publish to MinIO, deploy to two hosts over SSH, transcribe over HTTP."""

from __future__ import annotations

import json
import lzma
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_container import Host, Hosts
from minio_server import CONTAINER as MINIO_CONTAINER
from minio_server import MinioServer
from model_forms import write_huggingface
from other_vocabularies import ModelFile
from paths import RECORDINGS, ROOT
from playbook import Play, one_at_a_time, run_playbook
from whisper_package.package import Package

FIXTURE = ROOT / "tests" / "fixtures" / "models" / "ggml-fixture-small.bin.xz"
FINE_TUNE = "support-calls-de"


@dataclass(frozen=True)
class Pipeline:
    """The store and the hosts, with both packages published from a real build."""

    minio: MinioServer
    hosts: Hosts

    def build(self, **variables: Any) -> Play:
        """Run build.yml with publishing, as a user does."""
        given = ("-e", f"@{self.minio.variables_file}", "-e", json.dumps(variables))
        with one_at_a_time():
            return run_playbook("build.yml", *given)

    def deploy(self, *arguments: str, check: bool = True) -> Play:
        """Run deploy.yml against the store."""
        return self.hosts.deploy_from(self.minio, *arguments, check=check)


@pytest.fixture(scope="module")
def pipeline(minio, hosts) -> Pipeline:
    """Built, published and deployed, to hosts that had nothing which a file could have come from instead."""
    made = Pipeline(minio, hosts)
    made.build()
    hosts.play("playbooks/uninstall.yml")
    made.deploy()
    hosts.note_wanted(hosts.small, hosts.medium)
    return made


@pytest.fixture(scope="module")
def fine_tune(pipeline, tmp_path_factory) -> Package:
    """A fine-tune of `small` as a Hugging Face directory: built under a name of its own, and published."""
    folder = tmp_path_factory.mktemp("fine_tune")
    selftest = {"audio": str(RECORDINGS / "en-00.wav"), "language": "en", "text": "five eight right eight down hello"}
    pipeline.build(
        artifact_build_models=["Support-Calls-DE"],
        artifact_build_model_overrides={FINE_TUNE: {"path": str(trained(folder / "calls")), "selftest": selftest}},
        artifact_build_dist_dir=str(folder / "dist"),
        artifact_build_context_dir=str(folder / "context"),
    )
    return Package.find(folder / "dist", FINE_TUNE)


def trained(directory: Path) -> Path:
    """Write the weights of the small fixture, each changed by about a hundredth, as training would change them."""
    fixture = ModelFile.read(lzma.decompress(FIXTURE.read_bytes()))
    random = np.random.default_rng(11)
    network = {
        name: (values * random.normal(1, 0.01, values.shape)).astype(values.dtype)
        for name, values in fixture.arrays().items()
    }
    write_huggingface(directory, network, fixture.parameters)
    (directory / "vocab.json").unlink()  # it lists made-up words
    return directory


@pytest.fixture
def deployed(pipeline, artifacts_dir) -> Pipeline:
    """Each host serves the model of its host variables."""
    pipeline.hosts.restore(artifacts_dir, pipeline.hosts.small, pipeline.hosts.medium)
    return pipeline


def curl(host: Host, recording: str) -> dict:
    """Transcribe a recording with the curl line of the README."""
    result = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "-F", f"file=@{RECORDINGS / recording}", f"{host.url}/transcribe"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def test_a_second_build_changes_nothing(pipeline):
    assert pipeline.build().changed == 0


def test_both_hosts_transcribe_word_for_word(deployed, exact_recordings):
    for host in (deployed.hosts.small, deployed.hosts.medium):
        for recording in exact_recordings:
            assert curl(host, recording["file"])["text"] == recording["text"]


def test_a_host_decodes_what_a_telephone_records(deployed, exact_recordings, tmp_path):
    recording, clip = exact_recordings[0], tmp_path / "call.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", recording["path"], clip], check=True, stdin=subprocess.DEVNULL)
    assert curl(deployed.hosts.small, clip)["text"] == recording["text"]


def test_version_names_the_published_release(deployed, small_package):
    assert deployed.hosts.small.version()["release_id"] == small_package.release_id


def test_a_second_deploy_changes_and_restarts_nothing(deployed):
    before = deployed.hosts.small.main_pid(), deployed.hosts.medium.main_pid()
    assert deployed.deploy().changed == 0
    assert (deployed.hosts.small.main_pid(), deployed.hosts.medium.main_pid()) == before


def test_one_variable_moves_every_host_to_another_model(deployed):
    deployed.deploy("-e", "model=MEDIUM")
    assert [host.version()["model"] for host in (deployed.hosts.small, deployed.hosts.medium)] == ["medium", "medium"]


def test_two_models_of_one_size_are_in_the_channel(deployed, fine_tune, small_package):
    current = deployed.minio.store("reader").read_channel("stable").models
    assert current["small"]["release_id"] == small_package.release_id
    assert current[FINE_TUNE]["release_id"] == fine_tune.release_id != small_package.release_id


def test_a_fine_tune_serves_under_its_own_name_beside_another_model_until_the_rollback(
    deployed, fine_tune, exact_recordings
):
    host, recording = deployed.hosts.small, exact_recordings[0]
    deployed.deploy("-e", "model=Support-Calls-DE", "--limit", host.name)
    version = host.version()
    assert (version["model"], version["package"]) == (FINE_TUNE, "whisper_support-calls-de_xeon")
    assert version["release_id"] == fine_tune.release_id
    answer = curl(host, recording["file"])
    assert (answer["model"], answer["text"]) == (FINE_TUNE, recording["text"])
    assert deployed.hosts.medium.version()["model"] == "medium"
    deployed.hosts.play("playbooks/rollback.yml", "--limit", host.name)
    assert host.version()["model"] == "small"


def test_a_typo_is_answered_with_the_models_of_the_channel_before_a_host_is_touched(deployed, fine_tune):
    play = deployed.deploy("-e", "model=suport-calls-de", check=False)
    assert play.returncode != 0
    there = f"it has medium, small, {FINE_TUNE} (did you mean {FINE_TUNE}?)"
    assert f"has no release of 'suport-calls-de'; {there}: publish suport-calls-de" in play.said
    assert "Check every host" not in play.output


def test_killed_workers_lose_no_request(deployed, exact_recordings):
    host = deployed.hosts.small
    recording = exact_recordings[0]
    texts, over = [], threading.Event()

    def ask() -> None:
        while not over.is_set():
            texts.append(curl(host, recording["file"])["text"])

    killed = enough = 0
    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        while killed < 3 and not any(client.done() for client in asking):
            # A request is tried again once, before all others: after an answer more for each client it has its own, and
            # the next worker may die.
            if len(texts) >= enough:
                killed += "killed" in host.run("sh", "-c", "pkill -SEGV --oldest wx-worker && echo killed", check=False)
                enough = len(texts) + len(asking)
            time.sleep(0.01)
        over.set()
        for client in asking:
            client.result()
    assert set(texts) == {recording["text"]}
    assert killed == 3


def test_a_stopped_store_leaves_the_old_model_serving_and_says_why(deployed):
    before = deployed.hosts.small.main_pid()
    subprocess.run(["docker", "stop", MINIO_CONTAINER], check=True, capture_output=True)
    try:
        play = deployed.deploy("-e", "model=medium", check=False)
    finally:
        subprocess.run(["docker", "start", MINIO_CONTAINER], check=True, capture_output=True)
        deployed.minio.play("playbooks/minio.yml")
    assert play.returncode != 0
    assert deployed.minio.endpoint in play.output
    assert [host.version()["model"] for host in (deployed.hosts.small, deployed.hosts.medium)] == ["small", "medium"]
    assert deployed.hosts.small.main_pid() == before
