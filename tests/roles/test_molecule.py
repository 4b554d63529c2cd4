"""The role `whisper_service` on a systemd container: molecule's whole sequence."""

import os
import subprocess

from docker_client import docker
from paths import ROOT


def molecule(command: str, artifacts_dir) -> subprocess.CompletedProcess:
    """Run a molecule command on the default scenario, with its state in this clone instead of the home folder."""
    return subprocess.run(
        ["molecule", command, "--scenario-name", "default"],
        cwd=ROOT,
        env={
            **os.environ,
            "MOLECULE_EPHEMERAL_DIRECTORY": str(ROOT / ".state" / "molecule"),
            "WHISPER_XEON_TEST_ARTIFACTS": str(artifacts_dir),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )


def test_molecule_default_scenario_passes(artifacts_dir):
    # What a run that was cut off left behind would be taken for a fresh host.
    if docker("ps", "--all", "--quiet", "--filter", "name=whisper-xeon-molecule").stdout:
        molecule("destroy", artifacts_dir)
    result = molecule("test", artifacts_dir)
    assert result.returncode == 0, result.stdout[-30000:]
