"""Fixtures around the container image: the image as it is shipped, volumes, containers, and real `docker compose`.

Names, ports (127.0.0.1:18003 and :18004) and labels are the tests' own; what an earlier run left is removed first.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docker_client import docker, inspect
from paths import RECORDINGS, ROOT
from playbook import one_at_a_time, run_playbook
from running_service import encode_form, wait_for
from signing import PUBLIC

IMAGE = "whisper-xeon/service:test"
COMPOSE_1_IMAGE = "whisper-xeon/compose-1:test"
NAME = "whisper-xeon-test-service"
PROJECT = "whisper-xeon-test-compose"
LABEL = "io.whisper-xeon.project=test"
PORT = 18003
STORE_PORT = 18004
STORE_CONSOLE_PORT = 18005
PACKAGES = "/var/lib/whisper-xeon"
START_SECONDS = 120
OLD_LIBRARIES = ("libwhisper.so", "libggml.so.0", "libggml-base.so.0", "libggml-cpu.so.0")
BUILD = ("playbooks/images.yml", "--skip-tags", "store", "-e", f"service_image_name={IMAGE}")

# Who must have signed what the container serves, unless a test says otherwise.
TRUSTING = {"WHISPER_TRUSTED_KEYS": PUBLIC}
PUBLISHED = (f"--publish=127.0.0.1:{PORT}:8000",)

# What compose.yml gives the container (test_container_compose.py holds it to that), for `docker run`.
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def request(port: int, method: str, path: str, body: bytes = b"", content_type: str = "") -> dict[str, Any]:
    """Return the JSON of an answer on the loopback; anything but 200 raises `OSError`."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != 200:
        raise OSError(f"{method} {path}: {answer.status} {content!r}")
    return json.loads(content)


def transcribe(port: int, recording: str = "en-00.wav") -> str:
    """Return the text of a test recording."""
    body, content_type = encode_form([("file", RECORDINGS / recording)])
    return request(port, "POST", "/v1/audio/transcriptions", body, content_type)["text"]


@dataclass(frozen=True)
class Container:
    """One container of the image."""

    name: str

    @property
    def state(self) -> dict[str, Any]:
        return inspect(self.name)["State"]

    @property
    def health(self) -> str:
        return self.state["Health"]["Status"]

    def logs(self) -> str:
        """Return what it wrote; conftest prints it beside a failed test."""
        result = docker("logs", self.name, check=False)
        return result.stdout + result.stderr

    def environment(self) -> list[str]:
        """Return the variables of its first process, which hides them from the user that it runs as."""
        return Path(f"/proc/{self.state['Pid']}/environ").read_text(encoding="utf-8").split("\0")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside, as the image's user, and return what it printed."""
        result = docker("exec", self.name, *command, check=check)
        return result.stdout + result.stderr

    def stop(self) -> int:
        """Send SIGTERM, as `docker stop` does, and return the exit status; 137 means that it had to be killed."""
        docker("stop", "--time=60", self.name)
        return self.state["ExitCode"]

    def wait_ready(self, port: int = PORT) -> None:
        """Wait until it would serve a request."""

        def ready() -> bool:
            if not self.state["Running"]:
                pytest.fail(f"{self.name} ended with {self.state['ExitCode']}:\n{self.logs()}", pytrace=False)
            return is_ready(port)

        wait_for(ready, START_SECONDS)


def is_ready(port: int) -> bool:
    """Whether the service at a port of the loopback would serve a request."""
    try:
        return request(port, "GET", "/readyz")["status"] == "ready"
    except (OSError, http.client.HTTPException):
        return False


def remove_leftovers() -> None:
    """Remove containers, volumes and networks of these tests, also those of a run that was cut off."""
    for name in (NAME, PROJECT):
        by_name = f"--filter=name={name}"
        for listing, removal in (
            (("ps", "--all", "--quiet"), ("rm", "--force", "--volumes")),
            (("volume", "ls", "--quiet"), ("volume", "rm")),
            (("network", "ls", "--quiet"), ("network", "rm")),
        ):
            if found := docker(*listing, by_name).stdout.split():
                docker(*removal, *found)


@pytest.fixture(scope="session")
def service_image() -> Iterator[str]:
    """Name of the image, built by the real playbook."""
    remove_leftovers()
    with one_at_a_time():
        run_playbook(*BUILD)
    yield IMAGE
    remove_leftovers()


@contextmanager
def empty_volume() -> Iterator[str]:
    """Make an empty volume and give its name."""
    name = f"{NAME}-packages"
    docker("volume", "create", f"--label={LABEL}", name)
    try:
        yield name
    finally:
        docker("volume", "rm", name)


@pytest.fixture
def volume(service_image) -> Iterator[str]:
    """Name of an empty volume."""
    with empty_volume() as name:
        yield name


@pytest.fixture(scope="session")
def fill(service_image, artifacts_dir) -> Callable[..., None]:
    """Copy real packages into a volume, as a person without a store does: `fill(volume, "small", ...)`."""

    def copy(volume: str, *models: str) -> None:
        mounts = (f"--volume={volume}:{PACKAGES}", f"--volume={artifacts_dir}:/packages:ro")
        folders = [f"/packages/whisper_{model}_xeon" for model in models]
        docker("run", "--rm", *HARDENED, *mounts, service_image, "cp", "-r", *folders, PACKAGES)

    return copy


@pytest.fixture
def filled_volume(volume, fill) -> str:
    """Name of a volume that holds the package of `small`."""
    fill(volume, "small")
    return volume


@pytest.fixture
def old_packages(small_package, tmp_path) -> Path:
    """A directory of this machine with `small` in the old layout: libraries and weights."""
    package = tmp_path / "old" / small_package.name
    package.mkdir(parents=True)
    for name in (*OLD_LIBRARIES, small_package.model_file.name):
        shutil.copyfile(small_package.path(name), package / name)
    return package.parent


@pytest.fixture
def run_image(service_image):
    """Run the image until it ends: `run_image(*arguments, volume=…, network=…, options=[…], NAME=value, …)`.

    The variables go through the client's environment, so that no secret stands in an argument list.
    """

    def run(*arguments: str, volume: str = "", network: str = "bridge", options: tuple[str, ...] = (), **environment):
        environment = {**TRUSTING, **environment}
        return docker(
            "run",
            "--rm",
            *_options(volume, network, environment),
            *options,
            service_image,
            *arguments,
            check=False,
            env=environment,
        )

    return run


@contextmanager
def containers(image: str) -> Iterator[Callable[..., Container]]:
    """Give a function that starts the image in the background, with the arguments of `run_image`."""
    started = []

    def start(*arguments: str, volume: str = "", network: str = "bridge", options: tuple[str, ...] = (), **environment):
        container = Container(f"{NAME}-{len(started)}")
        started.append(container)
        environment = {**TRUSTING, **environment}
        docker(
            "run",
            "--detach",
            f"--name={container.name}",
            *_options(volume, network, environment),
            *options,
            image,
            *arguments,
            env=environment,
        )
        return container

    # conftest prints this fixture's logs beside a failed test.
    start.logs = lambda: "\n".join(f"{container.name}:\n{container.logs()}" for container in started)
    try:
        yield start
    finally:
        for container in started:
            docker("rm", "--force", container.name)


@pytest.fixture
def start_image(service_image, volume) -> Iterator[Callable[..., Container]]:
    """See `containers`; they go before the volume."""
    with containers(service_image) as start:
        yield start


@pytest.fixture(scope="class")
def serving(service_image, fill) -> Iterator[Container]:
    """A container that serves `small` at 127.0.0.1:18003, for the tests of a class that only look at it."""
    with empty_volume() as volume, containers(service_image) as start:
        fill(volume, "small")
        container = start(volume=volume, options=PUBLISHED)
        container.wait_ready()
        yield container


def _options(volume: str, network: str, environment: dict[str, str]) -> list[str]:
    return [
        f"--label={LABEL}",
        f"--network={network}",
        *HARDENED,
        *([f"--volume={volume}:{PACKAGES}"] if volume else []),
        *(f"--env={name}" for name in environment),
    ]


@dataclass(frozen=True)
class Compose:
    """The project's compose files under a project name, with ports and labels of the tests."""

    config: Path  # the docker client's folder, with the plugin
    files: tuple[str, ...]
    image: str | None = None  # of docker-compose 1.29, if that is to be run

    def __call__(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`, with these variables in its environment and none of ours."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WHISPER_", "MINIO_"))}
        told = {
            "WHISPER_IMAGE": IMAGE,
            "WHISPER_PORT": str(PORT),
            "MINIO_PORT": str(STORE_PORT),
            "MINIO_CONSOLE_PORT": str(STORE_CONSOLE_PORT),
            **TRUSTING,
            **environment,
        }
        command = ["docker", *(_compose_1(self.image, told) if self.image else ("compose",))]
        result = subprocess.run(
            [*command, f"--project-name={PROJECT}", *(f"--file={name}" for name in self.files), *arguments],
            cwd=ROOT,
            env={**inherited, "DOCKER_CONFIG": str(self.config), **told},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if check and result.returncode:
            pytest.fail(
                f"docker compose {' '.join(arguments)} ended with {result.returncode}:\n{result.stdout}{result.stderr}",
                pytrace=False,
            )
        return result

    def with_store(self) -> Compose:
        """The same project with compose.store.yml."""
        files = (*self.files[:1], "compose.store.yml", *self.files[1:], "tests/support/compose.store.yml")
        return dataclasses.replace(self, files=files)

    @property
    def api(self) -> Container:
        """The container of service `api`."""
        return Container(f"{PROJECT}_api_1" if self.image else f"{PROJECT}-api-1")

    @property
    def package(self) -> Container:
        """The container that sees that the package is there, and ends before `api` starts."""
        return Container(f"{PROJECT}-package-1")

    def logs(self) -> str:
        """Return what every container of the project wrote."""
        names = docker("ps", "--all", f"--filter=name={PROJECT}", "--format={{.Names}}").stdout.split()
        return "\n".join(f"{name}:\n{Container(name).logs()}" for name in names)


def _compose_1(image: str, told: Iterable[str]) -> tuple[str, ...]:
    """Return the arguments of `docker` that run docker-compose 1.29, which sees this machine's files and daemon."""
    seen = ("/var/run/docker.sock", str(ROOT), tempfile.gettempdir())
    mounts = (f"--volume={path}:{path}" for path in seen)
    return ("run", "--rm", *mounts, f"--workdir={ROOT}", *(f"--env={name}" for name in told), image)


@pytest.fixture(scope="session")
def compose_client() -> Path:
    """A folder for the docker client's configuration in which `docker compose` works."""
    folder = ROOT / ".build" / "test" / "docker"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["scripts/install_compose.sh"], cwd=ROOT, env={**os.environ, "DOCKER_CONFIG": str(folder)}, check=True
    )
    return folder


@pytest.fixture(scope="session")
def compose_1_image(service_image) -> str:
    """Name of an image that runs docker-compose 1.29 of Debian 12."""
    context = ROOT / "tests" / "support"
    dockerfile = context / "compose-1.Dockerfile"
    arguments = (f"--tag={COMPOSE_1_IMAGE}", f"--build-arg=BASE_IMAGE={service_image}", f"--file={dockerfile}")
    docker("build", *arguments, str(context))
    return COMPOSE_1_IMAGE


@contextmanager
def compose_project(client: Path) -> Iterator[Compose]:
    """Give compose.yml, and remove in the end what was made of it."""
    made = Compose(client, ("compose.yml", "tests/support/compose.yml"))
    try:
        yield made
    finally:
        made.with_store()("down", "--volumes", "--timeout=5", MINIO_ROOT_USER="any", MINIO_ROOT_PASSWORD="any")


@pytest.fixture
def compose(service_image, compose_client) -> Iterator[Compose]:
    """compose.yml, with nothing left of the test before."""
    with compose_project(compose_client) as project:
        yield project


@pytest.fixture
def compose_1(compose: Compose, compose_1_image) -> Compose:
    """The same project by docker-compose 1.29."""
    return dataclasses.replace(compose, image=compose_1_image)
