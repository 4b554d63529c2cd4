"""What this project is compared with: whisper-server of the same source without kernels, and faster-whisper.

Made in .build/bench when first needed, and kept.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

import yaml

from whisper_bench import builds
from whisper_bench.locations import BENCH_DIR, ROOT, WORK_DIR
from whisper_bench.processes import HttpProcess, form
from whisper_build.sources import Cache, default_cache
from whisper_package.package import Package

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


def python(requirements: str = "requirements.txt", name: str = "venv", unpacked: str = "") -> Path:
    """Return the interpreter of a venv in .build/bench, made again when its requirements (in bench/) have changed.

    `unpacked` names a package of versions.yml that has no wheel: its files are put there, and nothing of it is run.
    """
    directory = WORK_DIR / name
    stamp = directory / ".made-from"
    pin = yaml.safe_load((ROOT / "versions.yml").read_text(encoding="utf-8"))[unpacked]["pypi"] if unpacked else {}
    wanted = (BENCH_DIR / requirements).read_text(encoding="utf-8") + pin.get("sha256", "")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(directory, clear=True, with_pip=True)
        pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        checked = ["--require-hashes", "--only-binary", ":all:", "--requirement", BENCH_DIR / requirements]
        subprocess.run([*pip, *checked], stdout=sys.stderr, check=True)
        if pin:
            _unpack(pin, directory)
        stamp.write_text(wanted, encoding="utf-8")
    return directory / "bin" / "python"


def _unpack(pin: dict[str, str], directory: Path) -> None:
    """Put a package's modules, and what says which version it is, into a venv."""
    cache = Cache(default_cache(), lambda line: print(line, file=sys.stderr))
    archive = cache.source_distribution(pin["name"], pin["version"], pin["sha256"])
    (packages,) = directory.glob("lib/python3*/site-packages")
    with tempfile.TemporaryDirectory(dir=directory) as scratch, tarfile.open(archive) as files:
        files.extractall(scratch, filter="data")
        (described,) = Path(scratch).glob("*/*.egg-info")
        for name in (described.name, *(described / "top_level.txt").read_text(encoding="utf-8").split()):
            (described.parent / name).rename(packages / name)


def faster_whisper_model(model: str) -> Path:
    """Return the directory with the weights of `builds.true_size(model)` in faster-whisper's format."""
    weights = builds.weights_file(model)
    directory = WORK_DIR / f"faster-whisper-{weights.stem}"
    if not directory.exists():
        for old in WORK_DIR.glob(f"faster-whisper-weights-{model}-*"):
            shutil.rmtree(old)
        part = directory.with_suffix(".part")
        subprocess.run([python(), "-m", "whisper_bench.faster_whisper_model", model, part], check=True)
        part.rename(directory)
    return directory


def whisper_server(package: Package, context: Path, variant: str) -> Path:
    """Return whisper-server beside the libraries of a `package` without kernels and its CPU library `variant`.

    `context` is the build context of that package.
    """
    directory = WORK_DIR / "whisper-server" / variant
    program = directory.parent / f"whisper-server-{package.manifest['whisper_cpp']['source_sha256'][:8]}"
    if not program.exists():
        build = ["docker", "build", "--quiet", "--target=builder", f"--tag={BUILDER_IMAGE}", "."]
        subprocess.run(build, cwd=context, env=builds.ENVIRONMENT, stdout=sys.stderr, check=True)
        program.parent.mkdir(exist_ok=True)
        mount = f"--volume={program.parent}:/out"
        subprocess.run(
            ["docker", "run", "--rm", mount, BUILDER_IMAGE, "sh", "-ec", COMPILE_SERVER + program.name],
            env=builds.ENVIRONMENT,
            stdout=sys.stderr,
            check=True,
        )
        remove = ["docker", "image", "rm", BUILDER_IMAGE]
        subprocess.run(remove, env=builds.ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for library in ("libwhisper.so.1", "libggml.so.0", "libggml-base.so.0"):
        shutil.copy(package.path(library), directory)
    path = next(entry["path"] for entry in package.manifest["variants"] if entry["name"] == variant)
    shutil.copy(package.path(path), directory / "libggml-cpu.so.0")
    return Path(shutil.copy(program, directory / "whisper-server"))


class WhisperServer(HttpProcess):
    """whisper.cpp's own server; it transcribes one request at a time."""

    name = "whisper-server"
    verbose = True

    def __init__(self, program: Path, model_file: Path, threads: int):
        command = [program, "--model", model_file, "--host", "127.0.0.1", "--port", "PORT", "--threads", str(threads)]
        # As the other systems: English, greedy, no text of the previous window.
        super().__init__([*command, "--language", "en", "--best-of", "1", "--max-context", "0"])

    def _transcribe_english(self, audio: bytes) -> tuple[int, bytes]:
        body, content_type = form(audio, response_format="json")
        return self.request("POST", "/inference", body, {"Content-Type": content_type})[:2]


class FasterWhisper(HttpProcess):
    """faster-whisper behind Python's http.server."""

    name = "faster-whisper"

    def __init__(self, directory: Path, threads: int, workers: int = 1):
        command = [python(), "-m", "whisper_bench.faster_whisper_run", "serve", directory, "--port", "PORT"]
        super().__init__(
            [*command, "--threads", str(threads), "--workers", str(workers)], {"PYTHONPATH": str(BENCH_DIR)}
        )
        self.engines = workers

    def _transcribe_english(self, audio: bytes) -> tuple[int, bytes]:
        return self.request("POST", "/", audio)[:2]
