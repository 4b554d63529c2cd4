"""`whisper-xeon transcribe FILES|DIRECTORIES…`

Exit status: 0 when every file has its transcripts; 1 when some files failed; 2 for a command that cannot be carried
out; 3 when there is no model or no service to transcribe with; 130 after Ctrl-C. The same command goes on where an
earlier one ended.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Union

import whisper_xeon
from whisper_command.errors import CannotTranscribe, FileFailed, UsageError
from whisper_command.local import LocalModel
from whisper_command.progress import Progress
from whisper_command.remote import Service
from whisper_command.work import SUFFIXES, Task, tasks
from whisper_package.small_files import text_of
from whisper_xeon import logs
from whisper_xeon.formats import Shape, render
from whisper_xeon.languages import find_language
from whisper_xeon.settings import Settings, SettingsError, load_settings
from whisper_xeon.transcript import DecodeOptions, Transcript

_FAILED, _USAGE, _NO_TRANSCRIBER, _INTERRUPTED = 1, 2, 3, 130
_JOBS = 4
_RENDERED = {"txt": "text", "json": "verbose_json"}  # where the API has another name

Transcriber = Union[LocalModel, Service]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parse(arguments)
    try:
        todo = tasks(options.paths, options.format or ["txt"], options.output_dir)
        waiting = [task for task in todo if options.overwrite or not task.done]
        progress = Progress(len(waiting), sum(task.size for task in waiting), quiet=options.quiet)
        if len(waiting) < len(todo):
            progress.say(f"{len(todo) - len(waiting)} of {len(todo)} files are done already")
        if not waiting:
            return 0
        with _transcriber(options) as transcriber:
            progress.say(f"transcribing {len(waiting)} files with {transcriber.name}")
            try:
                failed = _run(transcriber, waiting, progress, options.words)
            finally:
                progress.end()
    except (UsageError, SettingsError) as error:
        return _complain(error, _USAGE)
    except CannotTranscribe as error:
        return _complain(error, _NO_TRANSCRIBER)
    if failed:
        return _complain(f"{failed} of {len(waiting)} files failed; the same command tries them again", _FAILED)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="whisper-xeon", description="Speech to text for many files.", epilog="Exit status: see transcribe --help."
    )
    parser.add_argument("--version", action="version", version=f"whisper-xeon {whisper_xeon.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    transcribe = commands.add_parser(
        "transcribe",
        help="write the transcripts of recordings beside them",
        description="Write the transcripts of recordings, those in directories included. Files that have theirs are "
        "left out, so the same command goes on after a break.",
        epilog="Exit status: 0 all files have their transcripts, 1 some failed, 2 wrong usage, 3 no model or no "
        "service, 130 interrupted. Without --server the service's WHISPER_* settings count.",
    )
    add = transcribe.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="a recording, or a directory of them")
    add(
        "--server",
        default=os.environ.get("WHISPER_XEON_SERVER", ""),
        metavar="URL",
        help="send them to this service instead of loading a model (default: $WHISPER_XEON_SERVER)",
    )
    add(
        "--key-file",
        type=Path,
        default=os.environ.get("WHISPER_XEON_KEY_FILE") or None,
        metavar="FILE",
        help="file with the service's API key (default: $WHISPER_XEON_KEY_FILE)",
    )
    add("--model", metavar="NAME", help="model to load (default: $WHISPER_MODEL_SIZE, else small)")
    add("--artifacts-dir", metavar="DIR", help="where its package is (default: $WHISPER_ARTIFACTS_DIR)")
    add("--format", action="append", choices=SUFFIXES, help="may be given repeatedly (default: txt)")
    add("--output-dir", type=Path, metavar="DIR", help="where they go (default: beside the recordings)")
    add("--language", metavar="LANGUAGE", help="by name or code (default: detect it)")
    add("--task", choices=("transcribe", "translate"), default="transcribe", help="translate: to English")
    add("--words", action="store_true", help="json has the time of each word")
    add("--diarize", choices=("channel",), default="", help="channel: say on which side of a stereo file each speaks")
    add("--jobs", type=_jobs, metavar="N", help=f"files at the same time (default: {_JOBS} with --server)")
    add("--overwrite", action="store_true", help="also those that have their transcripts")
    add("--quiet", action="store_true", help="say only what goes wrong")
    return parser.parse_args(arguments)


def _jobs(text: str) -> int:
    jobs = int(text)
    if not 1 <= jobs <= 64:
        raise argparse.ArgumentTypeError("use 1 to 64")
    return jobs


def _transcriber(options: argparse.Namespace) -> Transcriber:
    logs.configure("critical")  # the one line that says what is wrong is printed here
    asked = {"task": options.task, "word_timestamps": options.words, "diarize": options.diarize}
    if options.language:
        code = find_language(options.language)
        if code is None:
            raise UsageError(
                f"--language: Whisper knows no language {options.language!r}; use a name or code, such as de"
            )
        asked["language"] = code
    if options.server:
        for name in ("model", "artifacts_dir"):
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')} is for a model of one's own, not for --server")
        return Service(options.server, _key(options.key_file), DecodeOptions(**asked), options.jobs or _JOBS)
    settings = _settings(options)
    return LocalModel(settings, dataclasses.replace(settings.decode_options(), **asked))


def _settings(options: argparse.Namespace) -> Settings:
    given = {
        "WHISPER_MODEL_SIZE": options.model,
        "WHISPER_ARTIFACTS_DIR": options.artifacts_dir,
        "WHISPER_ENGINES": options.jobs and str(options.jobs),
    }
    return load_settings({**os.environ, **{name: value for name, value in given.items() if value}})[0]


def _key(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        key = text_of(path)
    except OSError as error:
        raise UsageError(f"--key-file: {path} cannot be read: {error.strerror}") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"--key-file: {path} must have the key and nothing else")
    return key


def _run(transcriber: Transcriber, waiting: Iterable[Task], progress: Progress, words: bool) -> int:
    """Transcribe the files, several at a time; return how many failed."""
    failed = 0
    # Not as a context manager, which would wait for answers that nobody wants after Ctrl-C.
    threads = concurrent.futures.ThreadPoolExecutor(transcriber.jobs)
    running = {threads.submit(_transcribe, transcriber, task, words): task for task in waiting}
    try:
        for future in concurrent.futures.as_completed(running):
            task = running[future]
            try:
                future.result()
            except FileFailed as error:
                failed += 1
                progress.finished(str(task.source), task.size, str(error))
            else:
                progress.finished(str(task.source), task.size)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    return failed


def _transcribe(transcriber: Transcriber, task: Task, words: bool) -> None:
    transcript: Transcript = transcriber.transcribe(task.source)
    shape = Shape(segments=True, words=words)
    try:
        task.write({name: render(transcript, _RENDERED.get(name, name), shape)[0] for name in task.targets})
    except OSError as error:
        raise FileFailed(f"{error.filename or 'its transcript'} cannot be written: {error.strerror}") from None


def _complain(error: object, status: int) -> int:
    print(f"whisper-xeon: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def run() -> None:
    """Run the command and end the process."""
    try:
        status = main()
    except KeyboardInterrupt:
        print("\nwhisper-xeon: interrupted; the same command goes on", file=sys.stderr)
        status = _INTERRUPTED
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that still wait for an answer would be waited for.
    os._exit(status)


if __name__ == "__main__":
    run()
