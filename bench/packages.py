"""Packages to measure with, built by the real build playbook: from the fixtures, and from random weights of true size.

Each lies in a folder of its own below .build/bench; what has been built is not built again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

from synthetic_model import write_model

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "tests" / "fixtures" / "recordings"
FOLDER = ROOT / ".build" / "bench"


def fixture(model: str) -> Path:
    """Return the folder that holds `whisper_<model>_xeon/` with the fixture's tiny network in it."""
    return _build(f"fixture-{model}", {"artifact_build_models": [model]})


def true_size(model: str) -> Path:
    """Return the folder that holds `whisper_<model>_xeon/` with random weights of the real model's dimensions."""
    folder = FOLDER / f"true-{model}"
    folder.mkdir(parents=True, exist_ok=True)
    weights, clip = folder / "weights.bin", folder / "selftest.wav"
    if not weights.exists():
        write_model(model, folder / "weights.part")
        (folder / "weights.part").rename(weights)
    # Nobody knows what random weights say. Less than 0.1 s of audio is the one clip whose text is certain: none.
    with wave.open(str(clip), "wb") as writer:
        writer.setparams((1, 2, 16000, 0, "NONE", ""))
        writer.writeframes(bytes(2 * 800))
    override = {"path": str(weights), "selftest": {"audio": str(clip), "language": "en", "text": ""}}
    return _build(folder.name, {"artifact_build_models": [model], "artifact_build_model_overrides": {model: override}})


def _build(name: str, variables: dict[str, Any]) -> Path:
    dist = FOLDER / name / "dist"
    own = {"artifact_build_dist_dir": str(dist), "artifact_build_context_dir": str(FOLDER / name / "context")}
    command = ["ansible-playbook", "-i", "inventory/demo", "playbooks/build.yml", "--skip-tags", "publish"]
    # What it prints belongs to the build, not to the measurement.
    subprocess.run(
        [*command, "--extra-vars", json.dumps({**variables, **own})],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DOCKER_BUILDKIT": "1"},
        stdout=sys.stderr,
        check=True,
    )
    return dist
