"""What a user of the builder can ask for: OpenBLAS inside a package, and whisper.cpp as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from organize import HOST_LIBRARIES
from playbook import run_build
from running_service import running_service
from whisper_package.package import Package
from whisper_package.selftest import same_words

BLAS = "libggml-blas.so.0"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Package:
    """`small` with OpenBLAS and without our kernels: what whisper.cpp has for this by itself."""
    folder = tmp_path_factory.mktemp("openblas")
    run_build(folder, artifact_build_blas="openblas", artifact_build_kernels=[])
    return Package.find(folder / "dist", "small")


def test_the_manifest_says_what_was_asked_for(package):
    assert package.manifest["blas"] == "openblas"
    assert package.manifest["whisper_cpp"]["patches"] == []


def test_kernels_that_are_not_wanted_are_no_input(package):
    kernels = package.directory.parents[1] / "work" / "context" / "kernels"
    assert list(kernels.iterdir()) == []


def test_openblas_is_inside_and_asks_for_nothing_more_of_a_host(package):
    environment = {**os.environ, "LC_ALL": "C"}
    command = ["readelf", "--wide", "--dynamic", package.path(BLAS)]
    dynamic = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    assert needed <= HOST_LIBRARIES | {"libggml-base.so.0"}
    assert package.manifest["minimum"] == {"glibc": "2.34", "glibcxx": "3.4.29"}


def test_its_functions_are_nobody_elses(package):
    symbols = subprocess.run(
        ["readelf", "--wide", "--dyn-syms", package.path(BLAS)], check=True, capture_output=True, text=True
    ).stdout
    exported = {line.split()[-1] for line in symbols.splitlines() if " UND " not in line and "FUNC" in line}
    assert "ggml_backend_blas_reg" in exported
    assert not any("gemm" in name for name in exported)


def test_the_service_loads_it_and_hears_what_it_should(package):
    with running_service(package.directory.parent, WHISPER_THREADS="2") as service:
        assert same_words(service.transcribe("en-09.wav").json["text"], "hello open juliet oscar")
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in service.engine_pids()]
    assert maps
    assert all(str(package.path(BLAS)) in each for each in maps)


def test_licence_bill_of_materials_and_readme_name_it(package):
    notice = package.path("NOTICE").read_text("utf-8")
    assert "OpenBLAS 0." in notice
    assert "Redistribution and use in source and binary forms" in notice
    components = json.loads(package.path("sbom.cdx.json").read_text("utf-8"))["components"]
    (openblas,) = [each for each in components if each["name"] == "OpenBLAS"]
    assert f"OpenBLAS {openblas['version']}" in notice
    assert f"| `{BLAS}` |" in package.path("README.md").read_text("utf-8")


def test_the_provenance_names_the_package_that_it_comes_from(package):
    statement = json.loads(package.path("provenance.json").read_text("utf-8"))
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert "libopenblas-openmp-dev" in {each["name"] for each in inputs}
