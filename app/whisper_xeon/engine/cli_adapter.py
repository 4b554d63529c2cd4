"""WhisperCliAdapter: speech to text through the package's whisper-cli, one process for each transcription.

The old way, kept to compare with and to fall back on: each transcription loads the model again. It replaces
`WhisperLibraryAdapter` in a worker; queue, supervision and answers are the same. The program reads its arguments,
prompt included, and the audio from anonymous files and writes its JSON to one: nothing that a request said appears in a
list of processes or on a disk. It dies with its worker.

What differs from the library in a transcript:
* `language_probability` is None: whisper-cli does not report it. So a clip whose language it detects has all of its
  window, however short it is;
* `no_speech_probability` is 0.0: a segment that it takes for silence is not in its output;
* probabilities have six digits, and `avg_logprob` is computed from them;
* words are where whisper.cpp estimates them, not where the cross attention sees them;
* a character made of several tokens is one token, with the id of the first;
* a prompt is one line; with it, or with hot words, each window is also shown the text of those before, since
  whisper-cli can be told only to forget both; hot words and a prompt are one prompt, shown to every window;
* the entropy of a window's last 32 tokens says whether it repeats itself, and not how well its text compresses;
* patience is 1, and of the tokens to suppress only those that are not speech can be named;
* a segment's temperature is the request's, since whisper-cli does not report it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.engine import process
from whisper_xeon.engine.adapter import Heard, WhisperAdapter
from whisper_xeon.engine.decoding import hotwords_bytes, prompt_bytes, temperature_step
from whisper_xeon.engine.errors import LibraryLoadError, UnsupportedOptionError, WhisperLibraryError
from whisper_xeon.engine.pulse import LOOK_S, STILL, Pulse
from whisper_xeon.engine.segments import RawSegment, build_transcript
from whisper_xeon.engine.words import Token
from whisper_xeon.transcript import NON_SPEECH, DecodeOptions, Transcript

_PROGRAM = "whisper-cli"
_LEAST_PROBABILITY = 1e-40  # a float, so that its logarithm exists


class CliCrashed(Exception):
    """whisper-cli was killed by a signal, or hung.

    Not a `WhisperLibraryError` on purpose: it ends the worker too, and the pool tries again or blames the audio, as it
    does when the library crashes.
    """


class WhisperCliAdapter(WhisperAdapter):
    """Runs whisper-cli for every transcription; no model is loaded in between."""

    _weighs_languages = False

    def _open(self) -> None:
        program = self.package.path(_PROGRAM).absolute()
        if not os.access(program, os.X_OK):
            raise LibraryLoadError(f"{program} is missing or not executable: fetch the package again")
        self._program = str(program)
        # Special tokens begin at the end-of-text token.
        self._text_end = 50257 if self.multilingual else 50256

    def _run(
        self, samples: memoryview, count: int, options: DecodeOptions, positions: int, heard: Heard | None
    ) -> Transcript:
        with _anonymous("audio") as audio, _anonymous("arguments") as arguments, _anonymous("answer") as answer:
            audio.write(_wav_header(len(samples)))
            audio.write(samples)
            audio.flush()
            arguments.write(self._arguments(options, f"/proc/self/fd/{audio.fileno()}", positions))
            arguments.flush()
            finished = _run(
                [self._program, f"@/proc/self/fd/{arguments.fileno()}"],
                stdout=answer,
                pass_fds=(audio.fileno(), arguments.fileno()),
                # LD_LIBRARY_PATH is searched before the libraries beside the program. Within the package it is a path
                # without colons, wherever the package is. For the others see `library.load` and `zygote`.
                cwd=self.package.directory,
                env={
                    "LD_LIBRARY_PATH": str(Path(self.variant.path).parent),
                    "LC_ALL": "C",
                    "OMP_WAIT_POLICY": "passive",
                    "GGML_NO_BACKTRACE": "1",
                },
                # Safe in a worker, which has no second thread. The unit's sandbox denies util-linux's setpriv.
                preexec_fn=functools.partial(process.die_with, os.getpid()),
            )
            answer.seek(0)
            data = answer.read()
        if finished.returncode < 0:
            raise CliCrashed(f"{_PROGRAM} was killed by signal {-finished.returncode}")
        return self._read(data, count / SAMPLE_RATE, options, _last_line(finished))

    def _arguments(self, options: DecodeOptions, audio: str, positions: int) -> bytes:
        """Return whisper-cli's arguments, one per line, with the effect of the library adapter's parameters."""
        if set(options.suppress_tokens) - {NON_SPEECH}:
            raise UnsupportedOptionError(
                "whisper-cli cannot suppress tokens of your choice: leave suppress_tokens out, or use the library"
            )
        prompt = (hotwords_bytes(options.hotwords) + prompt_bytes(options.prompt)).replace(b"\n", b" ")
        lines: list[str | bytes] = [
            "--no-prints",
            "--no-gpu",
            "--model",
            os.fsencode(self.package.model_file.absolute()),
        ]
        lines += ["--file", audio, "--output-json-full", "--output-file", "-", "--threads", str(self.threads)]
        lines += ["--language", options.language or ("auto" if self.multilingual else "en")]
        lines += ["--audio-ctx", str(positions)]
        lines += ["--translate"] if options.task == "translate" else []
        lines += ["--best-of", str(options.best_of), "--beam-size", str(options.beam_size)]
        lines += ["--temperature", f"{options.temperature:g}"]
        lines += ["--temperature-inc", f"{temperature_step(options):g}"]
        lines += ["--logprob-thold", f"{options.logprob_threshold:g}"]
        lines += ["--no-speech-thold", f"{options.no_speech_threshold:g}"]
        lines += ["--suppress-nst"] if NON_SPEECH in options.suppress_tokens else []
        lines += ["--carry-initial-prompt"] if options.hotwords else []
        lines += ["--prompt", prompt] if prompt else []
        lines += [] if prompt or options.condition_on_previous_text else ["--max-context", "0"]
        return b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)

    def _read(self, data: bytes, duration: float, options: DecodeOptions, reason: str) -> Transcript:
        try:
            # It escapes quotes only: line ends and broken characters are in its strings as they are.
            answer = json.loads(data.decode("utf-8", "replace"), strict=False)
            language = answer["result"]["language"]
            return build_transcript(
                [self._reported(segment, options.temperature) for segment in answer["transcription"]],
                options,
                language=language,
                language_probability=None,
                duration=duration,
            )
        except (ValueError, KeyError, TypeError):
            raise WhisperLibraryError(f"{_PROGRAM} did not write usable JSON: {reason}") from None

    def _reported(self, segment: dict[str, Any], temperature: float) -> RawSegment:
        tokens = [
            Token(
                id=token["id"],
                piece=token["text"].encode("utf-8"),
                p=token["p"],
                plog=math.log(max(token["p"], _LEAST_PROBABILITY)),
                t0=token["offsets"]["from"] // 10 if "offsets" in token else -1,
                t1=token["offsets"]["to"] // 10 if "offsets" in token else -1,
            )
            for token in segment["tokens"]
            if token["id"] < self._text_end
        ]
        offsets = segment["offsets"]
        return RawSegment(segment["text"], offsets["from"] // 10, offsets["to"] // 10, 0.0, tokens, temperature)


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a program as long as it computes. Raises `CliCrashed` when it hangs."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **options) as running:
        pulse = Pulse(running.pid)
        while True:
            try:
                _, messages = running.communicate(timeout=LOOK_S)
                return subprocess.CompletedProcess(command, running.returncode, stderr=messages)
            except subprocess.TimeoutExpired:
                pulse.look()
                if pulse.still >= STILL:
                    running.kill()
                    raise CliCrashed(f"{_PROGRAM} hangs") from None


@contextlib.contextmanager
def _anonymous(name: str) -> Iterator[BinaryIO]:
    with open(os.memfd_create(name, os.MFD_CLOEXEC), "w+b") as stream:
        yield stream


def _wav_header(size: int) -> bytes:
    """Return what precedes `size` bytes of float32 samples in a WAV file of any length (RF64, EBU Tech 3306)."""
    samples = size // 4
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 72 + size, size, samples, 0)
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, SAMPLE_RATE, 4 * SAMPLE_RATE, 4, 32)
    unknown = 0xFFFFFFFF  # look into ds64
    return struct.pack("<4sI4s", b"RF64", unknown, b"WAVE") + sizes + fmt + struct.pack("<4sI", b"data", unknown)


def _last_line(finished: subprocess.CompletedProcess[bytes]) -> str:
    lines = finished.stderr.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")
    return f"{last} (status {finished.returncode})"
