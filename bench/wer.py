"""What quantizing costs in words: the word error rate of the fixtures in every type, beside f16's.

The default type also with `WHISPER_AUDIO_CTX=auto`, where the encoder sees less than 30 s of a short clip.

Both networks transcribe the recordings of tests/fixtures, detecting the language, through the engines of the service.
What this can show and what it cannot stands below the table, here and in RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import packages
from service import duration, origin

from whisper_package.models import QUANTIZATIONS
from whisper_package.package import Package
from whisper_xeon.audio.decode import decode
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.transcript import DecodeOptions

MODELS = ("small", "medium")
RECORDING_SECONDS = 120  # within which each is transcribed, or something hangs
# Type of the weights, audio_ctx.
KINDS = [*((name, "full") for name in QUANTIZATIONS), (QUANTIZATIONS[0], "auto")]


@dataclass
class Heard:
    """What one network made of all recordings in one quantization."""

    model: str
    quantization: str
    audio_ctx: str  # full or auto
    file: str  # of the weights
    megabytes: float  # of that file, 10^6 bytes
    said: int  # words
    errors: int  # words put in, left out or changed
    texts: dict[str, str]  # by the recording's file

    @property
    def rate(self) -> float:
        """The word error rate, from 0."""
        return self.errors / self.said


def transcripts(package: Package, files: list[str], variant: str, audio_ctx: str) -> dict[str, str]:
    """Return what a package hears in each recording, by its file name; computed as in the service."""
    heard = {}
    options = {"threads": available_cores(), "cpu_variant": variant, "audio_ctx": audio_ctx}
    pool = EnginePool(package, engines=1, queue=1, **options)
    pool.start()
    try:
        for file in files:
            with open(packages.RECORDINGS / file, "rb") as stream, decode(stream.fileno(), max_seconds=600) as audio:
                deadline = time.monotonic() + RECORDING_SECONDS
                result = pool.transcribe(audio, DecodeOptions(), deadline=deadline, cancelled=None)
            heard[file] = result.transcript.text
    finally:
        pool.stop(grace=0)
    return heard


def measure(workshop: packages.Workshop, scratch: Path, variant: str) -> Iterator[Heard]:
    """Yield what every network hears in every quantization; packages go into the folder `scratch`."""
    references = json.loads((packages.RECORDINGS / "refs.json").read_text(encoding="utf-8"))["recordings"]
    texts = {entry["file"]: entry["text"] for entry in references}
    clip = references[0]
    selftest = {
        "audio": str(packages.RECORDINGS / clip["file"]),
        "language": clip["language"],
        "text": clip["text"],
    }
    for model in MODELS:
        weights = scratch / f"{model}.bin"
        with lzma.open(packages.FIXTURES / f"ggml-fixture-{model}.bin.xz") as packed, weights.open("wb") as stream:
            shutil.copyfileobj(packed, stream)
        for quantization, audio_ctx in KINDS:
            dist = workshop.assemble(scratch / f"{quantization}-{audio_ctx}", model, weights, quantization, selftest)
            package = Package.find(dist, model)
            heard = transcripts(package, list(texts), variant, audio_ctx)
            words = jiwer.process_words(list(texts.values()), [heard[file] for file in texts])
            yield Heard(
                model,
                quantization,
                audio_ctx,
                package.model_file.name,
                package.model_file.stat().st_size / 1e6,
                words.hits + words.substitutions + words.deletions,
                words.substitutions + words.deletions + words.insertions,
                heard,
            )


def table(found: list[Heard]) -> str:
    """Return the figures as a Markdown table, each type beside f16."""
    lines = [
        "| weights | file | " + " | ".join(MODELS) + " | both | against f16 | other texts than f16's |",
        "|---" * (5 + len(MODELS)) + "|",
    ]
    plain = [heard for heard in found if heard.quantization == "f16"]
    for kind in KINDS:
        rows = [heard for heard in found if (heard.quantization, heard.audio_ctx) == kind]
        other = sum(
            text != exact.texts[file]
            for heard, exact in zip(rows, plain, strict=True)
            for file, text in heard.texts.items()
        )
        cells = [kind[0] if kind[1] == "full" else f"{kind[0]}, audio_ctx {kind[1]}", f"{rows[0].megabytes:.1f} MB"]
        cells += [f"{heard.rate:.1%} ({heard.errors} of {heard.said})" for heard in rows]
        cells += [f"{together(rows):.1%}", f"{100 * (together(rows) - together(plain)):+.1f} points"]
        cells += [f"{other} of {sum(len(heard.texts) for heard in rows)}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def caveat(found: list[Heard], variant: str) -> str:
    """Return what the table's figures are worth."""
    words = [heard.said for heard in found if heard.quantization == "f16"]
    return f"""\
Computed by the CPU library `{variant}`; others round differently. Each network hears the {words[0]} words of the same
recordings: one word is {100 / words[0]:.1f} points of its rate and {100 / sum(words):.1f} of both, and a difference of
a word or two may be chance.

The table can show that a type is read, computed and packed right, and how far rounding carries in networks of this
kind. It cannot show what a real model loses: these are 128 wide, far narrower than the smallest Whisper, which leaves
rounding less to average out over, and they know 89 synthetic words.
"""


def together(rows: list[Heard]) -> float:
    """Return the word error rate of several networks."""
    return sum(heard.errors for heard in rows) / sum(heard.said for heard in rows)


def main() -> None:
    """Command line."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=Path, metavar="DIR", help="context of a finished build, instead of a build")
    parser.add_argument(
        "--variant",
        default="baseline",
        help="CPU library (default: baseline, the same everywhere; auto: this host's best)",
    )
    output = packages.FOLDER / "wer"
    parser.add_argument("--output", type=Path, default=output, metavar="PATH", help="writes PATH.md and PATH.json")
    arguments = parser.parse_args()
    with packages.workshop(arguments.context) as workshop, tempfile.TemporaryDirectory(dir=packages.FOLDER) as folder:
        found = list(measure(workshop, Path(folder), arguments.variant))
    text = f"{table(found)}\n{caveat(found, arguments.variant)}"
    arguments.output.with_suffix(".md").write_text(f"{text}\n{origin()}\n", encoding="utf-8")
    rows = [{**asdict(heard), "rate": round(heard.rate, 4)} for heard in found]
    arguments.output.with_suffix(".json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(text, end="")
    print(f"wer.py took {duration(time.monotonic() - begun)}", file=sys.stderr)


if __name__ == "__main__":
    main()
