"""Every linter is clean."""

import subprocess

from paths import ROOT


def test_every_linter_is_clean():
    result = subprocess.run(["scripts/lint.sh"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
