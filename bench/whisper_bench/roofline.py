"""The roofline of `make bench`: what this machine can do at best; runs in the venv of bench/requirements.txt.

Prints JSON: seconds of the matrix products of one window (all layers, including attention and the convolutions) in
float32 (OpenBLAS, through numpy), and in int8 of those with weights (ONNX Runtime's MatMulInteger); with `--read`, the
memory bandwidth in GB/s. OPENBLAS_NUM_THREADS is the number of threads of OpenBLAS.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from whisper_bench import synthetic_model

REPEATS = 3
READ_BYTES = 1 << 30


def weight_products(model: str) -> list[tuple[int, int, int, int]]:
    """Return (count, rows, inner, columns) of the encoder's products with weights."""
    width, _, layers, _ = synthetic_model.DIMENSIONS[model]
    context = synthetic_model.AUDIO_CONTEXT
    return [
        (4 * layers, context, width, width),
        (layers, context, width, 4 * width),
        (layers, context, 4 * width, width),
        (1, 2 * context, 3 * synthetic_model.mel_bins(model), width),
        (1, context, 3 * width, width),
    ]


def attention_products(model: str) -> list[tuple[int, int, int, int]]:
    """Return (count, rows, inner, columns) of the products within its attention."""
    width, heads, layers, _ = synthetic_model.DIMENSIONS[model]
    context = synthetic_model.AUDIO_CONTEXT
    return [(layers * heads, context, width // heads, context), (layers * heads, context, context, width // heads)]


def best(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of `REPEATS` calls."""
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def float32_seconds(products: list[tuple[int, int, int, int]]) -> float:
    """Return the seconds of all these products."""
    random = np.random.default_rng(0)
    total = 0.0
    for count, rows, inner, columns in products:
        left = random.standard_normal((rows, inner), dtype=np.float32)
        right = random.standard_normal((inner, columns), dtype=np.float32)
        out = np.empty((rows, columns), np.float32)
        total += count * best(lambda left=left, right=right, out=out: np.matmul(left, right, out=out))
    return total


def int8_seconds(products: list[tuple[int, int, int, int]], threads: int) -> float:
    """Return the seconds of all these products, whose second factor is known in advance, as weights are."""
    random = np.random.default_rng(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    total = 0.0
    for count, rows, inner, columns in products:
        weights = random.integers(-127, 127, (inner, columns), dtype=np.int8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
            "product",
            [helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, inner])],
            [helper.make_tensor_value_info("c", TensorProto.INT32, [rows, columns])],
            [numpy_helper.from_array(weights, "b")],
        )
        graph = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        left = {"a": random.integers(0, 255, (rows, inner), dtype=np.uint8)}
        total += count * best(lambda session=session, left=left: session.run(None, left))
    return total


def bandwidth(threads: int) -> float:
    """Return the GB/s that this many threads read in total."""
    values = np.ones(READ_BYTES // 4, np.float32)
    parts = np.array_split(values, threads)

    def read(part: np.ndarray) -> None:
        for block in np.array_split(part, 64):
            np.dot(block, block)

    with ThreadPoolExecutor(threads) as pool:
        return READ_BYTES / best(lambda: list(pool.map(read, parts))) / 1e9


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=synthetic_model.DIMENSIONS)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument(
        "--read", action="store_true", help="measure reading instead; set OPENBLAS_NUM_THREADS=1 for it"
    )
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps({"gigabytes_per_second": bandwidth(arguments.threads)}))
        return
    weights, attention = weight_products(arguments.model), attention_products(arguments.model)
    operations = sum(2 * count * rows * inner * columns for count, rows, inner, columns in weights + attention)
    print(
        json.dumps(
            {
                "operations": operations,
                "float32_seconds": float32_seconds(weights + attention),
                "int8_seconds": int8_seconds(weights, arguments.threads),
            }
        )
    )


if __name__ == "__main__":
    main()
