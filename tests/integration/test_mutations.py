"""A little of what the reliability benchmark mutates at length: nothing ends in a 500, a crash or a traceback."""

from __future__ import annotations

from running_service import running_service
from whisper_bench.reliability import mutations

ANOTHER_SEED = 16


def test_mutated_recordings_and_requests_are_answered(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_ENGINES="2") as service:
        assert mutations.recordings(service.port, 24, ANOTHER_SEED) == []
        assert mutations.requests(service.port, 300, ANOTHER_SEED) == []
        assert service.transcribe("fr-01.wav").status == 200


def test_no_address_leads_to_where_it_is_not_allowed(artifacts_dir):
    with (
        mutations.canary() as (port, hits),
        running_service(artifacts_dir, WHISPER_AUDIO_URL_ALLOW=f"http://{mutations.ALLOWED_HOST}") as service,
    ):
        assert mutations.addresses(service.port, 60, port, ANOTHER_SEED) == []
        assert hits == []


def test_mutated_models_are_refused_in_words(small_package):
    assert mutations.models(small_package, 6, ANOTHER_SEED) == []
