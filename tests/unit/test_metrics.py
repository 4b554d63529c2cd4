"""Class `Metrics`: what each figure counts, and how it is written."""

from __future__ import annotations

import os
import signal
import time

import pytest

from metrics_page import parse, requests
from whisper_xeon.footprint import Footprint, open_own
from whisper_xeon.metrics import Memory, Metrics

STATS = {"queued": 3, "idle": 1, "busy": 2, "restarts": 5, "cpu_variant": None}


def rendered(metrics: Metrics, *, ready_at: float | None = None, memory: int | None = None) -> dict:
    return parse(metrics.render(STATS, ready_at=ready_at, memory=memory).decode())


@pytest.fixture
def metrics():
    return Metrics(["/a", "/b"], info={"model": "small"}, started_at=12.5)


def test_requests_are_counted_by_route_and_status(metrics):
    for route, status in (("/a", 200), ("/a", 200), ("/a", 499), ("/b", 504)):
        metrics.answered(route, status)
    counted = {key: value for key, value in rendered(metrics).items() if key[0] == "whisper_requests_total"}
    assert counted == {
        requests("/a", 200): 2,
        requests("/a", 499): 1,
        requests("/b", 200): 0,  # so that the first one is seen as an increase
        requests("/b", 504): 1,
    }


@pytest.mark.parametrize("route", [None, "/health", '/x"} 1\n'])
def test_other_routes_are_not_counted(metrics, route):
    before = rendered(metrics)
    metrics.answered(route, 404)
    assert rendered(metrics) == before


def test_a_histogram_counts_each_value_in_its_bucket_and_all_above(metrics):
    for seconds in (0.05, 0.3, 0.4, 7000):
        metrics.transcribed(audio_s=1, speech_s=0.5, wait_s=0, total_s=seconds, again=False)
    samples = rendered(metrics)
    buckets = {key[1]: value for key, value in samples.items() if key[0] == "whisper_request_seconds_bucket"}
    below = [buckets[f'le="{limit}"'] for limit in ("0.05", "0.1", "0.25", "0.5", "1", "1800", "+Inf")]
    assert below == [1, 1, 1, 3, 3, 3, 4]
    assert samples[("whisper_request_seconds_count",)] == 4
    assert samples[("whisper_request_seconds_sum",)] == pytest.approx(7000.75)
    assert samples[("whisper_audio_seconds_total",)] == 4


def test_audio_in_which_nothing_looked_for_speech_counts_as_speech(metrics):
    metrics.transcribed(audio_s=60, speech_s=12.5, wait_s=0, total_s=1, again=False)
    metrics.transcribed(audio_s=60, speech_s=0.0, wait_s=0, total_s=1, again=False)
    metrics.transcribed(audio_s=60, speech_s=None, wait_s=0, total_s=1, again=False)
    assert rendered(metrics)[("whisper_speech_seconds_total",)] == 72.5


def test_what_was_decoded_again_is_counted(metrics):
    for again in (False, True, True):
        metrics.transcribed(audio_s=5, speech_s=4, wait_s=0, total_s=1, again=again)
    assert rendered(metrics)[("whisper_decoded_again_total",)] == 2


def test_gauges_are_those_of_the_pool(metrics):
    samples = rendered(metrics)
    assert samples[("whisper_queue_waiting",)] == 3
    assert samples[("whisper_engines",)] == 3
    assert samples[("whisper_engines_busy",)] == 2
    assert samples[("whisper_engine_restarts_total",)] == 5
    assert samples[("whisper_start_time_seconds",)] == 12.5


def test_what_is_not_known_yet_is_absent(metrics):
    names = {key[0] for key in rendered(metrics)}
    assert names.isdisjoint({"whisper_ready_timestamp_seconds", "whisper_memory_bytes"})
    samples = rendered(metrics, ready_at=99.0, memory=1 << 30)
    assert samples[("whisper_ready_timestamp_seconds",)] == 99
    assert samples[("whisper_memory_bytes",)] == 1 << 30


def test_labels_are_escaped():
    metrics = Metrics([], info={"version": 'a"b\\c\nd'}, started_at=0)
    assert '{version="a\\"b\\\\c\\nd",cpu_variant=""} 1\n' in metrics.render(STATS, ready_at=None, memory=None).decode()


def test_memory_of_processes_that_are_gone_is_none():
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    descriptors = [os.open(f"/proc/{child}/smaps_rollup", os.O_RDONLY)]
    there, gone = Footprint(descriptors), [Footprint(())]
    assert there.read() > 0
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert Memory(lambda: [there, *gone]).read() is None


def test_memory_is_read_by_whom_a_process_hands_it_to():
    own = Footprint(open_own())
    assert Memory(lambda: [own, own]).read() == pytest.approx(2 * own.read(), rel=0.05)


def test_a_footprint_that_nobody_refers_to_closes_what_it_was_handed():
    (descriptor, *_) = descriptors = open_own()
    Footprint(descriptors).read()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
