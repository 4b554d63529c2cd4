"""`GET /metrics` of the real service: Prometheus' text format, and what each figure counts."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from metrics_page import parse, requests
from paths import RECORDINGS
from running_service import ADAPTERS, EXACT, Service, running_service, submit, wait_for

OPENAI = "/v1/audio/transcriptions"
CLIP = "en-00.wav"


@pytest.fixture(scope="module", params=ADAPTERS)
def service(request, artifacts_dir, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("key\n", encoding="ascii")
    settings = {"WHISPER_ENGINES": "1", "WHISPER_ADAPTER": request.param, "WHISPER_API_KEY_FILE": str(keys)}
    with running_service(artifacts_dir, **settings) as running:
        running.headers["authorization"] = "Bearer key"
        yield running


def scrape(service) -> dict[tuple[str, ...], float]:
    return parse(service.get("/metrics").text)


def increase(service, action) -> dict[tuple[str, ...], float]:
    """Return by how much each sample grew over an action; a request is counted just after its answer."""
    before = scrape(service)
    action()

    def grown():
        after = scrape(service)
        return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}

    wait_for(lambda: any(key[0] == "whisper_requests_total" for key in grown()))
    return {key: value for key, value in grown().items() if key != ("whisper_memory_bytes",)}


def test_it_is_open_and_of_prometheus_type(service):
    answer = Service(service.process, service.port, service.log_file).get("/metrics")  # without the key
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_each_family_is_described_and_typed(service):
    page = service.get("/metrics").text
    described = re.findall(r"^# HELP (\S+) \S", page, re.MULTILINE)
    typed = dict(re.findall(r"^# TYPE (\S+) (counter|gauge|histogram)$", page, re.MULTILINE))
    assert described == list(typed)
    assert typed == {
        "whisper_requests_total": "counter",
        "whisper_audio_seconds_total": "counter",
        "whisper_speech_seconds_total": "counter",
        "whisper_decoded_again_total": "counter",
        "whisper_request_seconds": "histogram",
        "whisper_wait_seconds": "histogram",
        "whisper_queue_waiting": "gauge",
        "whisper_engines": "gauge",
        "whisper_engines_busy": "gauge",
        "whisper_engine_restarts_total": "counter",
        "whisper_start_time_seconds": "gauge",
        "whisper_ready_timestamp_seconds": "gauge",
        "whisper_memory_bytes": "gauge",
        "whisper_info": "gauge",
    }


def test_info_says_what_runs_as_version_does(service):
    version = service.get("/version").json
    names = ("version", "model", "release_id", "whisper_cpp", "adapter", "cpu_variant")
    assert scrape(service)[("whisper_info", *(f'{name}="{version[name]}"' for name in names))] == 1


def test_a_transcription_is_counted_with_its_audio_and_its_times(service):
    grown = increase(service, lambda: service.transcribe(CLIP))
    assert grown[requests(OPENAI, 200)] == 1
    assert grown[("whisper_audio_seconds_total",)] == pytest.approx(EXACT[CLIP]["seconds"], abs=0.01)
    assert 1 < grown[("whisper_speech_seconds_total",)] < EXACT[CLIP]["seconds"]
    assert grown[("whisper_request_seconds_count",)] == grown[("whisper_wait_seconds_count",)] == 1
    assert grown[("whisper_request_seconds_sum",)] > 0


BROKEN_CHUNK = (
    f"POST {OPENAI} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key\r\nContent-Type: audio/wav\r\n"
    "Transfer-Encoding: chunked\r\n\r\nx\r\n"
)


@pytest.mark.parametrize(
    ("status", "send"),
    [
        (401, lambda service: service.post_form(OPENAI, ("file", b""), authorization="Bearer wrong")),
        (405, lambda service: service.get(OPENAI)),
        (415, lambda service: service.request("POST", OPENAI, b"{}", content_type="text/plain")),
        (422, lambda service: service.post_form(OPENAI, ("file", b"no sound"))),
        (400, lambda service: service.raw(BROKEN_CHUNK.encode())),
    ],
)
def test_a_refusal_is_counted_by_its_status_and_not_as_a_transcription(service, status, send):
    assert increase(service, lambda: send(service)) == {requests(OPENAI, status): 1}


def test_an_unknown_path_makes_no_new_series(service):
    before = set(scrape(service))
    service.get("/secret-path")
    assert set(scrape(service)) == before


def test_a_client_that_leaves_is_counted_and_its_engine_as_restarted(service):
    def leave() -> None:
        with submit(service, RECORDINGS / "long.wav"):
            wait_for(lambda: scrape(service)[("whisper_engines_busy",)] == 1)

    grown = increase(service, leave)
    assert grown[requests(OPENAI, 499)] == 1
    wait_for(lambda: scrape(service)[("whisper_engines",)] == 1)
    assert scrape(service)[("whisper_engines_busy",)] == 0


def test_memory_is_that_of_front_zygote_and_workers(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_ENGINES="2") as service:
        wait_for(lambda: len(service.worker_pids()) == 2)
        sizes = [pss(pid) for pid in (service.process.pid, *service.engine_pids())]
        assert len(sizes) == 4
        assert scrape(service)[("whisper_memory_bytes",)] == pytest.approx(sum(sizes), abs=min(sizes) / 2)


def pss(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.search(r"^Pss: +(\d+) kB$", rollup, re.MULTILINE)[1]) * 1024


def test_start_and_load_are_times_of_the_clock(service):
    samples = scrape(service)
    started, ready = samples[("whisper_start_time_seconds",)], samples[("whisper_ready_timestamp_seconds",)]
    assert started <= ready <= time.time()


def test_a_timeout_and_waiting_requests_are_counted(artifacts_dir):
    settings = {"WHISPER_ENGINES": "1", "WHISPER_REQUEST_TIMEOUT": "1"}
    with running_service(artifacts_dir, **settings) as service:
        with service.workers_held(), submit(service, RECORDINGS / CLIP), submit(service, RECORDINGS / CLIP):
            wait_for(lambda: scrape(service)[("whisper_queue_waiting",)] == 1)
            wait_for(lambda: scrape(service).get(requests(OPENAI, 504)) == 2)
        wait_for(lambda: scrape(service)[("whisper_engine_restarts_total",)] >= 1)
