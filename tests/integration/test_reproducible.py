"""Two builds, same bytes: the libraries do not tell where, when, by whom or on what machine they were built."""

from __future__ import annotations

import subprocess
import uuid

import pytest

from paths import ROOT
from playbook import one_at_a_time, run_build


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The builder's own image, with what it built in /built."""
    folder, tag = tmp_path_factory.mktemp("again"), f"whisper-xeon-test-again:{uuid.uuid4().hex[:12]}"
    run_build(folder)
    build = ["docker", "build", "--target=builder", f"--tag={tag}", "."]
    with one_at_a_time():
        subprocess.run(build, cwd=folder / "work" / "context", check=True, capture_output=True)
    yield tag
    subprocess.run(["docker", "image", "rm", tag], capture_output=True)


def test_another_place_day_host_umask_and_number_of_jobs_give_the_same_bytes(image):
    command = ["docker", "run", "--rm", "--hostname=elsewhere", f"--volume={ROOT}/tests/reproducible:/reproducible:ro"]
    result = subprocess.run([*command, image, "/reproducible/again.sh"], capture_output=True, text=True, timeout=3000)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    first, second = (dict(reversed(line.split()) for line in part.splitlines()) for part in result.stdout.split("\n\n"))
    assert len(first) > 15
    assert second == first
