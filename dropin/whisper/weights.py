"""Where a model's weights come from: a package that is here, else the store, else OpenAI's `.pt`, here or downloaded.

Packages are looked for below `WHISPER_ARTIFACTS_DIR`, and below the cache, where those go that are fetched or made.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from whisper import published
from whisper.checkpoint import check_usable, packaged
from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME
from whisper_package.models import ALIASES, MODEL_CONFIGS, did_you_mean, model_name, package_directory
from whisper_package.package import Package, packaged_models

NAMES = (*MODEL_CONFIGS, *ALIASES)


def find(name: str | os.PathLike[str], download_root: str | os.PathLike[str] | None = None) -> Package:
    """Return the package of a model that is named, or whose package or `.pt` a path names.

    Raises `RuntimeError` that says where it was looked for, and where the weights can come from.
    """
    path = Path(name)
    try:
        if (path / MANIFEST_NAME).is_file():
            return Package(path)
        directories = [*_artifacts(), _cache()]
        if path.is_file():
            return packaged(path, directories, _cache())
        model = model_name(os.fspath(name))
        for directory in directories:
            if (directory / package_directory(model)).is_dir():
                return Package.find(directory, model)
        if os.environ.get("MINIO_ENDPOINT"):
            return _fetched(model, directories[0])
        checkpoint = _checkpoint(model, download_root)
        if not checkpoint.is_file():
            _download(model, checkpoint, directories)
        return packaged(checkpoint, directories, _cache())
    except PackageError as error:
        raise RuntimeError(str(error)) from None


def _artifacts() -> list[Path]:
    named = os.environ.get("WHISPER_ARTIFACTS_DIR")
    return [Path(named)] if named else []


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper-xeon"


def _fetched(model: str, directory: Path) -> Package:
    """Return a package from the store that the environment names, with progress on standard error."""
    if not importlib.util.find_spec("botocore"):
        raise RuntimeError(
            "MINIO_ENDPOINT names a store, which is read with botocore: pip install botocore, or unset MINIO_ENDPOINT"
        )
    from whisper_store.__main__ import main_download

    with contextlib.redirect_stdout(sys.stderr):
        status = main_download([model, "--dir", str(directory)])
    if status:
        raise RuntimeError(f"model {model} did not come from the store (status {status}): the line above says why")
    return Package.find(directory, model)


def _download(model: str, checkpoint: Path, directories: list[Path]) -> None:
    try:
        check_usable(model, directories)
        published.download(model, checkpoint)
    except RuntimeError as error:
        raise RuntimeError(f"{_nowhere(model, directories, checkpoint)}. It was not downloaded: {error}") from None


def _nowhere(model: str, directories: list[Path], checkpoint: Path) -> str:
    there = sorted({found for directory in directories for found in packaged_models(directory)})
    others = f" (the packages there are of {', '.join(there)})" if there else ""
    return (
        f"model {model} is not here{did_you_mean(model, there)}: no {package_directory(model)} below "
        f"{' or '.join(map(str, directories))}{others}, and no {checkpoint}. Set WHISPER_ARTIFACTS_DIR to a directory "
        "that has it, or MINIO_ENDPOINT, its credentials and WHISPER_TRUSTED_KEYS to fetch it from a store"
    )


def _checkpoint(model: str, download_root: str | os.PathLike[str] | None) -> Path:
    """Return where openai-whisper keeps a model's weights."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
    return Path(download_root or cache) / f"{model}.pt"
