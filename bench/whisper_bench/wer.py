"""What quantizing costs in words: the word error rate of the fixtures with every type of weights, beside f16's.

The default type also with `WHISPER_AUDIO_CTX=auto`, where the encoder sees less than 30 s of a short clip.

Both networks transcribe the recordings of tests/fixtures, detecting the language, through the engines of the service.
Below the table, here and in RESULTS.md, is what this can show and what it cannot.
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

from whisper_bench import builds
from whisper_bench.locations import FIXTURE_MODELS, RECORDINGS, WORK_DIR
from whisper_bench.provenance import duration, origin
from whisper_package.models import QUANTIZATIONS
from whisper_package.package import Package
from whisper_xeon.audio.decode import decode
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.transcript import DecodeOptions

MODELS = ("small", "medium")
RECORDING_SECONDS = 120  # for each; it takes longer only if something hangs
# Type of the weights, audio_ctx.
KINDS = [*((name, "full") for name in QUANTIZATIONS), (QUANTIZATIONS[0], "auto")]


@dataclass
class Measured:
    """What one network made of all recordings in one quantization."""

    model: str
    quantization: str
    audio_ctx: str  # full or auto
    file: str  # of the weights
    megabytes: float  # of that file, 10^6 bytes
    words: int  # of the references
    errors: int  # words inserted, deleted or substituted
    texts: dict[str, str]  # transcripts by the recording's file

    @property
    def rate(self) -> float:
        """The word error rate, 0 if there is no error."""
        return self.errors / self.words


def transcripts(package: Package, files: list[str], variant: str, audio_ctx: str) -> dict[str, str]:
    """Return a package's transcript of each recording, by its file name; computed as in the service."""
    texts = {}
    options = {"threads": available_cores(), "cpu_variant": variant, "audio_ctx": audio_ctx}
    pool = EnginePool(package, engines=1, queue=1, **options)
    pool.start()
    try:
        for file in files:
            with open(RECORDINGS / file, "rb") as stream, decode(stream.fileno(), max_seconds=600) as audio:
                deadline = time.monotonic() + RECORDING_SECONDS
                result = pool.transcribe(audio, DecodeOptions(), deadline=deadline, cancelled=None)
            texts[file] = result.transcript.text
    finally:
        pool.stop(grace=0)
    return texts


def measure(workshop: builds.Workshop, scratch: Path, variant: str) -> Iterator[Measured]:
    """Yield the figures of every network in every quantization; packages go into the directory `scratch`."""
    recordings = json.loads((RECORDINGS / "refs.json").read_text(encoding="utf-8"))["recordings"]
    references = {entry["file"]: entry["text"] for entry in recordings}
    clip = recordings[0]
    selftest = {"audio": str(RECORDINGS / clip["file"]), "language": clip["language"], "text": clip["text"]}
    weights = {model: scratch / f"{model}.bin" for model in MODELS}
    for model, file in weights.items():
        with lzma.open(FIXTURE_MODELS / f"ggml-fixture-{model}.bin.xz") as packed, file.open("wb") as stream:
            shutil.copyfileobj(packed, stream)
    for quantization in QUANTIZATIONS:
        workshop.assemble(scratch / quantization, weights, quantization, selftest)
    for quantization, audio_ctx in KINDS:
        for model in MODELS:
            package = Package.find(scratch / quantization, model)
            texts = transcripts(package, list(references), variant, audio_ctx)
            compared = jiwer.process_words(list(references.values()), [texts[file] for file in references])
            yield Measured(
                model,
                quantization,
                audio_ctx,
                package.model_file.name,
                package.model_file.stat().st_size / 1e6,
                compared.hits + compared.substitutions + compared.deletions,
                compared.substitutions + compared.deletions + compared.insertions,
                texts,
            )


def table(found: list[Measured]) -> str:
    """Return the figures as a Markdown table, each type beside f16."""
    lines = [
        "| weights | file | " + " | ".join(MODELS) + " | both | against f16 | texts other than f16's |",
        "|---" * (5 + len(MODELS)) + "|",
    ]
    plain = [measured for measured in found if measured.quantization == "f16"]
    for kind in KINDS:
        rows = [measured for measured in found if (measured.quantization, measured.audio_ctx) == kind]
        other = sum(
            text != exact.texts[file]
            for measured, exact in zip(rows, plain, strict=True)
            for file, text in measured.texts.items()
        )
        cells = [kind[0] if kind[1] == "full" else f"{kind[0]}, audio_ctx {kind[1]}", f"{rows[0].megabytes:.1f} MB"]
        cells += [f"{measured.rate:.1%} ({measured.errors} of {measured.words})" for measured in rows]
        cells += [f"{overall(rows):.1%}", f"{100 * (overall(rows) - overall(plain)):+.1f} points"]
        cells += [f"{other} of {sum(len(measured.texts) for measured in rows)}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def caveat(found: list[Measured], variant: str) -> str:
    """Return what the table's figures are worth."""
    words = [measured.words for measured in found if measured.quantization == "f16"]
    return f"""\
Computed by the CPU library `{variant}`; others round differently. Each network transcribes the {words[0]} words of the
same recordings: one word is {100 / words[0]:.1f} points of its rate and {100 / sum(words):.1f} of both; a difference of
one or two words may be chance.

The table can show that a type is read, computed and packed correctly, and how far rounding carries in networks of this
kind. It cannot show how much a real model loses: these are 128 wide, far narrower than the smallest Whisper, so that
rounding errors average out less, and they know 89 synthetic words.
"""


def overall(rows: list[Measured]) -> float:
    """Return the word error rate of several networks together."""
    return sum(measured.errors for measured in rows) / sum(measured.words for measured in rows)


def main() -> None:
    """Command line."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--context", type=Path, metavar="DIR", help="build context of a finished build, instead of a build"
    )
    parser.add_argument(
        "--variant",
        default="baseline",
        help="CPU library; auto: the best for this processor (default: baseline, the same everywhere)",
    )
    output = WORK_DIR / "wer"
    parser.add_argument("--output", type=Path, default=output, metavar="PATH", help="write PATH.md and PATH.json")
    arguments = parser.parse_args()
    with builds.workshop(arguments.context) as workshop, tempfile.TemporaryDirectory(dir=WORK_DIR) as directory:
        found = list(measure(workshop, Path(directory), arguments.variant))
    text = f"{table(found)}\n{caveat(found, arguments.variant)}"
    arguments.output.with_suffix(".md").write_text(f"{text}\n{origin()}\n", encoding="utf-8")
    rows = [{**asdict(measured), "rate": round(measured.rate, 4)} for measured in found]
    arguments.output.with_suffix(".json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(text, end="")
    print(f"measuring the word error rates took {duration(time.monotonic() - begun)}", file=sys.stderr)


if __name__ == "__main__":
    main()
