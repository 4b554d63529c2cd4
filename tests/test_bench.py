"""bench/: every command measures what it says, on the fixtures and for a round or two. Figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

from conftest import ROOT


def test_library_figures_come_for_every_round(small_package):
    command = [sys.executable, "bench/library.py", small_package.directory, "--threads", "1", "--rounds", "2", "--json"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout
    found = json.loads(output)
    assert found.pop("variant") in [variant["name"] for variant in small_package.manifest["variants"]]
    assert sorted(found) == ["clip", "decode", "encode", "token"]
    assert all(len(values) == 2 and min(values) > 0 for values in found.values())
