"""How fast a package's library computes, called as directly as possible.

Seconds to encode one window of 30 s; milliseconds per token: `decode` is `whisper_decode` alone, `token` the time from
one token to the next inside `whisper_full`, which also chooses it from the logits; seconds of a whole `whisper_full` on
the package's self-test clip. It measures any package, with or without kernels; weights of true dimensions
(`builds.true_size`) give real figures and produce the same words for any audio.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import statistics
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whisper_package.package import Package
from whisper_package.variants import choose_variant, cpu_flags
from whisper_xeon.engine import library
from whisper_xeon.engine.cores import available_cores

PROMPT_TOKENS = 3  # start, language, task
DECODED_TOKENS = 32  # one at a time after the prompt: about 11 s of speech
UNITS = {"encode": "s", "decode": "ms", "token": "ms", "clip": "s"}

# void (*whisper_logits_filter_callback)(
#     struct whisper_context * ctx, struct whisper_state * state, const whisper_token_data * tokens, int n_tokens,
#     float * logits, void * user_data)
_LOGITS_FILTER = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
)


class Engine:
    """One loaded model with one state, and the functions of whisper.h that the service itself does not call."""

    def __init__(self, package: Package, threads: int, variant: str | None = None, language: str | None = None):
        self.threads = threads
        fields = package.manifest["abi"]["whisper_full_params"]["fields"]
        self._filter_offset = fields["logits_filter_callback"]["offset"]
        self._library = lib = library.load(package, choose_variant(package, cpu_flags(), variant))
        self.variant: str = lib.variant.name
        handle = ctypes.CDLL(str(package.path("libwhisper.so.1").absolute()))
        pointer, c_int = ctypes.c_void_p, ctypes.c_int
        # int whisper_encode_with_state(
        #     struct whisper_context * ctx, struct whisper_state * state, int offset, int n_threads)
        self._encode = handle.whisper_encode_with_state
        self._encode.argtypes = [pointer, pointer, c_int, c_int]
        # int whisper_decode_with_state(
        #     struct whisper_context * ctx, struct whisper_state * state, const whisper_token * tokens, int n_tokens,
        #     int n_past, int n_threads)
        self._decode = handle.whisper_decode_with_state
        self._decode.argtypes = [pointer, pointer, ctypes.POINTER(ctypes.c_int32), c_int, c_int, c_int]
        params = lib.default_context_params()
        params.use_gpu = False
        self._context = lib.whisper_init_from_file_with_params_no_state(str(package.model_file).encode(), params)
        self._state = self._context and lib.whisper_init_state(self._context)
        if not self._state:
            raise SystemExit(f"library: cannot load {package.directory}: {lib.last_message()}")
        self._language = (language or package.manifest["selftest"]["language"]).encode()
        self._samples = _samples(package.selftest_audio)

    def transcribe(self) -> tuple[float, float]:
        """Run whisper_full as the service does; return its seconds, and those from one token to the next."""
        moments: list[tuple[int, float]] = []
        params = self._library.default_params()
        params.n_threads = self.threads
        params.language = self._language
        params.print_progress = params.print_timestamps = False
        params.n_max_text_ctx = 0
        params.temperature_inc = 0.0
        setattr(params, "greedy.best_of", 1)
        # Called once per token, after its logits are computed; it filters nothing.
        clock = _LOGITS_FILTER(lambda _c, _s, _t, tokens, _l, _u: moments.append((tokens, time.perf_counter())))
        pointer = ctypes.c_void_p.from_buffer(params, self._filter_offset)
        pointer.value = ctypes.cast(clock, ctypes.c_void_p).value
        start = time.perf_counter()
        self._check(
            self._library.whisper_full_with_state(self._context, self._state, params, self._samples, len(self._samples))
        )
        seconds = time.perf_counter() - start
        # A count that starts again belongs to the next window, with its encoder in between.
        steps = [after - before for (_, before), (count, after) in zip(moments, moments[1:]) if count]
        return seconds, statistics.mean(steps)

    def encode(self) -> float:
        """Encode a window of 30 s, that of the last clip (a shorter one is padded); return seconds."""
        start = time.perf_counter()
        self._check(self._encode(self._context, self._state, 0, self.threads))
        return time.perf_counter() - start

    def decode(self) -> float:
        """Decode one token after the other, each with its logits; return seconds per token."""
        tokens = (ctypes.c_int32 * PROMPT_TOKENS)()
        self._check(self._decode(self._context, self._state, tokens, PROMPT_TOKENS, 0, self.threads))
        start = time.perf_counter()
        for past in range(PROMPT_TOKENS, PROMPT_TOKENS + DECODED_TOKENS):
            self._check(self._decode(self._context, self._state, tokens, 1, past, self.threads))
        return (time.perf_counter() - start) / DECODED_TOKENS

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise SystemExit(f"library: a call to libwhisper failed with code {code}")


def _samples(clip: Path) -> ctypes.Array:
    """Return a self-test clip, which is 16 kHz mono 16-bit WAV, as floats."""
    with wave.open(str(clip), "rb") as reader:
        data = memoryview(reader.readframes(reader.getnframes())).cast("h")
    return (ctypes.c_float * len(data))(*(value / 32768 for value in data))


def rounds(package: Package, threads: int, variant: str | None, language: str | None) -> Iterator[dict[str, Any]]:
    """Yield `encode` (s), `decode` (ms), `token` (ms) and `clip` (s) of one round after the other, and the variant.

    Weights and memory are touched for the first time before the first round.
    """
    engine = Engine(package, threads, variant, language)
    engine.transcribe()
    while True:
        encode, decode, (clip, token) = engine.encode(), engine.decode(), engine.transcribe()
        yield {
            "variant": engine.variant,
            "encode": encode,
            "decode": decode * 1e3,
            "token": token * 1e3,
            "clip": clip,
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="directory of a package, such as dist/whisper_small_xeon")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: one per core of this process")
    parser.add_argument("--variant", help="CPU library to use, such as baseline (default: the best for this processor)")
    parser.add_argument("--language", help="language of the clip; auto detects it (default: the self-test's)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--on-demand",
        action="store_true",
        help="measure one round for each line of standard input and print it as JSON",
    )
    arguments = parser.parse_args()
    measured = rounds(Package(arguments.package), arguments.threads, arguments.variant, arguments.language)
    if arguments.on_demand:
        for _ in sys.stdin:
            print(json.dumps(next(measured)), flush=True)
        return
    found = list(itertools.islice(measured, arguments.rounds))
    threads = f"{arguments.threads} thread{'s' * (arguments.threads != 1)}"
    print(f"{arguments.package}: variant {found[0]['variant']}, {threads}, medians of {arguments.rounds}")
    for name, unit in UNITS.items():
        values = [figures[name] for figures in found]
        print(f"{name}: {statistics.median(values):.3f} {unit} ({min(values):.3f}–{max(values):.3f})")


if __name__ == "__main__":
    main()
