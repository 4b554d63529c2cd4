"""openai-whisper's `whisper` on whisper-xeon: `load_model(name).transcribe(path)` and the command `whisper`.

Python's standard library only. It is never beside the original: both are the module `whisper`.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_REFUSED = (
    "openai-whisper is installed here too, and both are the module whisper: keep one of them. For whisper-xeon: "
    "pip uninstall -y openai-whisper whisper-xeon-openai, then install whisper-xeon[openai]; for the original: the "
    "same, then pip install openai-whisper"
)


def _refuse_beside_the_original() -> None:
    try:
        metadata.distribution("openai-whisper")
    except metadata.PackageNotFoundError:
        return
    if Path(sys.argv[0]).name == "whisper":
        sys.exit(f"whisper: {_REFUSED}")
    # With its name, `python3 -m whisper` shows the line alone.
    raise ImportError(_REFUSED, name="whisper")


_refuse_beside_the_original()

from whisper.audio import load_audio  # noqa: E402 - nothing is loaded beside the original
from whisper.model import ModelDimensions, Whisper, available_models, load_model, missing  # noqa: E402
from whisper.transcribe import transcribe  # noqa: E402
from whisper_xeon import __version__  # noqa: E402

__all__ = [
    "ModelDimensions",
    "Whisper",
    "__version__",
    "available_models",
    "load_audio",
    "load_model",
    "transcribe",
]


def __getattr__(name: str) -> Any:
    raise missing(name, f"module {__name__!r}")
