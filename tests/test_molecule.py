"""The role `whisper_service` on a systemd container: molecule's whole sequence."""

import os
import subprocess

from conftest import ROOT


def test_molecule_default_scenario_passes(artifacts_dir):
    result = subprocess.run(
        ["molecule", "test", "--scenario-name", "default"],
        cwd=ROOT,
        env={**os.environ, "WHISPER_XEON_TEST_ARTIFACTS": str(artifacts_dir)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stdout[-30000:]
