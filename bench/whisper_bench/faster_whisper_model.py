"""Write the synthetic model in faster-whisper's format: `python -m whisper_bench.faster_whisper_model MODEL DIRECTORY`.

The same weights as those of `synthetic_model`, through CTranslate2's own specification and its own quantization to
int8, and a tokenizer.json with the same words. Runs in the venv of bench/requirements.txt; needs no torch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import struct
from pathlib import Path

import numpy as np
from ctranslate2.converters.utils import fuse_linear
from ctranslate2.specs import common_spec, whisper_spec

from whisper_bench import synthetic_model
from whisper_xeon.languages import LANGUAGES

# Names of the tokens around the languages, as OpenAI's vocabulary has them.
SPECIAL_BEFORE = ("<|endoftext|>", "<|startoftranscript|>")
SPECIAL_AFTER = (
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
UNKNOWN = ""  # last of the text tokens; CTranslate2 recognises a multilingual model by it


def write(model: str, directory: Path) -> None:
    """Write the model's directory."""
    n_vocab, middle = synthetic_model.filters_and_vocabulary()
    names = vocabulary(middle, n_vocab)
    spec = specification(model, dict(synthetic_model.tensors(model, n_vocab)))
    spec.register_vocabulary(names)
    first_timestamp = names.index(SPECIAL_AFTER[-1]) + 1
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [synthetic_model.END_OF_TEXT]
    spec.config.lang_ids = list(range(synthetic_model.END_OF_TEXT + 2, first_timestamp - len(SPECIAL_AFTER)))
    _, heads, _, layers = synthetic_model.DIMENSIONS[model]
    spec.config.alignment_heads = list(itertools.product(range(layers // 2, layers), range(heads)))
    spec.validate()
    spec.optimize(quantization="int8")
    directory.mkdir(parents=True, exist_ok=True)
    spec.save(str(directory))
    words = {"type": "WordLevel", "vocab": {name: number for number, name in enumerate(names)}, "unk_token": UNKNOWN}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": words, "decoder": {"type": "Fuse"}}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def vocabulary(middle: bytes, n_vocab: int) -> list[str]:
    """Return the name of every token, each one different."""
    n_mel, n_fft = struct.unpack_from("<2i", middle, 0)
    offset = 8 + 4 * n_mel * n_fft
    (count,) = struct.unpack_from("<i", middle, offset)
    offset += 4
    names: dict[str, None] = {}
    for number in range(count):
        (length,) = struct.unpack_from("<I", middle, offset)
        name = middle[offset + 4 : offset + 4 + length].decode("utf-8", "replace")
        offset += 4 + length
        # Parts of characters are all the same once they are decoded.
        names[f"<{number}>" if name in names or not name else name] = None
    names.popitem()
    listed = [*names, UNKNOWN, *SPECIAL_BEFORE]
    listed += [f"<|{language}|>" for language in LANGUAGES][: n_vocab - 51765 - 1]
    listed += SPECIAL_AFTER
    return listed + [f"<|{number * 0.02:.2f}|>" for number in range(n_vocab - len(listed))]


def specification(model: str, tensors: dict[str, np.ndarray]) -> whisper_spec.WhisperSpec:
    """Return CTranslate2's specification of the model with every weight in its place, as its own converter does."""
    _, heads, encoder_layers, decoder_layers = synthetic_model.DIMENSIONS[model]
    spec = whisper_spec.WhisperSpec(encoder_layers, heads, decoder_layers, heads)

    def tensor(name: str) -> np.ndarray:
        return tensors[name].astype(np.float32)

    def norm(target, name: str) -> None:
        target.gamma, target.beta = tensor(f"{name}.weight"), tensor(f"{name}.bias")

    def linear(target, name: str) -> common_spec.LinearSpec:
        target.weight = tensor(f"{name}.weight")
        if f"{name}.bias" in tensors:
            target.bias = tensor(f"{name}.bias")
        return target

    def attention(target, name: str, cross: bool) -> None:
        norm(target.layer_norm, f"{name}_ln")
        parts = [linear(common_spec.LinearSpec(), f"{name}.{part}") for part in ("query", "key", "value")]
        groups = [parts[:1], parts[1:]] if cross else [parts]
        for number, group in enumerate(groups):
            fuse_linear(target.linear[number], group)
        linear(target.linear[-1], f"{name}.out")

    def feed_forward(target, name: str) -> None:
        norm(target.layer_norm, f"{name}.mlp_ln")
        linear(target.linear_0, f"{name}.mlp.0")
        linear(target.linear_1, f"{name}.mlp.2")

    for number, convolution in enumerate((spec.encoder.conv1, spec.encoder.conv2), 1):
        convolution.weight = tensor(f"encoder.conv{number}.weight")
        convolution.bias = tensor(f"encoder.conv{number}.bias").reshape(-1)
    for part, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        part.position_encodings.encodings = tensor(f"{name}.positional_embedding")
        for number, layer in enumerate(part.layer):
            block = f"{name}.blocks.{number}"
            attention(layer.self_attention, f"{block}.attn", cross=False)
            if part is spec.decoder:
                attention(layer.attention, f"{block}.cross_attn", cross=True)
            feed_forward(layer.ffn, block)
    norm(spec.encoder.layer_norm, "encoder.ln_post")
    norm(spec.decoder.layer_norm, "decoder.ln")
    # One matrix for both, as in Whisper.
    spec.decoder.embeddings.weight = spec.decoder.projection.weight = tensor("decoder.token_embedding.weight")
    return spec


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=synthetic_model.DIMENSIONS)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    write(arguments.model, arguments.directory)


if __name__ == "__main__":
    main()
