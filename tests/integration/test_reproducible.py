"""Two builds, same bytes: the libraries do not tell where, when, by whom or on what machine they were built."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from docker_client import docker
from playbook import one_at_a_time, run_build

AGAIN = Path(__file__).parent / "reproducible"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image with /digests: of what the builder's own image has built, and of what it builds elsewhere."""
    folder, run = tmp_path_factory.mktemp("again"), uuid.uuid4().hex[:12]
    builder, again = f"whisper-xeon-test-builder:{run}", f"whisper-xeon-test-again:{run}"
    run_build(folder)
    with one_at_a_time():
        docker("build", "--target=builder", f"--tag={builder}", ".", cwd=folder / "work" / "context")
        docker("build", f"--build-arg=BUILDER={builder}", f"--tag={again}", ".", cwd=AGAIN, timeout=3000)
    yield again
    docker("image", "rm", again, builder)


def test_another_place_day_host_umask_and_number_of_jobs_give_the_same_bytes(image):
    digests = docker("run", "--rm", image, "cat", "/digests").stdout
    first, second = (dict(reversed(line.split()) for line in part.splitlines()) for part in digests.split("\n\n"))
    assert len(first) > 15
    assert second == first
