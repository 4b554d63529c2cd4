"""The pool and its processes: what crashes, hangs, waits or is cancelled, on the real library."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from audio_files import ffmpeg
from paths import APP, RECORDINGS
from whisper_package.package import Package
from whisper_package.variants import choose_variant, cpu_flags
from whisper_xeon.audio.decode import PcmAudio, decode
from whisper_xeon.engine.job import Job
from whisper_xeon.engine.outcome import (
    Cancelled,
    EngineCrashed,
    EnginesHang,
    EngineStopped,
    EngineTimeout,
    EngineUnavailable,
    QueueFull,
    RequestRejected,
)
from whisper_xeon.engine.pace import Pace
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.transcript import DecodeOptions

PATIENCE = 120  # seconds; nothing here takes as long unless it is broken
ENGLISH = DecodeOptions(language="en")
TEXTS = {
    "en-00.wav": "five eight right eight down hello",
    "en-05.wav": "kilo tango yankee",
    "en-06.wav": "charlie start zero",
    "en-08.wav": "whiskey two yankee",
    "silence.wav": "",
}


class Pools:
    """Makes pools of the small model, and stops them after the test."""

    def __init__(self, package: Package):
        self._package = package
        self._pools: list[EnginePool] = []
        self.events: list[tuple[str, dict]] = []

    def __call__(self, *, package: Package | None = None, ready: bool = True, **options) -> EnginePool:
        options = {"engines": 1, "threads": 1, "queue": 32, **options}
        pool = EnginePool(package or self._package, log=self._log, **options)
        self._pools.append(pool)
        pool.start()
        if ready:
            assert pool.wait_ready(PATIENCE)
        return pool

    def stop(self) -> None:
        for pool in self._pools:
            pool.stop(grace=0)

    def logs(self) -> str:
        """What conftest prints beside a failed test."""
        return "\n".join(f"{event} {fields}" for event, fields in self.events)

    def _log(self, level, event, **fields):
        self.events.append((event, fields))


@pytest.fixture
def pools(small_package):
    pools = Pools(small_package)
    yield pools
    pools.stop()


@pytest.fixture(scope="module")
def clips():
    """The recordings of TEXTS, and `long.wav`, decoded."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(decoded(RECORDINGS / name)) for name in [*TEXTS, "long.wav"]}


@contextlib.contextmanager
def decoded(path: Path, **options):
    with open(path, "rb") as stream, decode(stream.fileno(), max_seconds=600, **options) as audio:
        yield audio


@contextlib.contextmanager
def in_background(function: Callable, *arguments, **options):
    """Call a function in a thread of its own; gives the future of its result."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        yield thread.submit(function, *arguments, **options)


def wait_for(condition: Callable[[], object]) -> object:
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def stat(pid: int) -> list[str]:
    """Return state, parent and the rest of /proc/PID/stat; a process that is gone has none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def children(pid: int) -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and stat(int(p.name))[1:2] == [str(pid)]]


def zygote_of(pool: EnginePool) -> int:
    return int(stat(pool.worker_pids()[0])[1])


def fds() -> int:
    gc.collect()  # exceptions of earlier tests keep workers, and those the descriptors of their footprints
    return len(list(Path("/proc/self/fd").iterdir()))


# Requests.


def test_a_request_is_transcribed(pools, clips):
    result = pools().transcribe(clips["en-00.wav"], ENGLISH)
    assert (result.transcript.text, result.attempts) == ("five eight right eight down hello", 1)


def test_options_reach_the_engine(pools, clips):
    options = DecodeOptions(task="translate", word_timestamps=True)
    transcript = pools().transcribe(clips["en-05.wav"], options).transcript
    assert (transcript.task, len(transcript.segments[0].words)) == ("translate", 3)


def test_a_request_says_how_long_it_waited_and_computed(pools, clips):
    result = pools().transcribe(clips["en-00.wav"], ENGLISH)
    assert result.wait_s >= 0
    assert result.compute_s > 0


def test_each_side_of_a_call_is_transcribed_by_itself_and_told_apart(pools, tmp_path):
    graph = "[0]apad=whole_dur=5[left];[1]adelay=1000,apad=whole_dur=5[right];[left][right]join=channel_layout=stereo"
    ffmpeg("-i", RECORDINGS / "en-05.wav", "-i", RECORDINGS / "en-06.wav", "-filter_complex", graph, tmp_path / "a.wav")
    pool = pools()
    with decoded(tmp_path / "a.wav", sides=True) as call:
        segments = pool.transcribe(call, ENGLISH).transcript.segments
        for speaker, fd in zip(("left", "right"), call.fds):
            with PcmAudio(os.dup(fd), call.samples) as side:
                alone = pool.transcribe(side, ENGLISH).transcript
            said = [(segment.text, segment.start) for segment in segments if segment.speaker == speaker]
            assert said == [(segment.text, segment.start) for segment in alone.segments]
            assert said
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)


def test_an_empty_clip_has_an_empty_transcript(pools):
    with PcmAudio(os.memfd_create("empty"), 0) as nothing:
        assert pools().transcribe(nothing, DecodeOptions()).transcript.text == ""


def test_a_language_that_the_model_does_not_know_is_rejected(pools, clips):
    with pytest.raises(RequestRejected, match="does not know the language 'yue'"):
        pools().transcribe(clips["en-00.wav"], DecodeOptions(language="yue"))


def test_requests_may_come_before_the_model_is_loaded(pools, clips):
    assert pools(ready=False).transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"


def test_parallel_requests_get_nobody_elses_words(pools, clips):
    names = [*TEXTS] * 4
    pool = pools(engines=2)
    with concurrent.futures.ThreadPoolExecutor(len(names)) as threads:
        texts = list(threads.map(lambda name: pool.transcribe(clips[name], ENGLISH).transcript.text, names))
    assert texts == [TEXTS[name] for name in names]


def test_requests_are_served_in_the_order_they_came(pools, clips):
    pool, served = pools(), []

    def request(number):
        pool.transcribe(clips["en-05.wav"], ENGLISH)
        served.append(number)

    os.kill(pool.worker_pids()[0], signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for number in range(4):
            threads.submit(request, number)
            wait_for(lambda n=number: pool.stats()["requests"] == n + 1)
            time.sleep(0.05)
        os.kill(pool.worker_pids()[0], signal.SIGCONT)
    assert served == [0, 1, 2, 3]


# Loading.


def test_the_model_is_loaded_once_and_says_so(pools, small_package):
    pool = pools(engines=2)
    [(event, fields)] = pools.events
    assert event == "model loaded"
    assert fields["model"] == "small"
    assert fields["release_id"] == small_package.release_id
    assert fields["quantization"] == "q5_1"
    chosen = choose_variant(small_package, cpu_flags())
    assert (fields["cpu_variant"], fields["cpu_variant_reason"]) == (chosen.name, chosen.reason)
    assert fields["load_s"] > 0
    assert pool.stats()["loads"] == 1


def test_a_pool_is_ready_when_a_worker_is(pools):
    pool = pools()
    assert (pool.state, len(pool.worker_pids())) == ("ready", 1)


def test_the_processes_have_names(pools):
    pool = pools()
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in (zygote_of(pool), *pool.worker_pids())]
    assert names == ["wx-zygote", "wx-worker"]


def test_the_zygote_has_one_thread(pools):
    assert len(list(Path(f"/proc/{zygote_of(pools())}/task").iterdir())) == 1


def test_a_package_without_library_fails_for_good_in_one_line(pools, small_package, tmp_path):
    folder = shutil.copytree(small_package.directory, tmp_path / small_package.name)
    (folder / "libwhisper.so.1").unlink()
    pool = pools(package=Package(folder), ready=False)
    assert not pool.wait_ready(PATIENCE)
    assert (pool.state, pool.failure) == ("failed", f"{folder}/libwhisper.so.1 is missing: fetch the package again")


def test_a_damaged_model_fails_for_good(pools, small_package, tmp_path):
    folder = shutil.copytree(small_package.directory, tmp_path / small_package.name)
    package = Package(folder)
    os.truncate(package.model_file, 1_000_000)
    pool = pools(package=package, ready=False)
    assert not pool.wait_ready(PATIENCE)
    assert "ggml-small-q5_1.bin is damaged" in pool.failure


def test_a_request_to_a_failed_pool_gets_the_reason(pools, small_package, tmp_path, clips):
    folder = shutil.copytree(small_package.directory, tmp_path / small_package.name)
    (folder / "libggml.so.0").unlink()
    pool = pools(package=Package(folder), ready=False)
    with pytest.raises(EngineUnavailable, match=r"libggml\.so\.0 is missing") as caught:
        pool.transcribe(clips["en-00.wav"], ENGLISH)
    assert str(caught.value) == pool.failure


# Crashes.


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGBUS])
def test_a_request_whose_worker_dies_is_tried_again(pools, clips, number):
    pool = pools()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        os.kill(pool.worker_pids()[0], number)
        assert request.result(PATIENCE).transcript.text.startswith("two blue yes")
    assert pool.stats()["crashes"] == 1
    [reason] = [fields["reason"] for event, fields in pools.events if event == "engine worker lost"]
    assert number.name in reason


def test_killing_the_workers_during_ten_parallel_requests_loses_none(pools, clips):
    pool = pools(engines=2)
    names = ["en-00.wav", "en-05.wav", "en-06.wav", "en-08.wav", "silence.wav"] * 2
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        requests = [threads.submit(pool.transcribe, clips[name], ENGLISH) for name in names]
        for pid in wait_for(lambda: pool.stats()["busy"] == 2 and pool.worker_pids()):
            os.kill(pid, signal.SIGSEGV)
        texts = [request.result(PATIENCE).transcript.text for request in requests]
    assert texts == [TEXTS[name] for name in names]
    assert pool.stats()["crashes"] == 2


def test_a_request_that_kills_two_workers_is_given_up(pools, clips):
    pool = pools()
    seen = set()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        while not request.done():
            if pool.stats()["busy"]:
                for pid in set(pool.worker_pids()) - seen:
                    time.sleep(0.05)  # it has begun by now
                    os.kill(pid, signal.SIGSEGV)
                    seen.add(pid)
            time.sleep(0.005)
        with pytest.raises(EngineCrashed):
            request.result()
    assert pool.stats()["crashes"] == 2


def test_a_pool_serves_on_after_a_request_was_given_up(pools, clips):
    pool = pools()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        while not request.done():
            for pid in pool.worker_pids() if pool.stats()["busy"] else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSEGV)
            time.sleep(0.05)
        with pytest.raises(EngineCrashed):
            request.result()
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"


def test_kills_in_a_row_lose_no_request(pools, clips):
    pool = pools(engines=2)
    stop = threading.Event()

    def kill_workers():
        while not stop.wait(0.1):
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(pool.worker_pids()[0], signal.SIGKILL)

    with in_background(kill_workers), concurrent.futures.ThreadPoolExecutor(8) as threads:
        names = ["en-00.wav", "en-05.wav", "en-06.wav", "en-08.wav"] * 10
        results = list(threads.map(lambda name: pool.transcribe(clips[name], ENGLISH), names))
        stop.set()
    assert [result.transcript.text for result in results] == [TEXTS[name] for name in names]
    assert any(result.attempts > 1 for result in results)


def test_one_request_outlives_any_number_of_kills(pools, clips):
    pool = pools()
    seen = set()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        for _ in range(4):
            [pid] = wait_for(lambda: pool.stats()["busy"] and set(pool.worker_pids()) - seen)
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
        assert request.result(PATIENCE).attempts == 5


def test_an_idle_worker_that_dies_is_replaced(pools):
    pool = pools()
    [before] = pool.worker_pids()
    os.kill(before, signal.SIGSEGV)
    wait_for(lambda: pool.worker_pids() and pool.worker_pids() != [before])
    assert pool.state == "ready"


def test_many_crashes_leave_no_zombie_and_no_descriptor(pools, clips):
    pool = pools(engines=2)
    pool.transcribe(clips["en-05.wav"], ENGLISH)
    before = fds()
    for crash in range(10):
        os.kill(wait_for(pool.worker_pids)[0], signal.SIGKILL)
        wait_for(lambda n=crash: pool.stats()["restarts"] == n + 1 and len(pool.worker_pids()) == 2)
    assert sorted(children(zygote_of(pool))) == sorted(pool.worker_pids())
    assert fds() == before


def test_the_zygotes_death_loses_no_request(pools, clips):
    pool = pools(engines=2)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        requests = [threads.submit(pool.transcribe, clips["en-00.wav"], ENGLISH) for _ in range(4)]
        wait_for(lambda: pool.stats()["busy"] == 2)
        os.kill(zygote_of(pool), signal.SIGKILL)
        texts = [request.result(PATIENCE).transcript.text for request in requests]
    assert texts == [TEXTS["en-00.wav"]] * 4
    assert pool.stats()["loads"] == 2


def test_a_stopped_zygote_is_replaced_when_it_is_needed(pools, clips):
    pool = pools()
    zygote = zygote_of(pool)
    os.kill(zygote, signal.SIGSTOP)
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"
    assert zygote_of(pool) != zygote
    assert not stat(zygote)


def test_sigterm_and_sigint_to_the_group_do_not_end_a_request(pools, clips):
    pool = pools()
    with in_background(pool.transcribe, clips["en-00.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        for pid in (*pool.worker_pids(), zygote_of(pool)):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert request.result(PATIENCE).attempts == 1


# Time, cancelling and the queue.


def test_a_request_that_somebody_kills_every_time_ends_at_its_deadline(pools, clips):
    pool = pools()
    stop = threading.Event()

    def kill_workers():
        while not stop.wait(0.02):
            if pool.stats()["busy"]:
                pool._state.progressed()  # as the requests on other engines do
                with contextlib.suppress(IndexError, ProcessLookupError):
                    os.kill(pool.worker_pids()[0], signal.SIGKILL)

    with in_background(kill_workers):
        try:
            with pytest.raises(EngineTimeout):
                pool.transcribe(clips["long.wav"], ENGLISH, deadline=time.monotonic(), patience=2)
        finally:
            stop.set()
    assert pool.stats()["crashes"] >= 10
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"


def test_a_worker_that_is_not_done_at_the_deadline_is_replaced(pools, clips):
    pool = pools()
    [hung] = pool.worker_pids()
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(EngineTimeout):
        pool.transcribe(clips["en-05.wav"], ENGLISH, deadline=time.monotonic() + 0.2)
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"
    assert hung not in pool.worker_pids()
    assert wait_for(lambda: not stat(hung))


def test_the_deadline_moves_on_with_every_window(pools, clips):
    pool = pools()
    pool.transcribe(clips["en-05.wav"], ENGLISH)
    result = pool.transcribe(clips["long.wav"], ENGLISH, deadline=time.monotonic(), patience=PATIENCE)
    assert result.transcript.text.startswith("two blue yes")
    with pytest.raises(EngineTimeout):
        pool.transcribe(clips["long.wav"], ENGLISH, deadline=time.monotonic(), patience=0)


# Engines that hang.


@pytest.mark.parametrize("adapter", ["library", "cli"])
def test_a_request_is_answered_when_every_worker_is_stopped(pools, clips, adapter):
    pool = pools(engines=2, adapter=adapter)
    stopped = wait_for(lambda: len(pool.worker_pids()) == 2 and pool.worker_pids())
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    result = pool.transcribe(clips["en-05.wav"], ENGLISH)
    # The second worker was stopped, too, but the request did not meet it.
    assert (result.transcript.text, result.attempts) == ("kilo tango yankee", 2)
    assert not set(stopped) & set(wait_for(pool.worker_pids))
    assert (pool.stats()["hangs"], pool.stats()["crashes"]) == (1, 0)


def test_a_worker_that_stops_in_the_middle_is_replaced(pools, clips):
    pool = pools()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        os.kill(pool.worker_pids()[0], signal.SIGSTOP)
        assert request.result(PATIENCE).attempts == 2


def test_a_stopped_whisper_cli_is_noticed(pools, clips):
    pool = pools(adapter="cli")
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        [program] = wait_for(lambda: children(pool.worker_pids()[0]))
        os.kill(program, signal.SIGSTOP)
        assert request.result(PATIENCE).attempts == 2


def test_a_request_on_which_every_worker_hangs_is_given_up(pools, clips):
    pool = pools()
    stop = threading.Event()

    def stop_workers():
        while not stop.wait(0.02):
            for pid in pool.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)

    with in_background(stop_workers):
        try:
            with pytest.raises(EnginesHang):
                pool.transcribe(clips["long.wav"], ENGLISH)
        finally:
            stop.set()
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"


def test_a_window_may_not_compute_longer_than_its_limit(pools, clips, monkeypatch):
    monkeypatch.setattr("whisper_xeon.engine.pace._FIRST_S", -100.0)
    pool = pools()
    with pytest.raises(EnginesHang):
        pool.transcribe(clips["long.wav"], ENGLISH)
    assert pool.stats()["hangs"] == 3


def test_the_limit_of_a_window_follows_what_was_measured(clips):
    pace = Pace(whole=False)
    thorough = dataclasses.replace(ENGLISH, beam_size=5, temperature_increment=0.1)
    jobs = [Job(clips["en-05.wav"], options, None, 0, time.monotonic, None) for options in (ENGLISH, thorough)]
    before = [pace.limit(job) for job in jobs]
    pace.learn(jobs[0], windows=4, compute_s=8.0)
    plain, more = (pace.limit(job) for job in jobs)
    assert before[0] == before[1] > plain
    assert pace.window_s == 2
    assert more > 10 * plain > 100 * pace.window_s


@pytest.mark.parametrize(("step", "tries"), [(0.0, 1), (0.4, 3), (0.2, 6), (0.1, 11), (0.01, 11), (1.0, 2)])
def test_a_window_may_take_ten_times_as_long_for_each_try(clips, step, tries):
    pace = Pace(whole=False)
    options = dataclasses.replace(ENGLISH, temperature_increment=step)
    job = Job(clips["en-05.wav"], options, None, 0, time.monotonic, None)
    pace.learn(job, windows=1, compute_s=2.0)
    assert pace.limit(job) == pytest.approx(20 * tries + 0.1 * job.pcm.duration)


@pytest.mark.parametrize("whole", [False, True])
def test_clips_that_take_hardly_any_time_do_not_lower_the_limit_of_a_window(clips, whole):
    pace = Pace(whole=whole)
    job = Job(clips["en-05.wav"], ENGLISH, None, 0, time.monotonic, None)
    pace.learn(job, windows=0, compute_s=0.01, speech_s=0.0)
    assert pace.window_s is None
    pace.learn(job, windows=2, compute_s=8.0, speech_s=20.0)
    limit = pace.limit(job)
    for _ in range(20):
        pace.learn(job, windows=0, compute_s=0.01, speech_s=0.0)
        pace.learn(job, windows=2, compute_s=0.2, speech_s=1.0)
    assert (pace.window_s, pace.limit(job)) == (4.0, limit)


@pytest.mark.parametrize("adapter", ["library", "cli"])
def test_nothing_is_learnt_from_silence(pools, clips, adapter):
    pool = pools(adapter=adapter)
    pool.transcribe(clips["silence.wav"], ENGLISH)
    assert pool._runner._pace.window_s is None
    pool.transcribe(clips["en-05.wav"], ENGLISH)
    assert pool._runner._pace.window_s is not None


def test_idle_workers_that_are_stopped_are_found_out_when_somebody_asks(pools):
    pool = pools(engines=2)
    wait_for(lambda: len(pool.worker_pids()) == 2)
    assert pool.readiness() == "ready"
    for pid in pool.worker_pids():
        os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2)  # as long as an answer may be remembered
    assert (pool.state, pool.readiness()) == ("ready", "hanging")
    wait_for(lambda: pool.readiness() == "ready")


def test_a_pool_is_not_ready_while_its_busy_worker_is_stopped(pools, clips):
    pool = pools()
    pool.transcribe(clips["en-05.wav"], ENGLISH)
    time.sleep(0.2)
    [pid] = pool.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stat(pid)[0] == "T")  # on its way there it still uses its clock
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        assert pool.readiness() == "hanging" or pool.stats()["hangs"]
        assert request.result(PATIENCE).attempts == 2
    assert pool.readiness() == "ready"


def test_a_busy_pool_is_ready(pools, clips):
    pool = pools()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        assert (pool.readiness(), request.done()) == ("ready", False)


@pytest.mark.parametrize("adapter", ["library", "cli"])
def test_what_a_worker_computes_to_show_that_it_can_changes_nothing(pools, clips, adapter):
    pool = pools(adapter=adapter)
    options = DecodeOptions(word_timestamps=True)
    before = pool.transcribe(clips["en-05.wav"], options).transcript
    pool._state.doubt()
    assert pool.readiness() == "ready"
    # Where nothing was computed, nothing is proven: whisper-cli would load the model for it.
    assert (pool._state.progress_at > pool._state.doubt_at) == (adapter == "library")
    assert pool.transcribe(clips["en-05.wav"], options).transcript == before
    assert pool.stats()["restarts"] == 0


def test_a_stopped_zygote_and_its_workers_are_replaced(pools, clips):
    pool = pools()
    for pid in (zygote_of(pool), *pool.worker_pids()):
        os.kill(pid, signal.SIGSTOP)
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"
    assert pool.stats()["loads"] == 2


def test_workers_that_hang_while_they_start_are_told_of_and_replaced_less_and_less_often(pools, clips):
    pool = pools()
    zygote, begun = zygote_of(pool), time.monotonic()
    stop = threading.Event()

    def stop_workers():
        while not stop.wait(0.001):
            for pid in children(zygote):
                late = pid in pool.worker_pids()  # it could have been given a request: not again
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGSTOP)

    def stuck() -> list[int]:
        return [fields["pid"] for event, fields in pools.events if event == "engine worker hangs while it starts"]

    with in_background(stop_workers):
        try:
            wait_for(lambda: len(stuck()) >= 2)
            assert pool.stats()["hangs"] >= 2
            assert pool._supervisor._fork_at > begun
        finally:
            stop.set()
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"


def test_a_worker_that_takes_long_to_die_does_not_cost_the_zygote(pools, clips, monkeypatch):
    pool = pools(engines=2)
    wait_for(lambda: len(pool.worker_pids()) == 2)
    zygote = zygote_of(pool)
    workers = pool._workers
    doomed = workers.take()
    order = workers._order
    monkeypatch.setattr(workers, "_order", lambda message, fds=(): message["op"] == "kill" or order(message, fds))
    workers.kill(doomed)
    time.sleep(1.5)
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).attempts == 1
    assert zygote_of(pool) == zygote
    os.kill(doomed.pid, signal.SIGKILL)


def test_a_deadline_holds_in_the_queue_too(pools, clips):
    pool = pools()
    os.kill(pool.worker_pids()[0], signal.SIGSTOP)
    stop = threading.Event()
    with in_background(pool.transcribe, clips["en-05.wav"], ENGLISH, cancelled=stop.is_set):
        wait_for(lambda: pool.stats()["busy"])
        with pytest.raises(EngineTimeout):
            pool.transcribe(clips["en-05.wav"], ENGLISH, deadline=time.monotonic() + 0.2)
        assert pool.stats()["queued"] == 0
        stop.set()


def test_a_cancelled_request_frees_its_worker(pools, clips):
    pool = pools()
    [before] = pool.worker_pids()
    stop = threading.Event()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH, cancelled=stop.is_set) as request:
        wait_for(lambda: pool.stats()["busy"])
        stop.set()
        with pytest.raises(Cancelled):
            request.result(PATIENCE)
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"
    assert before not in pool.worker_pids()
    assert (pool.stats()["cancelled"], pool.stats()["crashes"]) == (1, 0)


def test_a_cancelled_request_leaves_the_queue(pools, clips):
    pool = pools(ready=False)
    with pytest.raises(Cancelled):
        pool.transcribe(clips["en-05.wav"], ENGLISH, cancelled=lambda: True)
    assert pool.stats()["queued"] == 0


def test_a_full_queue_says_when_to_come_back(pools, clips):
    pool = pools(queue=1)
    os.kill(pool.worker_pids()[0], signal.SIGSTOP)
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            threads.submit(pool.transcribe, clips["en-05.wav"], ENGLISH, cancelled=stop.is_set)
        wait_for(lambda: pool.stats()["busy"] == 1 and pool.stats()["queued"] == 1)
        with pytest.raises(QueueFull) as caught:
            pool.transcribe(clips["en-05.wav"], ENGLISH)
        stop.set()
    assert type(caught.value.retry_after) is int
    assert 1 <= caught.value.retry_after <= 600
    assert pool.stats()["rejected"] == 1


def test_without_a_queue_a_free_engine_still_takes_requests(pools, clips):
    assert pools(queue=0).transcribe(clips["en-05.wav"], ENGLISH).attempts == 1


# The end.


def test_stopping_lets_requests_finish(pools, clips):
    pool = pools()
    with in_background(pool.transcribe, clips["en-00.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        pool.stop(grace=PATIENCE)
        assert request.result().transcript.text == TEXTS["en-00.wav"]


def test_stopping_without_patience_ends_them(pools, clips):
    pool = pools()
    with in_background(pool.transcribe, clips["long.wav"], ENGLISH) as request:
        wait_for(lambda: pool.stats()["busy"])
        pool.stop(grace=0)
        with pytest.raises(EngineStopped, match="stopping"):
            request.result(PATIENCE)


def test_a_stopped_pool_has_no_process_and_takes_no_request(pools, clips):
    pool = pools(engines=2)
    pids = [zygote_of(pool), *pool.worker_pids()]
    pool.stop(grace=1)
    assert not any(stat(pid) for pid in pids)
    assert pool.state == "stopped"
    with pytest.raises(EngineStopped, match="stopping"):
        pool.transcribe(clips["en-05.wav"], ENGLISH)


def test_stopping_twice_and_while_loading_is_harmless(pools):
    pool = pools(ready=False)
    pool.stop(grace=1)
    pool.stop(grace=1)
    assert pool.state == "stopped"


def test_a_stopped_pool_leaves_no_descriptor_open(pools):
    before = fds()
    pools().stop(grace=0)
    assert fds() == before


def test_a_killed_front_leaves_no_process_behind(small_package):
    code = (
        "import json, sys, time\n"
        "from whisper_xeon.engine.pool import EnginePool\n"
        "from whisper_package.package import Package\n"
        "pool = EnginePool(Package(sys.argv[1]), engines=2, threads=1, queue=1)\n"
        "pool.start()\n"
        "while len(pool.worker_pids()) < 2: time.sleep(0.01)\n"
        "print(json.dumps(pool.worker_pids()), flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(small_package.directory)]
    environment = {**os.environ, "PYTHONPATH": str(APP)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as front:
        workers = json.loads(front.stdout.readline())
        pids = [int(stat(workers[0])[1]), *workers]
        os.kill(front.pid, signal.SIGKILL)
    wait_for(lambda: not any(stat(pid)[:1] not in ([], ["Z"]) for pid in pids))


def test_workers_share_the_weights(pools, clips, small_package):
    pool = pools(engines=2)
    pool.transcribe(clips["en-05.wav"], ENGLISH)
    weights = small_package.model_file.stat().st_size // 1024
    for pid in pool.worker_pids():
        sizes = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        assert int(sizes["Shared_Dirty:"]) > weights


def test_a_request_with_samples_that_are_not_there_harms_nobody(pools, clips):
    pool = pools()
    with PcmAudio(os.memfd_create("short"), 16000) as lie, pytest.raises(EngineCrashed):
        pool.transcribe(lie, ENGLISH)
    assert pool.transcribe(clips["en-05.wav"], ENGLISH).transcript.text == "kilo tango yankee"
