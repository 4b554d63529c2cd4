"""Fixtures that several test modules share: recordings, packages from the real builder, logs of what failed.

Whatever is slow to make is made once a session and only when a test asks for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paths import RECORDINGS, ROOT
from playbook import one_at_a_time, run_playbook
from whisper_package.package import Package

pytest_plugins = ["file_server", "host_container", "minio_server", "service_container"]

BUILD = ROOT / ".build" / "test"
DIST = BUILD / "dist"

os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
# A Docker client before 23 builds with BuildKit only when told so.
os.environ["DOCKER_BUILDKIT"] = "1"


# Modules whose tests share what this machine has one of: the two hosts, or the names and ports of service_container.py.
SHARED = {
    "test_demo_ports": "hosts",
    "test_deploy_": "hosts",
    "test_end_to_end": "hosts",
    "test_container_": "service",
    "test_model_switching": "service",
}


# Few tests that take minutes: begun last, they would keep one worker busy while the other has nothing left.
FIRST = ("test_kernels", "test_reproducible", "test_build_options")


def pytest_collection_modifyitems(items):
    """Run the modules of FIRST before all others."""
    items.sort(key=lambda item: item.module.__name__ not in FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let each worker of `pytest -n 2` run whole modules, and the same one all that share something."""
    config.option.loadscopereorder = False  # by the number of tests
    from xdist.scheduler import LoadScopeScheduling

    class ModuleScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0].rpartition("/")[2]
            return next((group for start, group in SHARED.items() if module.startswith(start)), module)

    return ModuleScheduling(config, log)


@pytest.fixture(scope="session")
def recordings() -> list[dict]:
    """Every recording of refs.json, with its `path` added."""
    entries = json.loads((RECORDINGS / "refs.json").read_text("utf-8"))["recordings"]
    return [dict(entry, path=RECORDINGS / entry["file"]) for entry in entries]


@pytest.fixture(scope="session")
def exact_recordings(recordings) -> list[dict]:
    """The recordings that both models transcribe word for word."""
    return [entry for entry in recordings if entry["exact"]]


@pytest.fixture(scope="session")
def artifacts_dir() -> Path:
    """Folder with `whisper_small_xeon/` and `whisper_medium_xeon/`, built by the real builder from the fixtures.

    WHISPER_XEON_TEST_ARTIFACTS names a folder that holds them already.
    """
    ready = os.environ.get("WHISPER_XEON_TEST_ARTIFACTS")
    if ready:
        return Path(ready)
    with one_at_a_time():
        run_playbook("playbooks/build.yml", "--skip-tags", "publish")
    return DIST


@pytest.fixture(scope="session")
def build_context() -> Path:
    """The staged context of a finished build, out of which bench/ gets what was compiled."""
    with one_at_a_time():
        run_playbook("playbooks/build.yml", "--skip-tags", "publish")
    return BUILD / "context"


@pytest.fixture(scope="session")
def small_package(artifacts_dir) -> Package:
    """The opened package of model `small`."""
    return Package.find(artifacts_dir, "small")


@pytest.fixture(scope="session")
def medium_package(artifacts_dir) -> Package:
    """The opened package of model `medium`."""
    return Package.find(artifacts_dir, "medium")


@pytest.fixture
def package_copy(small_package, tmp_path) -> Path:
    """Folder of a copy of the small package that a test may spoil."""
    return shutil.copytree(small_package.directory, tmp_path / small_package.name)


def container_logs() -> str:
    """The last lines of every container of the tests, and of the service's journal where one has it."""
    names = _output("docker", "ps", "--all", "--filter", "label=io.whisper-xeon.project=test", "--format", "{{.Names}}")
    journal = ("journalctl", "--unit=whisper-xeon.service", "--lines=50", "--no-pager", "--output=short-iso")
    return "\n".join(
        f"{name}:\n{_output('docker', 'logs', '--tail', '30', name)}{_output('docker', 'exec', name, *journal)}"
        for name in names.split()
    )


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the logs of everything that a failed test may have used: fixtures say theirs by `logs() -> str`."""
    report = yield
    if report.failed:
        fixtures = getattr(item, "funcargs", {})
        for name, value in fixtures.items():
            logs = getattr(value, "logs", None)
            if callable(logs):
                report.sections.append((f"logs of {name}", logs()))
        if {"hosts", "minio"} & set(item.fixturenames):
            report.sections.append(("logs of the containers", container_logs()))
    return report


def pytest_terminal_summary(terminalreporter):
    """Show what tests measured and recorded as properties, also those that a worker ran."""
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", "") == "teardown":
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")
