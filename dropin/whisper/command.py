"""The command `whisper`: openai-whisper's command line.

Exit status: 0 when every file has its transcripts, 1 when a file was skipped or the model cannot be loaded, 2 for wrong
usage. Ctrl-C ends it at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper.options import APPENDED, PREPENDED, Refused, plan
from whisper.utils import FORMATS, get_writer, optional_float, optional_int, str2bool

_SUBTITLES = ("highlight_words", "max_line_count", "max_line_width", "max_words_per_line")
_LARGEST_TEMPERATURE = 1.0


def cli() -> None:
    """Run the command and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # also while libwhisper computes
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    from whisper.model import available_models, check_device, load_model

    parser = _parser()
    given = vars(parser.parse_args(arguments))
    files, name, model_dir, device, output_dir, output_format, threads = (
        given.pop(key) for key in ("audio", "model", "model_dir", "device", "output_dir", "output_format", "threads")
    )
    subtitles = {key: given.pop(key) for key in _SUBTITLES}
    verbose = given.pop("verbose")
    _check_subtitles(parser, subtitles, given["word_timestamps"])
    if name.endswith(".en") and name in available_models():
        if given["language"] not in (None, "en", "English", "english"):
            _warn(f"{name} is an English-only model: English is used in place of {given['language']}")
        given["language"] = "en"
    try:
        given["temperature"] = _temperatures(given["temperature"], given.pop("temperature_increment_on_fallback"))
        plan(**given)  # before a model is loaded for it
        check_device(device)
    except Refused as error:
        parser.error(f"argument --{error.name}: {error.reason}")
    except ValueError as error:
        parser.error(f"argument --{error}")
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        model = load_model(name, download_root=model_dir, threads=max(0, threads or 0) or None)
    except (OSError, RuntimeError) as error:
        return _complain(error)
    write = get_writer(output_format, output_dir)
    skipped = 0
    for file in files:
        try:
            write(model.transcribe(file, verbose=verbose, **given), file, **subtitles)
        except (OSError, RuntimeError) as error:
            skipped += 1
            _complain(f"Skipping {file} due to {type(error).__name__}: {error}")
    return 1 if skipped else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="whisper",
        description="openai-whisper's command, on whisper-xeon.",
        epilog="Packages of models are looked for below $WHISPER_ARTIFACTS_DIR.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("audio", nargs="+", help="recordings to transcribe")
    add("--model", default="turbo", help="name of a model, or path of a package")
    add("--model_dir", metavar="DIR", help="where .pt files are looked for; ~/.cache/whisper by default")
    add("--device", default="auto", help="auto, cpu or cuda: any computes on the CPU")
    add("--output_dir", "-o", default=".", metavar="DIR", help="where transcripts go")
    add("--output_format", "-f", default="all", choices=(*FORMATS, "all"), help="which files to write")
    add("--verbose", type=str2bool, default=True, metavar="BOOL", help="print segments; False: the progress")
    add("--task", default="transcribe", choices=("transcribe", "translate"), help="translate: into English")
    add("--language", help="by name, code or locale; None: detect it")
    add("--temperature", type=float, default=0, help="at which to decode first")
    add("--best_of", type=optional_int, default=5, metavar="N", help="samples of a window above temperature 0")
    add("--beam_size", type=optional_int, default=5, metavar="N", help="beams at temperature 0")
    add("--patience", type=optional_float, help="of the beam search (arXiv:2204.05424); None is 1.0")
    add("--length_penalty", type=optional_float, help="alpha (arXiv:1609.08144); None: mean log probability")
    add("--suppress_tokens", default="-1", metavar="IDS", help="ids never to choose; -1: all that are no speech")
    add("--initial_prompt", metavar="TEXT", help="words to expect, shown before the first window")
    add("--carry_initial_prompt", type=str2bool, default=False, metavar="BOOL", help="shown before every window")
    add(
        "--condition_on_previous_text",
        type=str2bool,
        default=True,
        metavar="BOOL",
        help="show each window the text before it",
    )
    add("--fp16", type=str2bool, default=True, metavar="BOOL", help="has no effect on a CPU")
    add(
        "--temperature_increment_on_fallback",
        type=optional_float,
        default=0.2,
        metavar="STEP",
        help="by which each further try of a window is warmer; None: no further try",
    )
    add(
        "--compression_ratio_threshold",
        type=optional_float,
        default=2.4,
        metavar="RATIO",
        help="text that gzip compresses better is decoded again",
    )
    add(
        "--logprob_threshold",
        type=optional_float,
        default=-1.0,
        metavar="LOGPROB",
        help="text that is less probable is decoded again",
    )
    add(
        "--no_speech_threshold",
        type=optional_float,
        default=0.6,
        metavar="P",
        help="a window that is more probably silence, and below --logprob_threshold, is silence",
    )
    add("--word_timestamps", type=str2bool, default=False, metavar="BOOL", help="tell the time of each word")
    add("--prepend_punctuations", default=PREPENDED, metavar="SIGNS", help="the default only")
    add("--append_punctuations", default=APPENDED, metavar="SIGNS", help="the default only")
    words = "(with --word_timestamps True)"
    add("--highlight_words", type=str2bool, default=False, metavar="BOOL", help=f"{words} underline each in srt, vtt")
    add("--max_line_width", type=optional_int, metavar="N", help=f"{words} characters in a line of srt, vtt")
    add("--max_line_count", type=optional_int, metavar="N", help=f"{words} lines, with --max_line_width")
    add("--max_words_per_line", type=optional_int, metavar="N", help=f"{words} words, without --max_line_width")
    add("--threads", type=optional_int, default=0, metavar="N", help="that compute; 0: all cores, up to 8")
    add("--clip_timestamps", default="0", metavar="SECONDS", help="start,end,start,end,… of the parts to transcribe")
    add("--hallucination_silence_threshold", type=optional_float, metavar="SECONDS", help="None only")
    return parser


def _check_subtitles(parser: argparse.ArgumentParser, subtitles: dict[str, Any], words: bool) -> None:
    for name, value in subtitles.items():
        if value and not words:
            parser.error(f"--{name} requires --word_timestamps True")
    if subtitles["max_line_count"] and not subtitles["max_line_width"]:
        _warn("--max_line_count has no effect without --max_line_width")
    if subtitles["max_words_per_line"] and subtitles["max_line_width"]:
        _warn("--max_words_per_line has no effect with --max_line_width")


def _temperatures(first: float, step: float | None) -> tuple[float, ...]:
    if step is None:
        return (first,)
    if step <= 0:
        raise Refused("temperature_increment_on_fallback", "use a number above 0, or None for no further try")
    tries: list[float] = []
    while first + len(tries) * step <= _LARGEST_TEMPERATURE + 1e-6:
        tries.append(first + len(tries) * step)
    return tuple(tries)


def _warn(line: str) -> None:
    print(f"whisper: warning: {line}", file=sys.stderr)


def _complain(problem: object) -> int:
    print(f"whisper: {' '.join(str(problem).split())}", file=sys.stderr, flush=True)
    return 1
