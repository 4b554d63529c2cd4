"""Every type of weights that a build can choose: built, named, loaded and heard with."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest
import yaml

from bench_command import run_bench
from paths import RECORDINGS, ROOT
from playbook import run_build
from running_service import EXACT, running_service
from whisper_package.model_file import check_model_file
from whisper_package.models import QUANTIZATIONS
from whisper_package.package import Package

FIXTURE = ROOT / "tests" / "fixtures" / "models" / "ggml-fixture-small.bin.xz"
CLIP = "en-00.wav"
# Of 84 words. The networks are so narrow that rounding changes a word here and there, for better and for worse.
WORDS_OF_DIFFERENCE = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a build with `artifact_build_quantization: f16` left its dist and its context."""
    folder = tmp_path_factory.mktemp("f16")
    run_build(folder, artifact_build_quantization="f16")
    return folder


@pytest.fixture(scope="module")
def f16_package(folder) -> Package:
    return Package.find(folder / "dist", "small")


@pytest.fixture(scope="module", params=["baseline", "auto"])
def heard(request, build_context, tmp_path_factory) -> list[dict]:
    """What each type heard in a forked engine with a CPU library, as whisper_bench.wer reports it."""
    output = tmp_path_factory.mktemp("wer") / "wer"
    options = ["--context", build_context, "--output", output, "--variant", request.param]
    run_bench("whisper_bench.wer", *options)
    return json.loads(output.with_suffix(".json").read_text("utf-8"))


def test_f16_is_the_file_as_it_came(f16_package):
    assert f16_package.model_file.read_bytes() == lzma.decompress(FIXTURE.read_bytes())


def test_a_package_says_its_quantization_everywhere(f16_package):
    f16_package.verify()
    assert f16_package.quantization == check_model_file(f16_package.model_file).quantization == "f16"
    assert f16_package.model_file.name == "ggml-small-f16.bin"
    for file in ("README.md", "NOTICE"):
        text = f16_package.path(file).read_text("utf-8")
        assert ("f16" in text, "q5_1" in text) == (True, False)


def test_the_service_serves_what_the_manifest_names(f16_package):
    with running_service(f16_package.directory.parent) as service:
        assert service.get("/version").json["quantization"] == "f16"
        assert service.transcribe(CLIP).json["text"] == EXACT[CLIP]["text"]


def test_another_quantization_is_another_release(f16_package, small_package):
    assert f16_package.release_id != small_package.release_id


def test_every_type_is_built_and_named(heard):
    assert [row["file"] for row in heard if (row["model"], row["audio_ctx"]) == ("medium", "full")] == [
        f"ggml-medium-{quantization}.bin" for quantization in QUANTIZATIONS
    ]


def test_the_types_differ_in_size_as_their_bits_do(heard):
    sizes = {row["quantization"]: row["megabytes"] for row in heard if row["model"] == "small"}
    assert sorted(sizes, key=sizes.get) == ["q4_0", "q5_0", "q5_1", "q8_0", "f16"]


def test_the_default_hears_what_the_references_say(heard):
    references = json.loads((RECORDINGS / "refs.json").read_text("utf-8"))["recordings"]
    for row in heard:
        if (row["quantization"], row["audio_ctx"]) == ("q5_1", "full"):
            assert {file: row["texts"][file] for file in EXACT} == {file: EXACT[file]["text"] for file in EXACT}
            assert len(row["texts"]) == len(references)


def test_no_type_hears_much_worse_than_f16_and_nor_does_a_shorter_window(heard):
    plain = {row["model"]: row["errors"] for row in heard if row["quantization"] == "f16"}
    assert [row for row in heard if row["errors"] > plain[row["model"]] + WORDS_OF_DIFFERENCE] == []
    assert {row["audio_ctx"] for row in heard} == {"full", "auto"}


def test_eight_bits_hear_what_sixteen_hear(heard):
    texts = {(row["model"], row["quantization"]): row["texts"] for row in heard}
    assert texts["small", "q8_0"] == texts["small", "f16"]
    assert texts["medium", "q8_0"] == texts["medium", "f16"]


def test_an_unknown_quantization_is_refused_with_the_known_ones(tmp_path):
    result = run_build(tmp_path, check=False, artifact_build_quantization="q3_k")
    assert result.returncode != 0
    assert 'artifact_build_quantization is "q3_k"' in result.said
    assert f"choose one of {', '.join(QUANTIZATIONS)}" in result.said


def test_weights_that_are_quantized_already_are_not_passed_off_as_f16(folder, small_package, tmp_path):
    shutil.copytree(folder / "work" / "context", tmp_path / "work" / "context")
    selftest = {"audio": str(RECORDINGS / CLIP), "language": "en", "text": EXACT[CLIP]["text"]}
    override = {"small": {"path": str(small_package.model_file), "selftest": selftest}}
    result = run_build(
        tmp_path, check=False, artifact_build_quantization="f16", artifact_build_model_overrides=override
    )
    assert result.returncode != 0
    assert "the weights of small are q5_1, and this build asks for f16: give an f16 file" in result.said


def test_the_roles_choices_are_those_that_a_package_can_have():
    specs = yaml.safe_load((ROOT / "roles" / "artifact_build" / "meta" / "argument_specs.yml").read_text("utf-8"))
    option = specs["argument_specs"]["main"]["options"]["artifact_build_quantization"]
    assert (option["choices"], option["default"]) == (list(QUANTIZATIONS), QUANTIZATIONS[0])
