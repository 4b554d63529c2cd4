"""The modules of the collection document themselves as Ansible wants it."""

from __future__ import annotations

import json
import subprocess

from paths import ROOT

MODULES = {f"whisper.xeon.{path.stem}" for path in ROOT.glob("plugins/modules/*.py")}


def test_ansible_doc_shows_every_module():
    shown = subprocess.run(
        ["ansible-doc", "--json", "--type=module", *MODULES], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert set(json.loads(shown.stdout)) == MODULES
