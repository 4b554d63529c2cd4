"""libwhisper behind a process boundary: `library_adapter` calls it, `worker` hosts it, `pool` supervises the workers.

The front process imports `pool` only, which never loads the library. The names of the adapter are resolved on first
use, so that importing this package does not import ctypes.
"""

from __future__ import annotations

from typing import Any

from whisper_xeon.engine.errors import LibraryLoadError, ModelInitError, UnsupportedOptionError, WhisperLibraryError

__all__ = [
    "LibraryLoadError",
    "ModelInitError",
    "UnsupportedOptionError",
    "WhisperLibraryAdapter",
    "WhisperLibraryError",
]


def __getattr__(name: str) -> Any:
    if name == "WhisperLibraryAdapter":
        from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter

        return WhisperLibraryAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
