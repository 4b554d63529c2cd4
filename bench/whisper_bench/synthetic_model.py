"""Write a ggml Whisper model of true dimensions with random weights: for measuring, never for transcribing.

The real models are not available everywhere. Time and memory of the encoder, and the time per decoded token, depend on
dimensions and types only, so random weights give real figures for them. How well a model transcribes cannot be measured
this way.

Plain random weights would produce a different number of tokens with each rounding. So the decoder's positional
embeddings are the embeddings of the tokens that must come next, large enough to drown everything else: for any audio
this model produces `TEXT` as one segment and stops, reliably enough that nothing is decoded a second time. It is about
as much as people say in 11 s.

The words of the vocabulary come from a fixture model of this repository, the mel filters from librosa's formula (which
gives Whisper's 80, and the 128 of large-v3). The tensors are those that whisper.cpp 1.8 expects (`whisper_model_load`
in src/whisper.cpp), float16 matrices and float32 vectors, as upstream's converter writes them.
"""

from __future__ import annotations

import argparse
import lzma
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from whisper_bench.locations import FIXTURE_MODELS
from whisper_package.models import DIMENSIONS

FIXTURE = FIXTURE_MODELS / "ggml-fixture-small.bin.xz"

AUDIO_CONTEXT = 1500
TEXT_CONTEXT = 448
MULTILINGUAL = 51865  # tokens; English models have one ordinary token fewer, large-v3 and later one language more
HYPER_PARAMETERS = struct.Struct("<11i")
MAGIC = 0x67676D6C
FLOAT16 = 1

TEXT = (
    " whoever speaks to this machine will hear the same words again and no other"
    " for it has never learned what people say in any language"
)
# fmt: off
TEXT_TOKENS = (
    11387, 10789, 281, 341, 3479, 486, 1568, 264, 912, 2283, 797, 293, 572, 661,
    337, 309, 575, 1128, 3264, 437, 561, 584, 294, 604, 2856,
)
# fmt: on
END_OF_TEXT = 50257
LOUDNESS = 1000.0  # of the positional embeddings, against about 1 of all that the layers add
SEGMENT_END = 10.98  # s; with a shorter clip the segment ends where the clip does


def vocabulary_size(model: str) -> int:
    """Return the number of tokens of `model`."""
    return MULTILINGUAL - model.endswith(".en") + model.startswith("large-v3")


def mel_bins(model: str) -> int:
    """Return the number of frequency bands of the input of `model`."""
    return 128 if model.startswith("large-v3") else 80


def mel_filters(bins: int) -> np.ndarray:
    """Return the triangular filters of a slaney mel spectrogram, bins x 201 for 16 kHz and windows of 400 samples."""

    def hertz(mel):
        # Linear up to 1 kHz (15 mel), logarithmic above.
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    edges = hertz(np.linspace(0, top, bins + 2))[:, None]
    frequencies = np.linspace(0, 8000, 201)
    widths = np.diff(edges, axis=0)
    rising = (frequencies - edges[:-2]) / widths[:-1]
    falling = (edges[2:] - frequencies) / widths[1:]
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


def front_matter(model: str) -> bytes:
    """Return the bytes between the hyper-parameters and the first tensor: mel filters and vocabulary."""
    bins = mel_bins(model)
    _, middle = filters_and_vocabulary()
    words = middle[8 + 4 * 80 * 201 :]
    if model.endswith(".en"):
        # The last one is the empty word, which the English models do not have.
        words = struct.pack("<i", struct.unpack_from("<i", words)[0] - 1) + words[4:-4]
    return struct.pack("<2i", bins, 201) + mel_filters(bins).tobytes() + words


def filters_and_vocabulary(fixture: Path = FIXTURE) -> tuple[int, bytes]:
    """Return the vocabulary's size and the raw bytes between the hyper-parameters and the first tensor."""
    data = lzma.decompress(fixture.read_bytes())
    n_vocab = HYPER_PARAMETERS.unpack_from(data, 4)[0]
    start = offset = 4 + HYPER_PARAMETERS.size
    n_mel, n_fft = struct.unpack_from("<2i", data, offset)
    offset += 8 + 4 * n_mel * n_fft
    (tokens,) = struct.unpack_from("<i", data, offset)
    offset += 4
    for _ in range(tokens):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4 + length
    return n_vocab, data[start:offset]


def tensor_shapes(model: str, n_vocab: int):
    """Yield (name, shape) of every tensor of `model`, outermost dimension first."""
    width, _, encoder_layers, decoder_layers = DIMENSIONS[model]

    def norm(name):
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)

    def linear(name, rows, columns, bias=True):
        yield f"{name}.weight", (rows, columns)
        if bias:
            yield f"{name}.bias", (rows,)

    def attention(name):
        yield from norm(f"{name}_ln")
        yield from linear(f"{name}.query", width, width)
        yield from linear(f"{name}.key", width, width, bias=False)
        yield from linear(f"{name}.value", width, width)
        yield from linear(f"{name}.out", width, width)

    def block(name, cross):
        yield from attention(f"{name}.attn")
        if cross:
            yield from attention(f"{name}.cross_attn")
        yield from norm(f"{name}.mlp_ln")
        yield from linear(f"{name}.mlp.0", 4 * width, width)
        yield from linear(f"{name}.mlp.2", width, 4 * width)

    yield "encoder.positional_embedding", (AUDIO_CONTEXT, width)
    yield "encoder.conv1.weight", (width, mel_bins(model), 3)
    yield "encoder.conv1.bias", (width, 1)
    yield "encoder.conv2.weight", (width, width, 3)
    yield "encoder.conv2.bias", (width, 1)
    for layer in range(encoder_layers):
        yield from block(f"encoder.blocks.{layer}", cross=False)
    yield from norm("encoder.ln_post")
    yield "decoder.token_embedding.weight", (n_vocab, width)
    yield "decoder.positional_embedding", (TEXT_CONTEXT, width)  # made from token_embedding
    for layer in range(decoder_layers):
        yield from block(f"decoder.blocks.{layer}", cross=True)
    yield from norm("decoder.ln")


def bytes_per_token(model: str, bits: float) -> float:
    """Return the bytes of weights that the decoder reads for one token.

    Its matrices, except those that only a window's first token needs (keys and values of the encoder's output).
    """
    width, _, _, layers = DIMENSIONS[model]
    return (layers * 14 * width * width + vocabulary_size(model) * width) * bits / 8


def script(n_vocab: int) -> np.ndarray:
    """Return the token that follows at each position of the decoder: language, one segment, end of text."""
    end = end_of_text(n_vocab)
    english = end + 2
    languages = 99 + max(0, n_vocab - MULTILINGUAL)
    first_timestamp = english + languages + 6
    last_timestamp = first_timestamp + round(SEGMENT_END / 0.02)
    # The prompt is start, language and task, or start alone; the segment's first timestamp follows its last token.
    prompt = [english, end] if n_vocab >= MULTILINGUAL else []
    spoken = [*prompt, first_timestamp, *TEXT_TOKENS, last_timestamp]
    return np.array(spoken + [end] * (TEXT_CONTEXT - len(spoken)))


def end_of_text(n_vocab: int) -> int:
    """Return the first of the special tokens, which follow the ordinary ones."""
    return END_OF_TEXT - (n_vocab < MULTILINGUAL)


def tensors(model: str, n_vocab: int, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and values of every tensor of `model`, outermost dimension first; the same seed gives the same ones.

    Only matrices are float16; whisper.cpp expects float32 vectors and positional embeddings.
    """
    random = np.random.default_rng(seed)
    for name, shape in tensor_shapes(model, n_vocab):
        half = len(shape) > 1 and not name.endswith((".bias", "positional_embedding"))
        scale = 1.0 / np.sqrt(np.prod(shape[1:])) if half else 0.02
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        if name.endswith(("_ln.weight", "ln.weight", "ln_post.weight")):
            values += 1
        if name == "decoder.token_embedding.weight":
            token_embedding = values
        if name == "decoder.positional_embedding":
            # If the token is not allowed (a timestamp, when none are requested), the end is the next best.
            values = LOUDNESS * (token_embedding[script(n_vocab)] + 0.5 * token_embedding[end_of_text(n_vocab)])
        yield name, values.astype(np.float16 if half else np.float32)


def write_model(model: str, path: Path, seed: int = 0) -> None:
    """Write the float16 model file of `model` to `path`; the same seed gives the same bytes."""
    n_vocab = vocabulary_size(model)
    width, heads, encoder_layers, decoder_layers = DIMENSIONS[model]
    with path.open("wb") as stream:
        stream.write(struct.pack("<I", MAGIC))
        stream.write(
            HYPER_PARAMETERS.pack(
                n_vocab,
                AUDIO_CONTEXT,
                width,
                heads,
                encoder_layers,
                TEXT_CONTEXT,
                width,
                heads,
                decoder_layers,
                mel_bins(model),
                1,
            )
        )
        stream.write(front_matter(model))
        for name, values in tensors(model, n_vocab, seed):
            encoded = name.encode()
            half = int(values.dtype == np.float16)
            stream.write(struct.pack("<3i", values.ndim, len(encoded), half))
            stream.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)))
            stream.write(encoded)
            stream.write(values.tobytes())


def main() -> None:
    """Command line: MODEL OUTPUT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=DIMENSIONS)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_model(arguments.model, arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
