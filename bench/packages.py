"""Packages to measure with, built by the real build playbook: from the fixtures, and from random weights of true size.

Each lies in a folder of its own below .build/bench; what has been built is not built again. `upstream` is whisper.cpp
as it comes, without this project's patches.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import synthetic_model

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "tests" / "fixtures" / "recordings"
FOLDER = ROOT / ".build" / "bench"

CLIP_SECONDS = 11  # as long as the clip that whisper.cpp itself is usually measured with


def fixture(model: str, upstream: bool = False) -> Path:
    """Return the folder that holds `whisper_<model>_xeon/` with the fixture's tiny network in it."""
    return _build(f"fixture-{model}", upstream, {"artifact_build_models": [model]})


def true_size(model: str, upstream: bool = False) -> Path:
    """Return the folder that holds `whisper_<model>_xeon/` with random weights of the real model's dimensions."""
    weights, clip = weights_file(model), FOLDER / "selftest.wav"
    clip.write_bytes(speech(CLIP_SECONDS))
    selftest = {"audio": str(clip), "language": "en", "text": synthetic_model.TEXT}
    override = {"path": str(weights), "selftest": selftest}
    variables = {"artifact_build_models": [model], "artifact_build_model_overrides": {model: override}}
    return _build(f"true-{model}", upstream, variables)


def weights_file(model: str) -> Path:
    """Return the f16 file of `model` with random weights; one that another synthetic_model.py wrote is another file."""
    recipe = hashlib.sha256(Path(synthetic_model.__file__).read_bytes()).hexdigest()
    weights = FOLDER / f"weights-{model}-{recipe[:8]}.bin"
    if not weights.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        for old in FOLDER.glob(f"weights-{model}-*.bin"):
            old.unlink()
        part = weights.with_suffix(".part")
        synthetic_model.write_model(model, part)
        part.rename(weights)
    return weights


def speech(seconds: float) -> bytes:
    """Return a WAV file with so much speech, at most the 75 s that the longest recording has."""
    target = io.BytesIO()
    with wave.open(str(RECORDINGS / "long.wav"), "rb") as source, wave.open(target, "wb") as writer:
        writer.setparams(source.getparams())
        writer.writeframes(source.readframes(round(seconds * source.getframerate())))
    return target.getvalue()


def _build(name: str, upstream: bool, variables: dict[str, Any]) -> Path:
    folder = FOLDER / (f"{name}-upstream" if upstream else name)
    own = {"artifact_build_dist_dir": str(folder / "dist"), "artifact_build_context_dir": str(folder / "context")}
    if upstream:
        own["artifact_build_patches"] = []
    command = ["ansible-playbook", "-i", "inventory/demo", "playbooks/build.yml", "--skip-tags", "publish"]
    # What it prints belongs to the build, not to the measurement.
    subprocess.run(
        [*command, "--extra-vars", json.dumps({**variables, **own})],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DOCKER_BUILDKIT": "1"},
        stdout=sys.stderr,
        check=True,
    )
    return folder / "dist"
