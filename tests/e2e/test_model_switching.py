"""One image, every model: `WHISPER_MODEL_SIZE` and `docker compose up` are all that a switch takes."""

from __future__ import annotations

import pytest

from docker_client import inspect
from running_service import EXACT
from service_container import PACKAGES, PORT, PROJECT, Compose, request, transcribe
from whisper_package.models import MODEL_CONFIGS

BUILT = ("small", "medium")


@pytest.fixture
def filled(compose: Compose, fill) -> Compose:
    """A project whose volume holds both packages; there is no store."""
    compose("create")
    fill(f"{PROJECT}_packages", *BUILT)
    return compose


def up(compose: Compose, model: str) -> dict:
    """Bring the service up with a model, wait until it is ready and return what `/version` says."""
    compose("up", "--detach", WHISPER_MODEL_SIZE=model)
    compose.api.wait_ready()
    return request(PORT, "GET", "/version")


def test_small_serves_when_nothing_is_chosen(filled: Compose):
    filled("up", "--detach")
    filled.api.wait_ready()
    assert request(PORT, "GET", "/version")["model"] == "small"


def test_variable_switches_the_model_there_and_back_and_keeps_the_image_and_the_packages(filled: Compose):
    seen = []
    for name in ("small", "MEDIUM", "small"):
        version, model = up(filled, name), name.lower()
        assert (version["model"], version["package"]) == (model, MODEL_CONFIGS[model]["dir"])
        assert transcribe(PORT, "en-00.wav") == EXACT["en-00.wav"]["text"]
        seen.append((inspect(filled.api.name)["Image"], filled.api.run("find", PACKAGES, "-printf", "%p %i %T@\n")))
    assert seen[0] == seen[1] == seen[2]


def test_each_model_has_its_memory_limit(filled: Compose):
    limits = []
    for model in ("tiny", "medium", "large-v3"):
        filled("create", WHISPER_MODEL_SIZE=model)
        limits.append(inspect(filled.api.name)["HostConfig"]["Memory"])
        assert limits[-1] > MODEL_CONFIGS[model]["ram_mb"] * 1_000_000
    assert limits == sorted(set(limits))


def test_a_model_of_ones_own_takes_the_limit_of_another(filled: Compose):
    filled("create", WHISPER_MODEL_SIZE="Support-Calls-DE", WHISPER_LIMITS_OF="medium")
    assert inspect(filled.api.name)["HostConfig"]["Memory"] == 7 << 30
    assert "WHISPER_MODEL_SIZE=Support-Calls-DE" in inspect(filled.api.name)["Config"]["Env"]


def test_unknown_model_is_refused_by_name(compose: Compose):
    result = compose("up", "--detach", check=False, WHISPER_MODEL_SIZE="huge")
    assert result.returncode != 0
    assert '"huge"' in result.stderr
