"""The package reader: what it accepts, and what it says about everything else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paths import APP
from sealed_packages import hollow_package, rewrite
from whisper_package.digests import file_digest
from whisper_package.errors import OldLayoutError, PackageError
from whisper_package.manifest import MANIFEST_NAME, memory_mb, parse_manifest, release_id
from whisper_package.models import MODEL_CONFIGS
from whisper_package.package import Package


@pytest.fixture
def package(tmp_path) -> Package:
    """A package that a test may spoil."""
    return hollow_package(tmp_path)


@pytest.fixture
def folder(package):
    """Its folder."""
    return package.directory


def test_a_package_as_it_was_sealed_verifies(package):
    package.verify()


def test_the_release_id_is_the_digest_of_the_manifests_content(package):
    assert package.release_id == release_id(package.manifest)


def test_a_package_is_found_by_its_models_name(package, tmp_path):
    hollow_package(tmp_path, "medium")
    assert Package.find(tmp_path, "medium").name == "whisper_medium_xeon"


def test_a_package_is_found_by_every_name_that_means_its_model(tmp_path):
    hollow_package(tmp_path, "large-v3-turbo")
    hollow_package(tmp_path, "support-calls-de")
    for name in ("turbo", "Large-V3-Turbo", "TURBO"):
        assert Package.find(tmp_path, name).model == "large-v3-turbo"
    assert Package.find(tmp_path, "Support-Calls-DE").name == "whisper_support-calls-de_xeon"


def test_a_model_that_is_not_there_is_answered_with_those_that_are_and_the_closest(tmp_path):
    hollow_package(tmp_path, "support-calls-de")
    hollow_package(tmp_path, "small")
    expected = "does not exist; the packages there are of small, support-calls-de (did you mean support-calls-de?)"
    with pytest.raises(PackageError, match=re.escape(expected)):
        Package.find(tmp_path, "suport-calls-de")


def test_a_typo_of_a_released_model_is_told_where_there_is_no_package(tmp_path):
    with pytest.raises(PackageError, match=r"whisper_meduim_xeon does not exist \(did you mean medium\?\): name the"):
        Package.find(tmp_path, "meduim")


def test_bigger_weights_than_the_default_take_more_memory(package):
    weights = {"path": package.model_file.name, "size": 488_000_000}
    f16 = {**package.manifest, "files": [weights]}
    assert memory_mb(f16) == MODEL_CONFIGS["small"]["ram_mb"] + 488 - MODEL_CONFIGS["small"]["size_mb"]


def test_smaller_weights_than_the_default_are_not_reckoned_with(package):
    assert memory_mb(package.manifest) == MODEL_CONFIGS["small"]["ram_mb"]


def test_the_memory_of_a_model_of_ones_own_follows_from_its_dimensions(tmp_path):
    own = hollow_package(tmp_path, "support-calls-de").manifest
    assert memory_mb(own) == MODEL_CONFIGS["small"]["ram_mb"]
    distilled = {"width": 1280, "encoder_layers": 32, "decoder_layers": 2}
    assert memory_mb({**own, "model": {**own["model"], "dimensions": distilled}}) == 1000


def test_the_memory_follows_from_dimensions_and_not_from_a_name(package):
    model = {**package.manifest["model"], "dimensions": {"width": 1024, "encoder_layers": 24, "decoder_layers": 24}}
    assert memory_mb({**package.manifest, "model": model}) == MODEL_CONFIGS["medium"]["ram_mb"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "../small"}, "'../small' is not a model's name"),
        ({"name": "Small"}, "names its model 'Small' instead of small"),
        ({"name": "turbo"}, "names its model 'turbo' instead of large-v3-turbo"),
        ({"name": "latest"}, "'latest' is reserved"),
        ({"name": "calls"}, "names its package 'whisper_small_xeon' instead of whisper_calls_xeon"),
        ({"dimensions": {"width": 768}}, "no valid 'model.dimensions'"),
        ({"dimensions": {"width": "768", "encoder_layers": 12, "decoder_layers": 12}}, "no valid 'model.dimensions'"),
    ],
)
def test_a_manifest_that_names_no_model_rightly_is_rejected(folder, model, message):
    rewrite(folder, lambda manifest: manifest["model"].update(model))
    with pytest.raises(PackageError, match=message):
        Package(folder)


def test_a_model_of_ones_own_needs_its_dimensions(tmp_path):
    own = hollow_package(tmp_path, "support-calls-de").directory
    rewrite(own, lambda manifest: manifest["model"].pop("dimensions"))
    with pytest.raises(PackageError, match=r"no valid 'model\.dimensions'"):
        Package(own)


def test_the_configurations_have_the_specified_keys():
    assert {key for config in MODEL_CONFIGS.values() for key in config} == {"dir", "model", "size_mb", "ram_mb"}


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(PackageError, match="whisper_small_xeon does not exist: name the directory"):
        Package.find(tmp_path, "small")


def test_a_folder_without_manifest_is_said(tmp_path):
    (tmp_path / "whisper_small_xeon").mkdir()
    with pytest.raises(PackageError, match=r"has no manifest\.json"):
        Package.find(tmp_path, "small")


@pytest.fixture
def old_layout(folder) -> Path:
    """Its folder, with the libraries and the weights alone: nothing says what they are."""
    for path in folder.rglob("*"):
        if path.is_file() and not re.search(r"^ggml-|\.so", path.name):
            path.unlink()
    return folder


def test_a_package_in_the_old_layout_is_told_the_command_that_adopts_it(old_layout, tmp_path):
    with pytest.raises(OldLayoutError, match=rf"python -m whisper_store adopt {old_layout}` makes a release of it"):
        Package.find(tmp_path, "small")


def test_a_package_of_ours_that_lost_its_manifest_is_not_taken_for_the_old_layout(package, tmp_path):
    package.path(MANIFEST_NAME).unlink()
    with pytest.raises(PackageError, match=r"has no manifest\.json") as raised:
        Package.find(tmp_path, "small")
    assert not isinstance(raised.value, OldLayoutError)


def test_the_service_ends_with_3_for_the_old_layout(old_layout, tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(APP), "WHISPER_ARTIFACTS_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "whisper_xeon"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 3
    assert "is a package in the old layout" in result.stderr.splitlines()[-1]


def test_a_package_in_another_models_folder_is_refused(folder, tmp_path):
    folder.rename(tmp_path / "whisper_medium_xeon")
    with pytest.raises(PackageError, match="contains model 'small', not 'medium'"):
        Package.find(tmp_path, "medium")


def test_a_newer_schema_is_refused_by_name(folder):
    rewrite(folder, lambda manifest: manifest.update(schema_version=2))
    with pytest.raises(PackageError, match="schema_version 2, but this version reads up to 1: update whisper-xeon"):
        Package(folder)


def test_a_manifest_changed_by_hand_is_refused(folder):
    path = folder / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b'"q5_1"', b'"q8_0"'))
    with pytest.raises(PackageError, match="was altered"):
        Package(folder)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'"x"', b"\xff", b'{"schema_version": "1"}', b"[" * 100_000])
def test_bytes_that_are_no_manifest_are_refused(data):
    with pytest.raises(PackageError):
        parse_manifest(data, "manifest.json")


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(PackageError, match="duplicate key"):
        parse_manifest(b'{"schema_version": 1, "schema_version": 1}', "manifest.json")


@pytest.mark.parametrize("patches", [None, "0001-gemm", ["0001-gemm"], [{"sha256": ""}]])
def test_patches_that_are_no_list_of_names_are_refused(folder, patches):
    rewrite(folder, lambda manifest: manifest["whisper_cpp"].update(patches=patches))
    with pytest.raises(PackageError, match=r"no valid 'whisper_cpp\.patches'"):
        Package(folder)


def test_a_package_from_before_voice_detection_has_none(package):
    assert package.vad_file is None


def test_a_package_names_the_weights_of_its_voice_detection(package, folder):
    rewrite(folder, lambda manifest: manifest.update(vad={"file": "selftest.wav"}))
    assert Package(folder).vad_file == package.path("selftest.wav")


@pytest.mark.parametrize("vad", ["silero.bin", {}, {"file": 1}, []])
def test_a_voice_detection_without_a_file_is_refused(folder, vad):
    rewrite(folder, lambda manifest: manifest.update(vad=vad))
    with pytest.raises(PackageError, match=r"no valid 'vad\.file'"):
        Package(folder)


def test_weights_of_a_voice_detection_that_are_not_listed_are_refused(folder):
    rewrite(folder, lambda manifest: manifest.update(vad={"file": "../silero.bin"}))
    with pytest.raises(PackageError, match=r"names \.\./silero\.bin but does not list it"):
        Package(folder)


@pytest.mark.parametrize("heads", [None, {}, [1, 2], [[1]], [[1, 2, 3]], [[1, -1]], [[1, True]], [[1, "2"]]])
def test_alignment_heads_that_are_no_pairs_are_refused(folder, heads):
    rewrite(folder, lambda manifest: manifest["model"].update(alignment_heads=heads))
    with pytest.raises(PackageError, match=r"no valid 'model\.alignment_heads'"):
        Package(folder)


@pytest.mark.parametrize(("kernels", "heads"), [(["gemm"], ()), (["gemm", "align"], ((3, 1), (4, 0)))])
def test_a_package_has_alignment_heads_for_a_library_that_aligns(folder, kernels, heads):
    patches = [{"name": name, "sha256": "0" * 64} for name in kernels]
    rewrite(folder, lambda manifest: manifest["whisper_cpp"].update(patches=patches))
    rewrite(folder, lambda manifest: manifest["model"].update(alignment_heads=[[3, 1], [4, 0]]))
    assert Package(folder).alignment_heads == heads


def test_a_package_from_before_has_none(package):
    assert package.alignment_heads == ()


@pytest.mark.parametrize("name", ["0007-encode-once", "encode-once"])
def test_a_kernel_has_its_name_whether_or_not_the_package_numbers_it(folder, name):
    rewrite(folder, lambda manifest: manifest["whisper_cpp"].update(patches=[{"name": name, "sha256": "0" * 64}]))
    assert Package(folder).kernels == ("encode-once",)


@pytest.mark.parametrize("name", ["model", "files", "abi", "variants", "selftest", "minimum", "cmake_flags"])
def test_a_manifest_without_a_field_is_refused_with_its_name(folder, name):
    rewrite(folder, lambda manifest: manifest.pop(name))
    with pytest.raises(PackageError, match=f"no valid '{name}'"):
        Package(folder)


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a//b", ".hidden", "a/../b", "", "manifest.json", "a\nb"])
def test_a_file_outside_the_package_cannot_be_listed(folder, path):
    rewrite(folder, lambda manifest: manifest["files"][0].update(path=path))
    with pytest.raises(PackageError, match="invalid file entry"):
        Package(folder)


@pytest.mark.parametrize("name", ["../../../etc", "whisper_medium_xeon", "/etc", ""])
def test_a_package_cannot_name_another_folder(folder, name):
    rewrite(folder, lambda manifest: manifest.update(package=name))
    with pytest.raises(PackageError, match="instead of whisper_small_xeon"):
        Package(folder)


def test_a_library_that_is_not_listed_cannot_be_a_variant(folder):
    rewrite(folder, lambda manifest: manifest["variants"][0].update(path="../libggml-cpu.so.0"))
    with pytest.raises(PackageError, match="does not list it"):
        Package(folder)


@pytest.mark.parametrize("change", [{"size": -1}, {"size": True}, {"sha256": "00"}, {"executable": 1}])
def test_an_invalid_file_entry_is_refused(folder, change):
    rewrite(folder, lambda manifest: manifest["files"][0].update(change))
    with pytest.raises(PackageError, match="invalid file entry"):
        Package(folder)


def test_a_file_listed_twice_is_refused(folder):
    rewrite(folder, lambda manifest: manifest["files"].append(manifest["files"][0]))
    with pytest.raises(PackageError, match="invalid file entry"):
        Package(folder)


def test_a_model_that_is_not_listed_is_refused(folder):
    rewrite(folder, lambda manifest: manifest["model"].update(file="other.bin"))
    with pytest.raises(PackageError, match=r"names other\.bin but does not list it"):
        Package(folder)


def test_a_changed_byte_is_found(folder):
    path = folder / "selftest.wav"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"selftest\.wav differs from its manifest \(SHA-256\)"):
        Package(folder).verify()


def test_a_truncated_file_is_found(folder):
    path = folder / "libwhisper.so.1"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageError, match=r"libwhisper\.so\.1 has \d+ bytes instead of \d+"):
        Package(folder).verify()


def test_a_missing_file_is_found(folder):
    (folder / "whisper-cli").unlink()
    with pytest.raises(PackageError, match="whisper-cli is missing"):
        Package(folder).verify()


def test_an_additional_file_is_found(folder):
    (folder / "cpu" / "extra.so").touch()
    with pytest.raises(PackageError, match=r"cpu/extra\.so is not in the manifest"):
        Package(folder).verify()


def test_a_link_in_place_of_a_file_is_found(folder, package):
    (folder / "whisper-cli").unlink()
    (folder / "whisper-cli").symlink_to(package.path("whisper-cli"))
    with pytest.raises(PackageError, match="whisper-cli is not a regular file"):
        Package(folder).verify()


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def altered(sealed: Package, **changes) -> bytes:
    """Return the bytes of a manifest with other content, whose id is as good as somebody hostile could make it."""
    content = {**sealed.manifest, **changes}
    try:
        content["release_id"] = release_id(content)
    except UnicodeEncodeError:
        content["release_id"] = "1" * 64
    return json.dumps(content).encode("ascii")


@pytest.mark.parametrize(
    "path", ["a" * 201, "a" * 5000, "/".join("a" * 900), "a\n", "a\x1b]0;x\x07", "\u202eab", "..", "a//b"]
)
def test_a_path_that_a_file_system_or_terminal_would_trip_over_is_no_path_of_a_package(package, path):
    entry = {"path": path, "size": 1, "sha256": "0" * 64, "executable": False}
    with pytest.raises(PackageError, match="lists an invalid file entry") as error:
        parse_manifest(altered(package, files=[*package.manifest["files"], entry]), "manifest.json")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"zz": "\ud800"}, "its text is not Unicode"),
        ({"zz": float("nan")}, "NaN is not a number"),
        ({"package": "\x1b[2J" * 9000}, "names its package"),
    ],
)
def test_a_hostile_manifest_is_one_short_line(package, changes, says):
    data = altered(package, **changes)
    with pytest.raises(PackageError, match=says) as error:
        parse_manifest(data, "manifest.json")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "9" * 5000, '{"a": 1, "a": 2}'])
def test_a_manifest_that_no_parser_likes_is_rejected(package, value):
    with pytest.raises(PackageError, match="is not valid JSON"):
        parse_manifest(
            json.dumps(package.manifest)[:-1].encode() + b', "zz": ' + value.encode() + b"}", "manifest.json"
        )


@pytest.mark.parametrize("path", ["model", "selftest", "vad", "variants"])
def test_a_file_that_is_named_and_not_listed_is_shown_without_what_a_terminal_obeys(package, path):
    escape = "\x1b]0;gone\x07" * 100
    changes = {
        "model": {**package.manifest["model"], "file": escape},
        "selftest": {**package.manifest["selftest"], "audio": escape},
        "vad": {"file": escape},
        "variants": [{**package.manifest["variants"][0], "path": escape}],
    }
    with pytest.raises(PackageError, match="does not list it") as error:
        parse_manifest(altered(package, **{path: changes[path]}), "manifest.json")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["glibc-hwcaps", "cpu/glibc-hwcaps"])
@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.parent)], ids=["directory", "link"])
def test_a_directory_in_which_nothing_is_listed_is_extra(package, folder, name, make):
    (folder / "cpu").mkdir(exist_ok=True)
    assert any(entry["path"].startswith("cpu/") for entry in package.files)
    make(folder / name)
    with pytest.raises(PackageError, match=f"{name} is not in the manifest"):
        package.verify()


def test_a_link_in_place_of_a_directory_is_extra(package, folder, tmp_path):
    (folder / "cpu").rename(tmp_path / "elsewhere")
    (folder / "cpu").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match="cpu is not in the manifest"):
        package.verify()
