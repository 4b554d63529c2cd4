"""Speech-to-text service around libwhisper; Python's standard library only.

Importing this package loads no library and starts nothing. The names of the specification are re-exported
lazily, so that reading a package never loads a shared object.
"""

from __future__ import annotations

from typing import Any

# To release: CONTRIBUTING.md, "Release". galaxy.yml has the same version (tests/unit/test_version.py).
__version__ = "0.1.0"

_ENGINE_NAMES = ("WhisperLibraryAdapter", "WhisperLibraryError", "LibraryLoadError", "ModelInitError")
__all__ = ["MODEL_CONFIGS", *_ENGINE_NAMES]


def __getattr__(name: str) -> Any:
    if name == "MODEL_CONFIGS":
        from whisper_package.models import MODEL_CONFIGS

        return MODEL_CONFIGS
    if name in _ENGINE_NAMES:
        from whisper_xeon import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
