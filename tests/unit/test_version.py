"""The version of the service, which `/version` says, is that of the collection."""

import yaml

import whisper_xeon
from paths import ROOT


def test_service_and_collection_have_one_version():
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text("utf-8"))
    assert galaxy["version"] == whisper_xeon.__version__
