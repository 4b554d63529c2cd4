"""openai-whisper or faster-whisper in a process: reads one JSON request per line, answers one JSON line each.

A request is `{"path", "language", "words"}`; the answer `{"text", "language", "segments", "words"}`, where segments and
words are `[text, start, end]` in seconds. Neither sees anything of this project.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

Heard = dict[str, Any]


class OpenAI:
    """openai-whisper as its command runs it."""

    def __init__(self, weights: str, threads: int, options: dict[str, Any]):
        import torch

        import whisper

        torch.set_num_threads(threads)
        # On a processor it computes in float32, and says so for every file.
        warnings.filterwarnings("ignore", "FP16 is not supported on CPU")
        self._seed = torch.manual_seed
        self._model = whisper.load_model(weights, device="cpu")
        # It knows the heads of its own downloads by their names, and guesses those of weights from a path.
        name = Path(weights).stem
        if name in whisper._ALIGNMENT_HEADS:
            self._model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
        # What `whisper FILE` sets that `transcribe()` alone does not.
        command = {"beam_size": 5, "best_of": 5, "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
        self._options = {**command, **options}

    def transcribe(self, path: str, language: str | None, words: bool) -> Heard:
        self._seed(0)
        result = self._model.transcribe(path, language=language, word_timestamps=words, **self._options)
        return {
            "text": result["text"],
            "language": result["language"],
            "segments": [[s["text"], s["start"], s["end"]] for s in result["segments"]],
            "words": [
                [word["word"], word["start"], word["end"]] for s in result["segments"] for word in s.get("words", ())
            ],
        }


class FasterWhisper:
    """faster-whisper with int8 weights."""

    def __init__(self, weights: str, threads: int, options: dict[str, Any]):
        import ctranslate2
        from faster_whisper import WhisperModel

        self._seed = ctranslate2.set_random_seed
        self._model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=threads)
        self._options = options

    def transcribe(self, path: str, language: str | None, words: bool) -> Heard:
        self._seed(0)
        segments, info = self._model.transcribe(path, language=language, word_timestamps=words, **self._options)
        found = list(segments)
        return {
            "text": "".join(s.text for s in found),
            "language": info.language,
            "segments": [[s.text, s.start, s.end] for s in found],
            "words": [[word.word, word.start, word.end] for s in found for word in s.words or ()],
        }


ENGINES = {"openai-whisper": OpenAI, "faster-whisper": FasterWhisper}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("weights")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={}, help="as JSON, for transcribe()")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer
    engine = ENGINES[arguments.engine](arguments.weights, arguments.threads, arguments.options)
    for line in sys.stdin:
        # One of them gives the times of words as numpy's floats.
        print(json.dumps(engine.transcribe(**json.loads(line)), default=float), file=answers, flush=True)


if __name__ == "__main__":
    main()
