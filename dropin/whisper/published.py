"""OpenAI's `.pt` files where openai-whisper downloads them from: each below the SHA-256 of its content.

`WHISPER_XEON_WEIGHTS_URL` names a mirror that has them by the same paths; empty, nothing is downloaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PLACE = "https://openaipublic.azureedge.net/main/whisper/models"
# As in openai-whisper 20250625, by the name of the file.
SHA256 = {
    "tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "tiny": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "base.en": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "base": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "small.en": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "small": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "medium.en": "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    "medium": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v1": "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
    "large-v2": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
    "large-v3": "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
    "large-v3-turbo": "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
}


class NotDownloaded(RuntimeError):
    """The file did not come; the message says why."""


def download(model: str, target: Path) -> None:
    """Put a model's `.pt` where it belongs, with progress on standard error. Raises `NotDownloaded`."""
    from whisper_build import downloads

    place = os.environ.get("WHISPER_XEON_WEIGHTS_URL", _PLACE).strip().rstrip("/")
    if not place:
        raise NotDownloaded("WHISPER_XEON_WEIGHTS_URL is empty")
    if model not in SHA256:
        raise NotDownloaded("OpenAI has published no model of this name")
    url = f"{place}/{SHA256[model]}/{model}.pt"
    print(f"whisper: downloading {url} to {target}, once", file=sys.stderr, flush=True)
    try:
        downloads.download(
            url,
            target,
            SHA256[model],
            report=lambda line: print(f"whisper: {line}", file=sys.stderr, flush=True),
            attempts=3,
            pause=1.0,
            pinned_by="openai-whisper",
            elsewhere="name a directory on a larger disk with --model_dir",
        )
    except downloads.SourceError as error:
        raise NotDownloaded(str(error)) from None
    except OSError as error:
        raise NotDownloaded(f"{target.parent} cannot be written: {error.strerror}") from None
