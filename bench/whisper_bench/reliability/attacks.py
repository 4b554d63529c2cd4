"""Attacks of The Update Framework's list, with the bucket's own keys: do any run code, or bring an old release back?

They are those of the tests, on a download, a container and a host: `tests/support/attacks.py` says what each does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from whisper_bench.locations import ROOT
from whisper_bench.reliability import Row

TITLE = "attacks with the bucket's own keys, of TUF's list, that run code or downgrade: download, container, host"
GOAL = "0"
TODAY = "3 of 5 tried"
SECONDS = 600
TESTS = (
    "tests/integration/test_store_attacks.py",
    "tests/roles/test_container_start.py::TestTrust",
    "tests/roles/test_deploy_signing.py",
)


def measure(seconds: float) -> Row:
    """Make every attack once, however long that takes; one that succeeds is a test that fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *TESTS]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"the attacks were not made: {result.stdout[-2000:]}{result.stderr[-2000:]}")
        # Written by pytest a moment ago.
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314
    failed = [case.get("name", "") for case in cases if {each.tag for each in case} & {"failure", "error", "skipped"}]
    if not cases:
        raise RuntimeError(f"no attack was made: {result.stdout[-2000:]}")
    return Row(f"{len(failed)} of {len(cases)} trials", not failed, f"succeeded: {', '.join(failed)}" if failed else "")
