"""The alignment heads that a directory states: generation_config.json of Hugging Face, config.json of CTranslate2."""

from __future__ import annotations

import json
from pathlib import Path

from whisper_build.downloads import SourceError
from whisper_package.alignment import Heads

_FILES = ("generation_config.json", "config.json")
_KEY = "alignment_heads"


def stated_heads(directory: Path) -> Heads:
    """Return layer and head of each, none if the directory does not say. Raises `SourceError`."""
    for path in map(directory.joinpath, _FILES):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            heads = content.get(_KEY) or []
            pairs = tuple((layer, head) for layer, head in heads)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise SourceError(f"{path} is not a JSON object whose {_KEY} is a list of pairs: get it again") from None
        if not all(type(number) is int and number >= 0 for pair in pairs for number in pair):
            raise SourceError(
                f"{path}: {_KEY} has something else than a layer and a head, counted from 0: get it again"
            )
        if pairs:
            return pairs
    return ()
