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
from playbook import BUILD, one_at_a_time, run_build, run_playbook
from signing import sign
from whisper_package.package import Package

pytest_plugins = ["file_server", "host_container", "minio_server", "service_container"]

os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
# A Docker client before 23 builds with BuildKit only when told so.
os.environ["DOCKER_BUILDKIT"] = "1"


# Modules of tests/ that run in one worker, because they share what this machine has one of: the two hosts, the names
# and ports of service_container.py. A module of no group is one by itself.
GROUPS = {
    "hosts": ("e2e/test_end_to_end", "roles/test_deploy_", "roles/test_demo_ports", "roles/test_unit_running"),
    "service": ("e2e/test_model_switching", "roles/test_container_"),
}
# What takes minutes, the longest first: begun last, it would keep one worker busy while the other has nothing left.
LONGEST = (
    "hosts",
    "service",
    "integration/test_kernels",
    "roles/test_build_role",
    "roles/test_molecule",
    "integration/test_lint",
    "integration/test_quantization",
    "roles/test_build_options",
    "integration/test_reproducible",
)


def group_of(nodeid: str) -> str:
    """Return the group of a test, or its module without the suffix, below tests/."""
    module = nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")
    return next((group for group, modules in GROUPS.items() if module.startswith(modules)), module)


def pytest_collection_modifyitems(items):
    """Run the longest groups first; refuse a test of the hosts that another worker could run beside their own."""
    for item in items:
        if "hosts" in item.fixturenames and group_of(item.nodeid) != "hosts":
            raise pytest.UsageError(f"{item.nodeid} uses the hosts: name its module in GROUPS of tests/conftest.py")
    rank = {group: number for number, group in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(group_of(item.nodeid), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let each worker of `pytest -n 2` run whole groups."""
    config.option.loadscopereorder = False  # by the number of tests
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


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
def build_folder() -> Path:
    """Folder of a finished build of both models by the real builder from the fixtures: `dist/` and `context/`."""
    with one_at_a_time():
        run_playbook("playbooks/build.yml", "--skip-tags", "publish")
    return BUILD


@pytest.fixture(scope="session")
def artifacts_dir(request, tmp_path_factory) -> Path:
    """Folder with `whisper_small_xeon/` and `whisper_medium_xeon/`, signed by the tests' key.

    WHISPER_XEON_TEST_ARTIFACTS names a folder that holds them already.
    """
    ready = os.environ.get("WHISPER_XEON_TEST_ARTIFACTS")
    built = Path(ready) if ready else request.getfixturevalue("build_folder") / "dist"
    folder = tmp_path_factory.mktemp("artifacts")
    folder.chmod(0o755)  # also for the user in a container
    for package in built.glob("whisper_*_xeon"):
        sign(shutil.copytree(package, folder / package.name))
    return folder


@pytest.fixture(scope="session")
def real_artifacts_dir() -> Path:
    """Folder with `whisper_base_xeon/` and `whisper_tiny.en_xeon/`: OpenAI's own weights, by the real builder.

    WHISPER_XEON_TEST_REAL_ARTIFACTS names a folder that holds them already.
    """
    ready = os.environ.get("WHISPER_XEON_TEST_REAL_ARTIFACTS")
    if ready:
        return Path(ready)
    folder = BUILD / "real"
    run_build(folder, artifact_build_models=["base", "tiny.en"])
    return folder / "dist"


@pytest.fixture(scope="session")
def build_context(build_folder) -> Path:
    """The staged context of the build, out of which bench/ gets what was compiled."""
    return build_folder / "context"


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


@pytest.fixture(scope="session")
def built_command(tmp_path_factory) -> Path:
    """What `make command` builds: the wheel and the zipapp of the command, the drop-in's source distribution."""
    output = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "build_command.py", "--output", output], check=True, capture_output=True
    )
    return output
