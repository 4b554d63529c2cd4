"""Who transcribes the corpus, each in a process of its own, and what each heard: kept by all that decides it.

A system's answer depends on its program, its weights and its options (`System.identity`) and on the recording.
`Transcripts` keeps answers by the digests of both, so that a change of one system leaves the others' alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whisper_bench.locations import APP_DIR, WORK_DIR
from whisper_bench.processes import Service, form
from whisper_bench.words.corpus import Clip
from whisper_bench.words.weights import Weights
from whisper_package.package import Package
from whisper_package.variants import choose_variant, cpu_flags
from whisper_xeon.languages import LANGUAGES

GREEDY, BEAMS = "greedy", "beam 5"
THREADS = 2
CLIP_SECONDS = 1800

Heard = dict[str, Any]  # text; language as a code; segments and words as [text, start, end] in seconds
Transcribe = Callable[[Clip, "str | None", bool], Heard]  # a clip, its language or None to detect it, word times


@dataclass(frozen=True)
class System:
    """One way to transcribe; `search` is how it looks for words, which decides whom it is compared with."""

    name: str
    search: str
    about: str
    identity: dict[str, Any]
    start: Callable[[], contextlib.AbstractContextManager[Transcribe]] = field(repr=False)


def openai_whisper(name: str, search: str, about: str, weights: Weights, **options: Any) -> System:
    """openai-whisper; `options` go to `transcribe()`."""
    return _library("openai-whisper", name, search, about, weights, weights.pt, options)


def faster_whisper(name: str, search: str, about: str, weights: Weights, **options: Any) -> System:
    """faster-whisper with int8 weights; `options` go to `transcribe()`."""
    return _library("faster-whisper", name, search, about, weights, weights.ct2, options)


def whisper_cli(name: str, search: str, about: str, package: Package, *options: str) -> System:
    """whisper.cpp's own program out of a package without kernels; `options` are its own."""

    @contextlib.contextmanager
    def start() -> Iterator[Transcribe]:
        with tempfile.TemporaryDirectory() as scratch:
            yield lambda clip, language, words: _run_cli(package, Path(scratch), options, clip, language)

    # What a package carries beside the program does not change what the program says.
    ran = {entry["path"]: entry["sha256"] for entry in package.files if _runs(entry["path"], package)}
    return System(name, search, about, {"files": ran, "options": options, **_variant(package)}, start)


def ours(name: str, search: str, about: str, package: Package, **settings: str) -> System:
    """This project's service, asked over HTTP; `settings` are its `WHISPER_*` variables."""
    identity = {"package": package.release_id, "settings": settings, "app": _app_digest(), **_variant(package)}

    @contextlib.contextmanager
    def start() -> Iterator[Transcribe]:
        with Service(package.directory.parent, package.model, WHISPER_THREADS=str(THREADS), **settings) as service:
            service.wait_ready()
            yield lambda clip, language, words: _ask(service, clip, language, words)

    return System(name, search, about, identity, start)


class Transcripts:
    """What systems heard, in a directory of one file for each system and recording."""

    def __init__(self, directory: Path = WORK_DIR / "words" / "heard"):
        self._directory = directory

    def of(
        self, system: System, clips: list[Clip], *, languages: bool = False, words: bool = False
    ) -> dict[str, Heard]:
        """Return what it heard in each clip, by file name; what is not kept yet is transcribed now.

        `languages` tells it each clip's language, `words` asks for word times too.
        """
        asked = {"identity": system.identity, "languages": languages, "words": words}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        directory = self._directory / f"{system.name.replace(' ', '-').replace(',', '')}-{key}"
        kept = {clip.file: directory / f"{clip.digest[:24]}.json" for clip in clips}
        missing = [clip for clip in clips if not kept[clip.file].exists()]
        if missing:
            directory.mkdir(parents=True, exist_ok=True)
            with system.start() as transcribe:
                for number, clip in enumerate(missing, 1):
                    print(f"\r{system.name}: {number} of {len(missing)}", end="", file=sys.stderr, flush=True)
                    heard = transcribe(clip, clip.language if languages else None, words)
                    part = kept[clip.file].with_suffix(".part")
                    part.write_text(json.dumps(heard, ensure_ascii=False), encoding="utf-8")
                    part.rename(kept[clip.file])
            print(file=sys.stderr)
        return {file: json.loads(path.read_text(encoding="utf-8")) for file, path in kept.items()}


def _library(
    engine: str, name: str, search: str, about: str, weights: Weights, path: Path, options: dict[str, Any]
) -> System:
    packages = {"openai-whisper": ("openai-whisper", "torch"), "faster-whisper": ("faster-whisper", "ctranslate2")}
    versions = {package: importlib.metadata.version(package) for package in packages[engine]}
    identity = {"versions": versions, "weights": weights.sha256, "options": options}
    command = [sys.executable, "-m", "whisper_bench.words.reference_worker", engine, path]
    command += ["--threads", THREADS, "--options", json.dumps(options)]

    @contextlib.contextmanager
    def start() -> Iterator[Transcribe]:
        with subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:

            def transcribe(clip: Clip, language: str | None, words: bool) -> Heard:
                request = {"path": str(clip.path), "language": language, "words": words}
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"bench: {name} ended on {clip.file} with status {process.wait()}")
                return json.loads(line)

            try:
                yield transcribe
            finally:
                process.stdin.close()

    return System(name, search, about, identity, start)


def _runs(path: str, package: Package) -> bool:
    return path in ("whisper-cli", package.model_file.name) or ".so" in path


def _run_cli(package: Package, scratch: Path, options: tuple[str, ...], clip: Clip, language: str | None) -> Heard:
    # It reads fewer formats than the others do.
    audio, output = scratch / "clip.wav", scratch / "heard"
    convert = ["ffmpeg", "-v", "error", "-y", "-i", clip.path, "-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", audio]
    subprocess.run(convert, check=True)
    command = [package.path("whisper-cli"), "--model", package.model_file, "--file", audio, "--no-prints"]
    command += ["--language", language or "auto", "--threads", THREADS, "--output-json", "--output-file", output]
    subprocess.run([*map(str, command), *options], check=True, capture_output=True, timeout=CLIP_SECONDS)
    heard = json.loads(output.with_suffix(".json").read_bytes().decode("utf-8", "replace"))
    segments = [
        [part["text"], part["offsets"]["from"] / 1000, part["offsets"]["to"] / 1000] for part in heard["transcription"]
    ]
    text = "".join(text for text, _, _ in segments)
    return {"text": text, "language": heard["result"]["language"], "segments": segments, "words": []}


def _ask(service: Service, clip: Clip, language: str | None, words: bool) -> Heard:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word" if words else "segment"}
    body, content_type = form(clip.path.read_bytes(), **fields, **({"language": language} if language else {}))
    status, answer, _ = service.request("POST", "/v1/audio/transcriptions", body, {"Content-Type": content_type})
    if status != 200:
        raise SystemExit(f"bench: the service answered {status} to {clip.file}: {answer.decode(errors='replace')}")
    heard = json.loads(answer)
    codes = {name: code for code, name in LANGUAGES.items()}
    return {
        "text": heard["text"],
        "language": codes.get(heard["language"], heard["language"]),
        "segments": [[s["text"], s["start"], s["end"]] for s in heard.get("segments", ())],
        "words": [[word["word"], word["start"], word["end"]] for word in heard.get("words", ())],
    }


def _variant(package: Package) -> dict[str, str]:
    return {"variant": choose_variant(package, cpu_flags()).name}


def _app_digest() -> str:
    """Return what stands for the code that runs in the service."""
    digest = hashlib.sha256()
    for path in sorted(APP_DIR.glob("whisper_[px]*/**/*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
