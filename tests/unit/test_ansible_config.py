"""ansible.cfg adds the clone's collection to those that a person has installed, and hides none of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from paths import ROOT

CLONES = "whisper.xeon.artifact_store_urls"
MODULE = "DOCUMENTATION = 'module: {name}\\nshort_description: Not that of the clone'\n"


@pytest.fixture
def home(tmp_path) -> Path:
    """The home of a person who has installed a collection of their own, and an older whisper.xeon."""
    for name in ("mine.own.hello", CLONES):
        namespace, collection, module = name.split(".")
        folder = tmp_path / ".ansible" / "collections" / "ansible_collections" / namespace / collection
        (folder / "plugins" / "modules").mkdir(parents=True)
        (folder / "plugins" / "modules" / f"{module}.py").write_text(MODULE.format(name=module))
    return tmp_path


def test_installed_collections_are_found_after_that_of_the_clone(home):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    shown = subprocess.run(
        ["ansible-doc", "--json", "--type=module", "mine.own.hello", CLONES],
        cwd=ROOT,
        env={**environment, "HOME": str(home), "PWD": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    folders = {name: Path(found["doc"]["filename"]).resolve() for name, found in json.loads(shown.stdout).items()}
    assert folders["mine.own.hello"].is_relative_to(home)
    assert folders[CLONES] == ROOT / "plugins" / "modules" / "artifact_store_urls.py"
