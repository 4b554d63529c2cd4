"""Where the drop-in gets weights: OpenAI's `.pt` made into a package once, and packages fetched from a store."""

from __future__ import annotations

import lzma
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import model_forms
import whisper
from other_vocabularies import FFT_BINS, ModelFile
from paths import FIXTURES, RECORDINGS
from running_service import EXACT
from signing import PUBLIC, TRUSTED
from whisper import published, weights
from whisper.checkpoint import mel_filters
from whisper_package.digests import file_digest
from whisper_package.package import Package
from whisper_store.client import s3_client
from whisper_store.store import Store

CLIP = "en-00.wav"


@pytest.fixture(scope="module")
def network() -> ModelFile:
    return ModelFile.read(lzma.decompress((FIXTURES / "models" / "ggml-fixture-small.bin.xz").read_bytes()))


@pytest.fixture
def model_dir(network, tmp_path) -> Path:
    """A directory like openai-whisper's `~/.cache/whisper`."""
    directory = tmp_path / "whisper"
    directory.mkdir()
    model_forms.write_openai(directory / "small.pt", network.arrays(), network.parameters)
    return directory


@pytest.fixture
def only_medium(artifacts_dir, tmp_path, monkeypatch) -> Path:
    """A directory of packages without `small`, and an empty cache."""
    directory = tmp_path / "packages"
    directory.mkdir()
    (directory / "whisper_medium_xeon").symlink_to(artifacts_dir / "whisper_medium_xeon")
    monkeypatch.setenv("WHISPER_ARTIFACTS_DIR", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIO_ENDPOINT", raising=False)
    monkeypatch.setenv("WHISPER_XEON_WEIGHTS_URL", "")
    return directory


@pytest.fixture
def mirror(model_dir, monkeypatch) -> Iterator[Path]:
    """A directory whose files are served where weights are downloaded from; it has `small.pt` by its digest."""
    digest = file_digest(model_dir / "small.pt")
    monkeypatch.setitem(published.SHA256, "small", digest)
    served = model_dir.parent / "served"
    (served / digest).mkdir(parents=True)
    (model_dir / "small.pt").rename(served / digest / "small.pt")

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WHISPER_XEON_WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/")
        yield served
        server.shutdown()


@pytest.mark.parametrize("by_path", [False, True])
def test_a_checkpoint_is_made_into_a_package_once(only_medium, model_dir, capsys, by_path):
    name = model_dir / "small.pt" if by_path else "small"
    text = whisper.load_model(name, download_root=model_dir).transcribe(RECORDINGS / CLIP)["text"]
    assert text.strip() == EXACT[CLIP]["text"]
    assert capsys.readouterr().err == f"whisper: making a package of {model_dir / 'small.pt'}, once\n"
    package = weights.find(name, model_dir)
    assert capsys.readouterr().err == ""
    package.verify()
    assert (package.model, package.quantization) == ("small", "f16")
    assert package.kernels == Package(only_medium / "whisper_medium_xeon").kernels
    assert not list(package.directory.parent.glob(".part-*"))


def test_one_that_was_replaced_is_made_again(only_medium, model_dir):
    first = weights.find("small", model_dir)
    os.utime(model_dir / "small.pt", (1, 1))
    second = weights.find("small", model_dir)
    assert first.directory != second.directory
    assert first.release_id == second.release_id


def test_a_package_goes_before_a_checkpoint(artifacts_dir, model_dir, monkeypatch):
    monkeypatch.setenv("WHISPER_ARTIFACTS_DIR", str(artifacts_dir))
    assert weights.find("small", model_dir).directory == artifacts_dir / "whisper_small_xeon"


def test_a_damaged_checkpoint_is_named_and_leaves_nothing(only_medium, model_dir, tmp_path):
    checkpoint = model_dir / "small.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(RuntimeError, match=r"small\.pt is cut off or damaged"):
        whisper.load_model("small", download_root=model_dir)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_weights_that_are_nowhere_are_downloaded_once(only_medium, model_dir, mirror, capsys):
    text = whisper.load_model("small", download_root=model_dir).transcribe(RECORDINGS / CLIP)["text"]
    assert text.strip() == EXACT[CLIP]["text"]
    said = capsys.readouterr().err
    assert f"/{published.SHA256['small']}/small.pt to {model_dir / 'small.pt'}, once\n" in said
    assert "whisper: small.pt: 100 % of " in said
    weights.find("small", model_dir)
    assert capsys.readouterr().err == ""


def test_a_download_of_another_digest_is_refused_and_leaves_nothing(only_medium, model_dir, mirror):
    (served,) = mirror.rglob("small.pt")
    served.write_bytes(served.read_bytes()[:-1] + b"x")
    with pytest.raises(RuntimeError, match=r"has SHA-256 [0-9a-f]{64}, openai-whisper pins [0-9a-f]{64}: "):
        whisper.load_model("small", download_root=model_dir)
    assert list(model_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("http://127.0.0.1:1", r"http://127\.0\.0\.1:1/.*: cannot be reached .*Connection refused.* \(3 attempts\)"),
        ("", "WHISPER_XEON_WEIGHTS_URL is empty"),
    ],
)
def test_without_a_network_one_line_says_what_was_tried(only_medium, tmp_path, monkeypatch, place, reason):
    monkeypatch.setenv("WHISPER_XEON_WEIGHTS_URL", place)
    expected = rf"model small is not here: .* no {tmp_path}/small\.pt\. .*\. It was not downloaded: {reason}"
    with pytest.raises(RuntimeError, match=expected):
        whisper.load_model("small", download_root=tmp_path)


def test_nothing_is_downloaded_that_could_not_be_used(mirror, model_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WHISPER_ARTIFACTS_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        RuntimeError, match=r"not downloaded: its \.pt has weights, and the libraries .* come from a pack"
    ):
        whisper.load_model("small", download_root=model_dir)
    assert capsys.readouterr().err == ""


def test_libraries_must_come_from_some_package(model_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_ARTIFACTS_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match=r"small\.pt has weights, and the libraries .* set WHISPER_ARTIFACTS_DIR"):
        whisper.load_model("small", download_root=model_dir)


def test_mel_filters_are_those_of_the_published_models(network):
    published = np.frombuffer(network.filters, "<f4").reshape(80, FFT_BINS)
    np.testing.assert_allclose(mel_filters(80), published, rtol=0, atol=1e-8)
    assert mel_filters(128).shape == (128, FFT_BINS)


def test_a_package_is_fetched_from_the_store_once(minio, artifacts_dir, only_medium, monkeypatch, capsys):
    settings = minio.settings("root", bucket="openai-drop-in")  # other tests count what is in theirs
    s3_client(settings).create_bucket(Bucket=settings.bucket)
    Store(settings, trusted=TRUSTED).publish(artifacts_dir / "whisper_small_xeon")
    monkeypatch.setenv("MINIO_ENDPOINT", settings.endpoint)
    monkeypatch.setenv("WHISPER_TRUSTED_KEYS", PUBLIC)
    monkeypatch.setenv("MINIO_BUCKET", settings.bucket)
    monkeypatch.setenv("MINIO_ACCESS_KEY", settings.access_key)
    monkeypatch.setenv("MINIO_SECRET_KEY", settings.secret_key)
    package = weights.find("small")
    package.verify()
    assert package.directory == only_medium / "whisper_small_xeon"
    said = capsys.readouterr()
    assert (said.out, "downloaded" in said.err) == ("", True)
    assert weights.find("small").directory == package.directory
    assert capsys.readouterr().err == ""
