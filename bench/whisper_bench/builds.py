"""Packages to measure: those of the fixtures from the real build playbook, others assembled from what it compiled.

Each lies in a directory of its own in .build/bench; what is there is not built again. `kernels` are those that
whisper.cpp gets: all by default; with none it is what this project calls upstream.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_bench import synthetic_model
from whisper_bench.locations import RECORDINGS, ROOT, WORK_DIR
from whisper_package.digests import file_digest

# As in the Makefile: the venv's tools come first, and a Docker client before 23 builds with BuildKit only when told so.
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DOCKER_BUILDKIT": "1"}

CLIP_SECONDS = 11  # as long as the clip that whisper.cpp itself is usually measured with


def fixture(model: str, kernels: list[str] | None = None) -> Path:
    """Return the directory that holds `whisper_<model>_xeon/` with the fixture's tiny network in it."""
    return _build(f"fixture-{model}", kernels, {"artifact_build_models": [model]})


def true_size(model: str, kernels: list[str] | None = None) -> Path:
    """Return the directory that holds `whisper_<model>_xeon/` with random weights of the real model's dimensions."""
    weights, clip = weights_file(model), WORK_DIR / "selftest.wav"
    clip.write_bytes(speech(CLIP_SECONDS))
    selftest = {"audio": str(clip), "language": "en", "text": synthetic_model.TEXT}
    override = {"path": str(weights), "selftest": selftest}
    variables = {"artifact_build_models": [model], "artifact_build_model_overrides": {model: override}}
    return _build(f"true-{model}", kernels, variables)


def real(model: str, quantization: str, kernels: list[str] | None = None, weights: Path | None = None) -> Path:
    """Return the directory that holds `whisper_<model>_xeon/` with the weights that versions.yml pins, or `weights`."""
    variables: dict[str, Any] = {"artifact_build_models": [model], "artifact_build_quantization": quantization}
    if weights is not None:
        variables["artifact_build_model_overrides"] = {model: {"path": str(weights.resolve())}}
    return _build(f"real-{model}-{quantization}", kernels, variables)


def weights_file(model: str) -> Path:
    """Return the f16 file of `model` with random weights; it is written again when synthetic_model.py has changed."""
    recipe = hashlib.sha256(Path(synthetic_model.__file__).read_bytes()).hexdigest()
    weights = WORK_DIR / f"weights-{model}-{recipe[:8]}.bin"
    if not weights.exists():
        WORK_DIR.mkdir(parents=True, exist_ok=True)
        for old in WORK_DIR.glob(f"weights-{model}-*.bin"):
            old.unlink()
        part = weights.with_suffix(".part")
        synthetic_model.write_model(model, part)
        part.rename(weights)
    return weights


def speech(seconds: float) -> bytes:
    """Return a WAV file of this length: the longest recording, cut, or repeated if it is too short."""
    target = io.BytesIO()
    with wave.open(str(RECORDINGS / "long.wav"), "rb") as source, wave.open(target, "wb") as writer:
        writer.setparams(source.getparams())
        frames = source.readframes(source.getnframes())
        needed = round(seconds * source.getframerate()) * source.getsampwidth()
        writer.writeframes((frames * (needed // len(frames) + 1))[:needed])
    return target.getvalue()


@dataclass(frozen=True)
class Workshop:
    """What a finished build left behind, to make more packages with, as the builder does but without Docker."""

    context: Path  # as role artifact_build staged it
    built: Path  # what build.sh made: libraries, whisper-cli, whisper-quantize

    def quantize(self, weights: Path, target: Path, quantization: str) -> None:
        """Write an f16 model file to `target` in another type."""
        if quantization == "f16":
            target.hardlink_to(weights)
            return
        subprocess.run(
            [self.built / "whisper-quantize", weights, target, quantization], check=True, capture_output=True
        )

    def assemble(self, dist: Path, weights: dict[str, Path], quantization: str, selftest: dict[str, str]) -> Path:
        """Assemble `whisper_<model>_xeon/` in `dist` for each model of `weights`, and return `dist`.

        The weights are f16 and may have any dimensions; `selftest` has audio, language and text, as in versions.yml.
        """
        settings = json.loads((self.context / "build.json").read_text(encoding="utf-8"))
        settings["quantization"] = quantization
        settings["models"] = {
            model: {"source_sha256": file_digest(source), "notice": "For measuring only.", "selftest": selftest}
            for model, source in weights.items()
        }
        dist.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dist) as directory:
            scratch = Path(directory)
            (scratch / "build.json").write_text(json.dumps(settings), encoding="utf-8")
            for model, source in weights.items():
                self.quantize(source, scratch / f"{model}.bin", quantization)
                shutil.copyfile(selftest["audio"], scratch / f"{model}.wav")
            command = [sys.executable, self.context / "organize.py", "--settings", scratch / "build.json"]
            command += ["--built", self.built, "--models", scratch, "--selftest", scratch]
            command += ["--vad", self.context / "vad.bin", "--templates", self.context / "package", "--output", dist]
            environment = {**os.environ, "PYTHONPATH": str(self.context / "app")}
            subprocess.run(command, env=environment, stdout=sys.stderr, check=True)
        return dist


@contextlib.contextmanager
def workshop(context: Path | None = None) -> Iterator[Workshop]:
    """Get what was compiled for a staged context from Docker's cache; without a context, build the fixture first."""
    if context is None:
        fixture("small")
        context = WORK_DIR / "fixture-small" / "context"
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK_DIR) as built:
        subprocess.run(
            ["docker", "build", "--quiet", "--target=built", f"--output=type=local,dest={built}", "."],
            cwd=context,
            env=ENVIRONMENT,
            stdout=sys.stderr,
            check=True,
        )
        yield Workshop(context, Path(built))


def _build(name: str, kernels: list[str] | None, variables: dict[str, Any]) -> Path:
    own: dict[str, Any] = {}
    if kernels is not None:
        name = f"{name}-{'+'.join(kernels) or 'upstream'}"
        own["artifact_build_kernels"] = kernels
    directory = WORK_DIR / name
    own["artifact_build_dist_dir"], own["artifact_build_context_dir"] = (
        str(directory / "dist"),
        str(directory / "context"),
    )
    command = ["ansible-playbook", "-i", "tests/inventory", "playbooks/build.yml", "--skip-tags", "publish"]
    # To standard error: what it prints belongs to the build, not to the measurement.
    subprocess.run(
        [*command, "--extra-vars", json.dumps({**variables, **own})],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=sys.stderr,
        check=True,
    )
    return directory / "dist"
