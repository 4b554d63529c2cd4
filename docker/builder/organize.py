"""Lay out the packages in the builder's organizer stage and prove each one with its self-test.

Reads what build.sh wrote, the quantized models and build.json (written by role artifact_build); writes
`<output>/whisper_<model>_xeon/`. It knows no clock and no host name: the same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

from instructions import foreign_instructions
from origin import PROVENANCE_NAME, SBOM_NAME, encode, provenance, sbom
from whisper_package.alignment import alignment_heads
from whisper_package.digests import file_digest
from whisper_package.errors import ModelFileError, PackageError
from whisper_package.manifest import MANIFEST_NAME, SCHEMA_VERSION, encode_manifest
from whisper_package.model_file import HyperParameters, check_model_file
from whisper_package.models import package_directory, weights_file
from whisper_package.package import Package
from whisper_package.selftest import same_words
from whisper_package.vad_file import check_vad_file

LIBRARIES = ("libwhisper.so", "libwhisper.so.1", "libggml.so.0", "libggml-base.so.0", "libggml-cpu.so.0")
BLAS_LIBRARY = "libggml-blas.so.0"
PROGRAMS = ("whisper-cli",)
# What the host brings: glibc, the C++ runtime of every Debian, and libgomp1. Anything else would have to be shipped.
HOST_LIBRARIES = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "ld-linux-x86-64.so.2"}
SELFTEST_SECONDS = 900


class BuildError(Exception):
    """The inputs do not give a package; the message says what is wrong and what to do."""


def main() -> int:
    """Build every package that build.json names; exit status 1 with one line on a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="build.json")
    parser.add_argument("--built", type=Path, required=True, help="output directory of build.sh")
    parser.add_argument("--models", type=Path, required=True, help="directory of the quantized <model>.bin")
    parser.add_argument("--selftest", type=Path, required=True, help="directory of the <model>.wav clips")
    parser.add_argument("--vad", type=Path, required=True, help="the weights of the voice detection")
    parser.add_argument("--templates", type=Path, required=True, help="README.md, NOTICE and push_to_minio.sh")
    parser.add_argument("--output", type=Path, required=True, help="where the packages go")
    arguments = parser.parse_args()
    settings = json.loads(arguments.settings.read_text(encoding="utf-8"))
    try:
        check_instructions(arguments.built, _binaries(arguments.built))
        for model in settings["models"]:
            organize(model, settings, arguments)
    except (BuildError, PackageError) as error:
        print(f"organize: {error}", file=sys.stderr)
        return 1
    return 0


def organize(model: str, settings: dict[str, Any], inputs: argparse.Namespace) -> None:
    """Write and verify the package of one model. Raises `BuildError`."""
    package = package_directory(model)
    wanted = settings["models"][model]
    quantization = settings["quantization"]
    weights = weights_file(model, quantization)
    folder = inputs.output / package
    folder.mkdir(parents=True)
    variants = _variants(inputs.built)
    binaries = _binaries(inputs.built)
    openblas = ""
    if settings["blas"] == "openblas":
        openblas = (inputs.built / "openblas.txt").read_text(encoding="utf-8").strip()
        licence = (inputs.built / "openblas.LICENSE").read_text(encoding="utf-8").strip()
        _place(inputs.built / BLAS_LIBRARY, folder / BLAS_LIBRARY, executable=True)
    for name in binaries:
        _place(inputs.built / name, folder / name, executable=True)
    _place(inputs.models / f"{model}.bin", folder / weights)
    parameters = _checked_weights(folder / weights, model, quantization)
    _place(inputs.selftest / f"{model}.wav", folder / "selftest.wav")
    _check_clip(folder / "selftest.wav", model)
    vad = f"ggml-silero-v{settings['vad']['version']}.bin"
    _place(inputs.vad, folder / vad)
    check_vad_file(folder / vad)
    minimum = _minimum_versions(folder, [*binaries, BLAS_LIBRARY] if openblas else list(binaries))
    values = {
        "PACKAGE": package,
        "MODEL": model,
        "MODEL_FILE": weights,
        "QUANTIZATION": quantization,
        "WEIGHTS_NOTICE": wanted["notice"],
        "VAD_FILE": vad,
        "VAD_VERSION": settings["vad"]["version"],
        "WHISPER_CPP_VERSION": (inputs.built / "version.txt").read_text(encoding="utf-8").strip(),
        "WHISPER_CPP_LICENSE": (inputs.built / "LICENSE").read_text(encoding="utf-8").strip(),
        "GLIBC": minimum["glibc"],
        "GLIBCXX": minimum["glibcxx"],
        "CPU_FLAGS": " ".join(variants[-1]["cpu_flags"]),
        "VARIANTS": ", ".join(variant["name"] for variant in variants[:-1]),
        "OPENBLAS_NOTICE": f"OpenBLAS {openblas} (in {BLAS_LIBRARY})\n\n{licence}\n\n" if openblas else "",
        "OPENBLAS_ROW": f"| `{BLAS_LIBRARY}` | matrix products by OpenBLAS {openblas} |\n" if openblas else "",
    }
    for name in ("README.md", "NOTICE"):
        _write(folder / name, _filled((inputs.templates / name).read_text(encoding="utf-8"), values))
    _place(inputs.templates / "push_to_minio.sh", folder / "push_to_minio.sh", executable=True)
    text = _transcribe(folder, weights, wanted["selftest"]["language"])
    if not same_words(text, wanted["selftest"]["text"]):
        raise BuildError(
            f"self-test of {model} failed: whisper-cli heard {text!r}, expected were the words of "
            f"{wanted['selftest']['text']!r}. Either the model, its clip or the text in versions.yml "
            "(artifact_build_model_overrides) is not the one that belongs to the others."
        )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "package": package,
        "model": {
            "name": model,
            "file": weights,
            "quantization": quantization,
            "dimensions": parameters.dimensions,
            "source_sha256": wanted["source_sha256"],
            "alignment_heads": alignment_heads(model, parameters, wanted.get("alignment_heads", [])),
        },
        "vad": {
            "file": vad,
            "version": settings["vad"]["version"],
            "source_sha256": settings["vad"]["source_sha256"],
        },
        "whisper_cpp": {
            "version": values["WHISPER_CPP_VERSION"],
            "source_sha256": settings["whisper_cpp"]["source_sha256"],
            "patches": json.loads((inputs.built / "kernels.json").read_text(encoding="utf-8")),
        },
        "cmake_flags": (inputs.built / "cmake_flags.txt").read_text(encoding="utf-8").splitlines(),
        "variants": variants,
        "blas": settings["blas"],
        "minimum": minimum,
        "abi": json.loads((inputs.built / "abi.json").read_text(encoding="utf-8")),
        "selftest": {"audio": "selftest.wav", "text": text, "language": wanted["selftest"]["language"]},
        "files": [],
    }
    hooks = (inputs.built / "hooks.txt").read_text(encoding="utf-8").split()
    toolchain = json.loads((inputs.built / "toolchain.json").read_text(encoding="utf-8"))
    _write(folder / SBOM_NAME, encode(sbom(manifest, file_digest(folder / weights), hooks, openblas, toolchain)))
    manifest["files"] = _file_entries(folder)
    _write(folder / PROVENANCE_NAME, encode(provenance(manifest, toolchain, wanted.get("parts", []))))
    manifest["files"] = _file_entries(folder)
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    (folder / MANIFEST_NAME).chmod(0o644)
    Package(folder).verify()
    print(f"{package}: self-test heard {text!r}")


def _variants(built: Path) -> list[dict[str, Any]]:
    return json.loads((built / "variants.json").read_text(encoding="utf-8"))


def _binaries(built: Path) -> dict[str, list[str]]:
    """Return path -> CPU flags that it needs: the CPU libraries' own, and the baseline's for all others."""
    variants = _variants(built)
    baseline = dict.fromkeys(LIBRARIES + PROGRAMS, variants[-1]["cpu_flags"])
    return {**baseline, **{variant["path"]: variant["cpu_flags"] for variant in variants}}


def _place(source: Path, target: Path, executable: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if executable else 0o644)


def _write(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")
    target.chmod(0o644)


def _filled(template: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match.group(1)], template)


def _file_entries(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "sha256": file_digest(path),
            "executable": bool(path.stat().st_mode & 0o100),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _checked_weights(weights: Path, model: str, quantization: str) -> HyperParameters:
    """A file of another type than was asked for would make its name and the manifest say what is not so."""
    try:
        parameters = check_model_file(weights)
    except ModelFileError as error:
        raise BuildError(f"the weights of {model} cannot be used: {error}") from None
    if parameters.quantization != quantization:
        raise BuildError(
            f"the weights of {model} are {parameters.quantization}, and this build asks for {quantization}: give an "
            "f16 file, from which every type can be made"
        )
    return parameters


def _check_clip(clip: Path, model: str) -> None:
    """The service reads the self-test without ffmpeg, so the clip has to be 16 kHz mono 16-bit WAV."""
    try:
        with wave.open(str(clip), "rb") as audio:
            shape = (audio.getframerate(), audio.getnchannels(), audio.getsampwidth())
    except (wave.Error, EOFError) as error:
        raise BuildError(f"the self-test clip of {model} is not a WAV file ({error})") from None
    if shape != (16000, 1, 2):
        raise BuildError(
            f"the self-test clip of {model} has {shape[0]} Hz, {shape[1]} channel(s), {8 * shape[2]} bits: convert it "
            "with `ffmpeg -i CLIP -ar 16000 -ac 1 -c:a pcm_s16le selftest.wav`"
        )


def _minimum_versions(folder: Path, binaries: list[str]) -> dict[str, str]:
    """Return the newest glibc and GLIBCXX versions that the files ask for, after checking that they stand alone."""
    versions: dict[str, set[tuple[int, ...]]] = {"GLIBC": {(0,)}, "GLIBCXX": {(0,)}}
    for binary in binaries:
        output = subprocess.run(
            ["readelf", "--wide", "--dynamic", "--version-info", str(folder / binary)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
        needed = set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.+?)\]", output))
        foreign = needed - HOST_LIBRARIES - {*LIBRARIES, BLAS_LIBRARY}
        if foreign:
            raise BuildError(
                f"{binary} needs {', '.join(sorted(foreign))}, which neither the package nor a host has: "
                "remove the option in artifact_build_cmake_flags that asks for it"
            )
        top = "/".join(["$ORIGIN", *[".."] * binary.count("/")])
        if re.findall(r"\((?:RUNPATH|RPATH)\)\s+.*\[(.*)\]", output) != [top]:
            raise BuildError(f"{binary} does not look for its libraries in the package (RUNPATH is not {top})")
        needs = output.partition("Version needs section")[2]
        for name, version in re.findall(r"Name: (GLIBC|GLIBCXX)_([0-9.]+)", needs):
            versions[name].add(tuple(int(part) for part in version.split(".")))
    newest = {name: ".".join(map(str, max(found))) for name, found in versions.items()}
    return {"glibc": newest["GLIBC"], "glibcxx": newest["GLIBCXX"]}


def check_instructions(folder: Path, binaries: dict[str, list[str]]) -> None:
    """Refuse a binary with an instruction that its CPU flags do not promise: it would end with SIGILL on some host.

    OpenBLAS is no such binary: it has kernels for every processor and chooses among them when it is loaded.
    """
    for binary, cpu_flags in binaries.items():
        foreign = foreign_instructions(folder / binary, cpu_flags)
        if foreign:
            raise BuildError(
                f"{binary} has {len(foreign)} instructions that a processor with {' '.join(cpu_flags)} lacks, such as "
                f"{foreign[0]!r}: remove the option in artifact_build_cmake_flags that asks for them"
            )


def _transcribe(folder: Path, model_file: str, language: str) -> str:
    """Return what the package's own whisper-cli hears in its self-test clip, decoded as the service decodes."""
    command = [str(folder / "whisper-cli"), "--model", str(folder / model_file), "--file", str(folder / "selftest.wav")]
    command += ["--language", language, "--beam-size", "1", "--best-of", "1", "--no-timestamps", "--no-prints"]
    try:
        result = subprocess.run(command, capture_output=True, timeout=SELFTEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(f"the self-test of {folder.name} took more than {SELFTEST_SECONDS} s") from None
    if result.returncode != 0:
        reason = result.stderr.decode("utf-8", "replace").strip().splitlines()[-3:]
        status = result.returncode
        raise BuildError(f"whisper-cli of {folder.name} ended with status {status}: {' '.join(reason)}")
    return " ".join(result.stdout.decode("utf-8", "replace").split())


if __name__ == "__main__":
    sys.exit(main())
