"""What the service is compared with: whisper-server of the same source without patches, and faster-whisper.

Made below .build/bench when they are first needed, and kept.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import packages
from service import HttpProcess, form

from whisper_package.package import Package

VENV = packages.FOLDER / "venv"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HERE = Path(__file__).resolve().parent
BUILDER_IMAGE = "whisper-xeon-bench-builder"
# As its CMakeLists.txt and the baseline of docker/builder/build.sh do it, against the libraries built there.
SERVER_SOURCES = (
    "examples/server/server.cpp examples/common.cpp examples/common-ggml.cpp examples/common-whisper.cpp "
    "examples/grammar-parser.cpp"
)
COMPILE_SERVER = (
    "cd /src && c++ -O3 -DNDEBUG -march=x86-64-v3 -std=c++17 -pthread -I include -I ggml/include -I examples "
    f"{SERVER_SOURCES} /built/libwhisper.so.1 /built/libggml.so.0 /built/libggml-base.so.0 /built/libggml-cpu.so.0 "
    "-Wl,-rpath,'$ORIGIN' -o /out/"
)


def python() -> Path:
    """Return the interpreter of the venv with the rivals in it."""
    stamp = VENV / ".made-from"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(VENV, clear=True, with_pip=True)
        pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", REQUIREMENTS], stdout=sys.stderr, check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return VENV / "bin" / "python"


def faster_whisper_model(model: str) -> Path:
    """Return the folder with the weights of `packages.true_size(model)` as faster-whisper takes them."""
    recipe = packages.weights_file(model).stem
    folder = packages.FOLDER / f"faster-whisper-{recipe}"
    if not folder.exists():
        for old in packages.FOLDER.glob(f"faster-whisper-weights-{model}-*"):
            shutil.rmtree(old)
        part = folder.with_suffix(".part")
        subprocess.run([python(), HERE / "faster_whisper_model.py", model, part], check=True)
        part.rename(folder)
    return folder


def whisper_server(package: Package, context: Path, variant: str) -> Path:
    """Return whisper-server in a folder with the libraries of an unpatched `package`, the CPU library `variant` first.

    `context` is the build context of that package.
    """
    folder = packages.FOLDER / "whisper-server" / variant
    program = folder.parent / f"whisper-server-{package.manifest['whisper_cpp']['source_sha256'][:8]}"
    if not program.exists():
        build = ["docker", "build", "--quiet", "--target=builder", f"--tag={BUILDER_IMAGE}", "."]
        subprocess.run(build, cwd=context, env=packages.ENVIRONMENT, stdout=sys.stderr, check=True)
        program.parent.mkdir(exist_ok=True)
        mount = f"--volume={program.parent}:/out"
        subprocess.run(
            ["docker", "run", "--rm", mount, BUILDER_IMAGE, "sh", "-ec", COMPILE_SERVER + program.name],
            env=packages.ENVIRONMENT,
            stdout=sys.stderr,
            check=True,
        )
        remove = ["docker", "image", "rm", BUILDER_IMAGE]
        subprocess.run(remove, env=packages.ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for library in ("libwhisper.so.1", "libggml.so.0", "libggml-base.so.0"):
        shutil.copy(package.path(library), folder)
    path = next(entry["path"] for entry in package.manifest["variants"] if entry["name"] == variant)
    shutil.copy(package.path(path), folder / "libggml-cpu.so.0")
    return Path(shutil.copy(program, folder / "whisper-server"))


class WhisperServer(HttpProcess):
    """whisper.cpp's own server; it transcribes one request at a time."""

    name = "whisper-server"
    talkative = True

    def __init__(self, program: Path, model_file: Path, threads: int):
        command = [program, "--model", model_file, "--host", "127.0.0.1", "--port", "PORT", "--threads", str(threads)]
        # One text for all: English, greedy, no text of the window before.
        super().__init__([*command, "--language", "en", "--best-of", "1", "--max-context", "0"])

    def text(self, audio: bytes) -> str:
        """Return what it hears."""
        body, content_type = form(audio, response_format="json")
        status, answer, _ = self.request("POST", "/inference", body, {"Content-Type": content_type})
        if status != 200:
            raise SystemExit(f"whisper-server answered {status}: {answer.decode(errors='replace')}")
        return json.loads(answer)["text"]


class FasterWhisper(HttpProcess):
    """faster-whisper behind Python's http.server."""

    name = "faster-whisper"

    def __init__(self, folder: Path, threads: int, workers: int = 1):
        command = [python(), HERE / "faster_whisper_run.py", "serve", folder, "--port", "PORT"]
        super().__init__([*command, "--threads", str(threads), "--workers", str(workers)])
        self.engines = workers

    def text(self, audio: bytes) -> str:
        """Return what it hears."""
        status, answer, _ = self.request("POST", "/", audio)
        if status != 200:
            raise SystemExit(f"faster-whisper answered {status}: {answer.decode(errors='replace')}")
        return json.loads(answer)["text"]
