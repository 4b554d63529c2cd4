"""The models that a package can hold, what each needs, and the types that its weights can have."""

from __future__ import annotations

from typing import Any

from whisper_package.errors import PackageError

# What the weights can be built as; the first is the default.
QUANTIZATIONS = ("q5_1", "q4_0", "q5_0", "q8_0", "f16")


def weights_file(model: str, quantization: str = QUANTIZATIONS[0]) -> str:
    """Return the name of a model's weights in its package."""
    return f"ggml-{model}-{quantization}.bin"


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
        ("large-v2", 1177, 1800),
        ("large-v3", 1177, 1800),
        ("large-v3-turbo", 624, 1000),
    )
}


def model_config(name: str) -> dict[str, Any]:
    """Return the entry of `MODEL_CONFIGS` for a model's name; an unknown name raises `PackageError` listing all."""
    try:
        return MODEL_CONFIGS[name]
    except KeyError:
        raise PackageError(f"unknown model {name!r}: choose one of {', '.join(MODEL_CONFIGS)}") from None
