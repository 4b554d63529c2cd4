"""What it gains to decode windows together, by a package's own library.

Milliseconds per token and window with one window and with two to eight that decode together (weights of true
dimensions give real figures: `builds.true_size`); and, with clips, seconds of `transcribe_many` beside those of
`transcript` for one after the other, which must say the same. Rounds are interleaved; medians.

    PYTHONPATH=app:bench python -m whisper_bench.together dist/whisper_small_xeon [CLIP ...]
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from whisper_bench.library import DECODED_TOKENS, PROMPT_TOKENS
from whisper_package.package import Package
from whisper_xeon import WhisperLibraryAdapter
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.library_adapter import MAX_WINDOWS

WINDOWS = (1, 2, 4, MAX_WINDOWS)


class Windows:
    """States of one model that can decode together."""

    def __init__(self, adapter: WhisperLibraryAdapter):
        self._adapter = adapter
        self._library = adapter._library
        handle = ctypes.CDLL(str(adapter.package.path("libwhisper.so.1").absolute()))
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
        self._states = [self._library.whisper_init_state(adapter._context) for _ in range(MAX_WINDOWS)]
        self._together = self._library.whisper_xeon_together_init(adapter._context)
        for state in self._states:
            # A second of silence makes a spectrogram, and the keys and values of a window.
            self._check(self._set_silence(state))
            self._check(self._encode(adapter._context, state, 0, adapter.threads))

    def token(self, count: int) -> float:
        """Return the milliseconds per token and window with `count` windows."""
        states = self._states[:count]
        for state in states:
            self._library.whisper_xeon_join(self._together, state)
        with ThreadPoolExecutor(count) as threads:
            start = max(threads.map(self._decode_tokens, states))
        return (time.perf_counter() - start) / DECODED_TOKENS / count * 1e3

    def close(self) -> None:
        for state in self._states:
            self._library.whisper_free_state(state)
        self._library.whisper_xeon_together_free(self._together)

    def _set_silence(self, state: int) -> int:
        params = self._library.default_params()
        params.n_threads, params.max_tokens = self._adapter.threads, 1
        params.print_progress = params.print_timestamps = False
        samples = (ctypes.c_float * 16000)()
        return self._library.whisper_full_with_state(self._adapter._context, state, params, samples, len(samples))

    def _decode_tokens(self, state: int) -> float:
        """Decode one token after the other, and return when that began."""
        context, threads = self._adapter._context, self._adapter.threads
        tokens = (ctypes.c_int32 * PROMPT_TOKENS)()
        self._check(self._decode(context, state, tokens, PROMPT_TOKENS, 0, threads))
        start = time.perf_counter()
        for past in range(PROMPT_TOKENS, PROMPT_TOKENS + DECODED_TOKENS):
            self._check(self._decode(context, state, tokens, 1, past, threads))
        self._library.whisper_xeon_leave(state)
        return start

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise SystemExit(f"together: a call to libwhisper failed with code {code}")


def tokens(adapter: WhisperLibraryAdapter, rounds: int) -> None:
    """Print the milliseconds per token and window."""
    windows = Windows(adapter)
    found = {count: [] for count in WINDOWS}
    for _ in range(rounds):
        for count in WINDOWS:
            found[count].append(windows.token(count))
    windows.close()
    for count in WINDOWS:
        ratios = [after / before for after, before in zip(found[count], found[1])]
        print(f"{count} windows: {statistics.median(found[count]):.2f} ms, {statistics.median(ratios):.2f} of one")


def clips(adapter: WhisperLibraryAdapter, paths: list[Path], rounds: int) -> None:
    """Print the seconds of the clips, alone and together."""
    adapter.transcribe_many(paths)  # touches all memory for the first time
    alone, together = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        one_by_one = [adapter.transcript(path) for path in paths]
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        many = adapter.transcribe_many(paths)
        together.append(time.perf_counter() - start)
        if many != one_by_one:
            raise SystemExit("together: clips say something else than each says alone")
    ratios = [after / before for after, before in zip(together, alone)]
    print(
        f"{len(paths)} clips: {statistics.median(alone):.3f} s, together {statistics.median(together):.3f} s, "
        f"{statistics.median(ratios):.2f} of it"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="directory of a package, such as dist/whisper_small_xeon")
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", help="audio files")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: one per core of this process")
    parser.add_argument("--audio-ctx", default="full", help="full or auto (default: full)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    arguments = parser.parse_args()
    package = Package(arguments.package)
    with WhisperLibraryAdapter(package=package, threads=arguments.threads, audio_ctx=arguments.audio_ctx) as adapter:
        if not adapter._library.decodes_together:
            raise SystemExit(f"together: {package.directory} was built without the kernel together: build it again")
        print(f"{package.directory}: variant {adapter.variant.name}, {arguments.threads} threads")
        tokens(adapter, arguments.rounds)
        if arguments.clips:
            clips(adapter, arguments.clips, arguments.rounds)


if __name__ == "__main__":
    main()
