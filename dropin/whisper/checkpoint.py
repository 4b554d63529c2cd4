"""Makes a package of OpenAI's `.pt`: its weights as float16, with the libraries and the vocabulary of any package.

It is made once, into the cache, and found there by the `.pt`'s path, size and time. Needs numpy.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_package.alignment import alignment_heads
from whisper_package.digests import file_digest
from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, encode_manifest
from whisper_package.model_file import HyperParameters, check_model_file
from whisper_package.models import model_name, package_directory, weights_file
from whisper_package.package import Package, packaged_models

if TYPE_CHECKING:
    import numpy as np

_QUANTIZATION = "f16"
_LIBRARIES = ("lib", "cpu/")
_FREQUENCIES = 201
_HIGHEST_HZ = 8000
# Slaney's mel scale: linear up to 1000 Hz, logarithmic above.
_LINEAR_HZ = 1000.0
_HZ_EACH = 200.0 / 3
_LINEAR_MELS = _LINEAR_HZ / _HZ_EACH
_MELS_EACH_FACTOR = 27  # mels of a factor of 6.4


def packaged(checkpoint: Path, directories: Iterable[Path], cache: Path) -> Package:
    """Return the package that was made of a `.pt` named after its model, or make it.

    `directories` are where other packages are. Raises `RuntimeError`, `PackageError`.
    """
    model = model_name(checkpoint.stem)
    status = checkpoint.stat()
    key = f"{checkpoint.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    made = cache / "converted" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = made / package_directory(model)
    if not target.is_dir():
        _make(checkpoint, model, _donors(directories), target)
    return Package(target)


def check_usable(model: str, directories: Iterable[Path]) -> None:
    """Raise `RuntimeError` where a `.pt` of this model could not be made into a package, if it were here."""
    donors = _donors(directories)
    _check_tools("its .pt", donors)
    _vocabulary("its .pt", donors, multilingual=not model.endswith(".en"))


def _donors(directories: Iterable[Path]) -> list[Package]:
    """Return the packages below the directories, those whose whisper.cpp decodes as openai-whisper does first."""
    found = []
    for directory in directories:
        for model in packaged_models(directory):
            try:
                found.append(Package.find(directory, model))
            except PackageError:
                continue
    return sorted(found, key=lambda package: "decoding" not in package.kernels)


def _check_tools(checkpoint: str, donors: list[Package]) -> None:
    if not importlib.util.find_spec("numpy"):
        raise RuntimeError(f"{checkpoint} is read with numpy: pip install numpy")
    if not donors:
        raise RuntimeError(
            f"{checkpoint} has weights, and the libraries that compute them come from a package of any model: set "
            "WHISPER_ARTIFACTS_DIR to a directory that has one"
        )


def _make(checkpoint: Path, model: str, donors: list[Package], target: Path) -> None:
    _check_tools(str(checkpoint), donors)
    print(f"whisper: making a package of {checkpoint}, once", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
        directory = Path(part, target.name)
        directory.mkdir()
        weights = directory / weights_file(model, _QUANTIZATION)
        parameters = _convert(checkpoint, donors, weights)
        _copy(donors[0], directory)
        manifest = _manifest(donors[0], model, parameters, weights, file_digest(checkpoint))
        (directory / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
        try:
            directory.rename(target)
        except OSError:
            if not target.is_dir():  # made by another process meanwhile
                raise


def _convert(checkpoint: Path, donors: list[Package], weights: Path) -> HyperParameters:
    from whisper_build.downloads import SourceError
    from whisper_build.weights import ggml, pytorch
    from whisper_build.weights.pinned import Assets

    try:
        read = pytorch.read_openai(checkpoint)
        read.check()
        multilingual = read.parameters.n_vocab > 51864
        tokens = _vocabulary(str(checkpoint), donors, multilingual=multilingual)
        ggml.write(read, Assets(tokens, tokens, {bins: mel_filters(bins) for bins in (80, 128)}), weights)
        ggml.check(weights)
        return check_model_file(weights)
    except (SourceError, ValueError) as error:
        raise RuntimeError(str(error)) from None


def _vocabulary(checkpoint: str, donors: list[Package], *, multilingual: bool) -> list[bytes]:
    """Return the ordinary tokens of a package with a model of that kind."""
    for package in donors:
        parameters = check_model_file(package.model_file)
        if (parameters.n_vocab > 51864) == multilingual:
            with open(package.model_file, "rb") as stream:
                stream.seek(4 + 4 * len(parameters))
                bins, frequencies = struct.unpack("<2i", stream.read(8))
                stream.seek(4 * bins * frequencies, os.SEEK_CUR)
                (count,) = struct.unpack("<i", stream.read(4))
                return [stream.read(*struct.unpack("<i", stream.read(4))) for _ in range(count)]
    kind = "a multilingual model" if multilingual else "an English-only model"
    raise RuntimeError(
        f"{checkpoint} needs the vocabulary out of a package of {kind}, and none is below WHISPER_ARTIFACTS_DIR"
    )


def mel_filters(bins: int) -> np.ndarray:
    """Return the filters of OpenAI's mel_filters.npz, as librosa computes them: float32, bins x 201 frequencies."""
    import numpy as np

    mels = np.linspace(0.0, _mel(_HIGHEST_HZ), bins + 2)
    step = math.log(6.4) / _MELS_EACH_FACTOR
    edges = np.where(mels < _LINEAR_MELS, mels * _HZ_EACH, _LINEAR_HZ * np.exp(step * (mels - _LINEAR_MELS)))
    frequencies = np.linspace(0.0, _HIGHEST_HZ, _FREQUENCIES)
    below, center, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - below) / (center - below), (above - frequencies) / (above - center)
    return (np.maximum(0, np.minimum(rising, falling)) * (2 / (above - below))).astype("<f4")


def _mel(hertz: float) -> float:
    return _LINEAR_MELS + math.log(hertz / _LINEAR_HZ) / (math.log(6.4) / _MELS_EACH_FACTOR)


def _taken(donor: Package) -> list[dict[str, Any]]:
    """Return the files of a package that compute, and what a manifest must name; not what is said of its weights."""
    named = {"NOTICE", donor.manifest["selftest"]["audio"], donor.manifest.get("vad", {}).get("file")}
    return [
        entry for entry in donor.manifest["files"] if entry["path"] in named or entry["path"].startswith(_LIBRARIES)
    ]


def _copy(donor: Package, directory: Path) -> None:
    """Put what is taken of a package into a directory; as links where the file system has them."""
    for entry in _taken(donor):
        path = directory / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(donor.path(entry["path"]), path)
        except OSError:
            shutil.copy2(donor.path(entry["path"]), path)


def _manifest(donor: Package, model: str, parameters: HyperParameters, weights: Path, source: str) -> dict[str, Any]:
    own = {"path": weights.name, "size": weights.stat().st_size, "sha256": file_digest(weights), "executable": False}
    heads = [list(pair) for pair in alignment_heads(model, parameters)]
    return {
        **donor.manifest,
        "package": package_directory(model),
        "model": {
            "name": model,
            "file": weights.name,
            "quantization": _QUANTIZATION,
            "source_sha256": source,
            "dimensions": parameters.dimensions,
            "alignment_heads": heads,
        },
        "files": sorted([*_taken(donor), own], key=lambda entry: entry["path"]),
    }
