"""The one place that knows models by name: which there are, what each needs, and what a name of one's own may be.

A name becomes a directory, a key in the store, a file's name and a setting. So whoever is given one takes what
`model_name` makes of it, and no name that it rejects goes into any path. Also here: the types that weights can have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from whisper_package.errors import PackageError

# What the weights can be built as; the first is the default.
QUANTIZATIONS = ("q5_1", "q4_0", "q5_0", "q8_0", "f16")


def weights_file(model: str, quantization: str = QUANTIZATIONS[0]) -> str:
    """Return the name of a model's weights in its package."""
    return f"ggml-{model}-{quantization}.bin"


# The models that OpenAI released.
# dir: directory of the package; model: file of the weights in the default quantization; size_mb: size of that file;
# ram_mb: memory of a host with one engine and that file. Both are measured at true dimensions (`make bench-models`).
# The memory is the peak PSS of front, zygote and worker plus room for ten minutes of audio, as PCM twice and as a
# spectrogram once (about 100 MB).
MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    model: {"dir": f"whisper_{model}_xeon", "model": weights_file(model), "size_mb": size_mb, "ram_mb": ram_mb}
    for model, size_mb, ram_mb in (
        ("tiny", 32, 250),
        ("tiny.en", 32, 250),
        ("base", 60, 300),
        ("base.en", 60, 300),
        ("small", 190, 500),
        ("small.en", 190, 500),
        ("medium", 587, 1050),
        ("medium.en", 587, 1050),
        ("large-v1", 1177, 1800),
        ("large-v2", 1177, 1800),
        ("large-v3", 1177, 1800),
        ("large-v3-turbo", 624, 1000),
    )
}

# Their other names, as in OpenAI's tool.
ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}

# model: width, heads, encoder layers, decoder layers (openai/whisper, model dimensions)
DIMENSIONS: dict[str, tuple[int, int, int, int]] = {
    "tiny": (384, 6, 4, 4),
    "base": (512, 8, 6, 6),
    "small": (768, 12, 12, 12),
    "medium": (1024, 16, 24, 24),
    "large-v1": (1280, 20, 32, 32),
    "large-v2": (1280, 20, 32, 32),
    "large-v3": (1280, 20, 32, 32),
    "large-v3-turbo": (1280, 20, 32, 4),
}
DIMENSIONS.update({f"{model}.en": DIMENSIONS[model] for model in ("tiny", "base", "small", "medium")})

NAME_LENGTH = 63
NAME_RULE = (
    "a name begins with a letter, has letters, digits and single '.', '_' or '-' between them, "
    f"and at most {NAME_LENGTH} characters"
)
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
# What means something else where a model is named: a choice, a channel, whatever a server has.
_TAKEN = ("all", "auto", "default", "latest", "none", "stable", "whisper-1")
_NO_TEXT_IN_YAML = ("true", "false", "yes", "no", "on", "off", "null")
_PACKAGE = re.compile(r"whisper_(.+)_xeon")


def model_name(text: str) -> str:
    """Return the model that is meant: released or one's own, whatever the case, aliases resolved.

    Raises `PackageError` for what cannot be a name. Whether there is such a model is for others to find out.
    """
    name = text.lower()
    # Some letters of other alphabets are a to z in lower case.
    if not text.isascii() or len(name) > NAME_LENGTH or not _NAME.fullmatch(name):
        given = text if len(text) <= NAME_LENGTH else f"{text[:NAME_LENGTH]}…"
        raise PackageError(f"{given!r} is not a model's name: {NAME_RULE}")
    if name in _TAKEN + _NO_TEXT_IN_YAML:
        raise PackageError(f"{text!r} is reserved and cannot name a model: choose another name")
    return ALIASES.get(name, name)


def is_weights_file(name: str, model: str) -> bool:
    """Return whether a file is a model's weights, by its name, whatever their type."""
    return bool(re.fullmatch(rf"ggml-{re.escape(model)}(-[a-z0-9_]+)?\.bin", name))


def package_directory(model: str) -> str:
    """Return the directory of a model's package. Raises `PackageError` for what cannot be a name."""
    return f"whisper_{model_name(model)}_xeon"


def model_of(directory: str) -> str:
    """Return the model of the package that a directory is named after, empty if it is named after none."""
    found = _PACKAGE.fullmatch(directory)
    try:
        return found[1] if found and model_name(found[1]) == found[1] else ""
    except PackageError:
        return ""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint at what is closest to a name: one of `names`, or of the released models where there are none.

    It is empty if none is close, or if a released model has that very name.
    """
    released = {*MODEL_CONFIGS, *ALIASES}
    there = set(names) or released
    near = [] if name in there | released else difflib.get_close_matches(name, sorted(there), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def size_of(width: int, encoder_layers: int, decoder_layers: int) -> str:
    """Return the released model that needs the least memory of those that are no smaller than these dimensions.

    For more than the largest has, it is the largest.
    """
    wanted = (width, encoder_layers, decoder_layers)

    def memory(model: str) -> int:
        return MODEL_CONFIGS[model]["ram_mb"]

    holding = [
        model
        for model, (state, _, encoder, decoder) in DIMENSIONS.items()
        if all(size >= least for size, least in zip((state, encoder, decoder), wanted))
    ]
    return min(holding, key=memory) if holding else max(DIMENSIONS, key=memory)
