"""faster-whisper with int8 weights, measured as library.py and the service are; runs in the baselines' venv.

    rounds DIRECTORY CLIP --threads N                one JSON line of figures for each line of standard input
    serve DIRECTORY --port P --threads N             the model behind Python's http.server: POST a WAV file

faster-whisper has no server of its own; this one is the least that can be put in front of it.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
import time
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim

PROMPT = [50258, 50259, 50359]  # start, English, transcribe
SHORT, LONG = 2, 34  # tokens: their difference is the number that library.py decodes


def samples(data: bytes) -> np.ndarray:
    """Return a 16 kHz mono 16-bit WAV file as floats."""
    with wave.open(io.BytesIO(data), "rb") as reader:
        return np.frombuffer(reader.readframes(reader.getnframes()), np.int16).astype(np.float32) / 32768


def text(model: WhisperModel, audio: np.ndarray) -> str:
    """Transcribe greedily, as the service does."""
    segments, _ = model.transcribe(audio, language="en", beam_size=1, best_of=1, condition_on_previous_text=False)
    return "".join(segment.text for segment in segments)


def generate(model: WhisperModel, encoded: ctranslate2.StorageView, tokens: int) -> float:
    """Decode this many tokens, none of which may end the text; return seconds."""
    start = time.perf_counter()
    # It generates at most half of `max_length`, as Whisper does with its 448.
    result = model.model.generate(
        encoded, [PROMPT], beam_size=1, max_length=2 * tokens, suppress_tokens=[50257], suppress_blank=False
    )
    seconds = time.perf_counter() - start
    if len(result[0].sequences_ids[0]) != tokens:
        raise SystemExit(f"faster_whisper_run: decoded {len(result[0].sequences_ids[0])} tokens instead of {tokens}")
    return seconds


def rounds(model: WhisperModel, audio: np.ndarray) -> Iterator[dict[str, float]]:
    """Yield the figures of library.py; CTranslate2 decodes and chooses in one, so `decode` and `token` are equal."""
    window = np.ascontiguousarray(pad_or_trim(model.feature_extractor(audio)))
    encoded = model.encode(window)
    text(model, audio)
    while True:
        start = time.perf_counter()
        model.encode(window)
        encode = time.perf_counter() - start
        # The difference leaves out what comes with the first token: the encoder's keys and values in all layers.
        token = (generate(model, encoded, LONG) - generate(model, encoded, SHORT)) / (LONG - SHORT) * 1e3
        start = time.perf_counter()
        text(model, audio)
        clip = time.perf_counter() - start
        yield {"encode": encode, "decode": token, "token": token, "clip": clip, "variant": "int8"}


def serve(model: WhisperModel, port: int, workers: int) -> None:
    """Answer until the process is ended.

    Only as many requests are computed at once as the model has workers: if all were, their spectrograms would compete
    with each other for the cores.
    """
    free = threading.BoundedSemaphore(workers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(b"{}")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with free:
                transcript = text(model, samples(body))
            self._answer(json.dumps({"text": transcript}).encode())

        def _answer(self, body: bytes):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    Server(("127.0.0.1", port), Handler).serve_forever()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("rounds", "serve"):
        command = commands.add_parser(name)
        command.add_argument("directory")
        command.add_argument("--threads", type=int, required=True)
        command.add_argument("--workers", type=int, default=1)
    commands.choices["rounds"].add_argument("clip")
    commands.choices["serve"].add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    model = WhisperModel(
        arguments.directory,
        device="cpu",
        compute_type="int8",
        cpu_threads=arguments.threads,
        num_workers=arguments.workers,
    )
    if arguments.command == "serve":
        serve(model, arguments.port, arguments.workers)
    with open(arguments.clip, "rb") as stream:
        measured = rounds(model, samples(stream.read()))
    for _ in sys.stdin:
        print(json.dumps(next(measured)), flush=True)


if __name__ == "__main__":
    main()
