"""Mixed requests for a long time: whether memory, descriptors or times grow."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from whisper_bench.memory import LONGEST_SECONDS, mixed_requests
from whisper_bench.processes import Service, descendants
from whisper_bench.reliability import Row, engines

MODEL = "base"
TITLE = "30 min of mixed requests to `base`, 2 engines, 4 clients: memory, descriptors, 99th percentile of the times"
GOAL = "memory drifts by less than 2 %, descriptors stay, 99th percentile grows by less than 10 %"
TODAY = "memory +1.7 % (fixture)"
SECONDS = 1800

CLIENTS = 4
WARM_SHARE = 0.2  # of the time: until then every engine has seen every request
IDLE_S = 2.0  # before memory is measured: between requests all of it should be free again


def measure(seconds: float) -> Row:
    """Compare the second tenth of the time with the last one."""
    samples = mixed_requests()
    order = itertools.count()
    times: list[tuple[float, int, float]] = []  # when it was sent, which request it was, how long it took
    wrong: list[str] = []
    pause, ended = threading.Event(), threading.Event()
    limit = {"WHISPER_MAX_AUDIO_SECONDS": str(LONGEST_SECONDS)}
    with Service(engines.packages(MODEL), MODEL, WHISPER_ENGINES="2", WHISPER_THREADS="1", **limit) as service:
        service.wait_ready()

        def ask() -> None:
            while not ended.is_set():
                if pause.is_set():
                    time.sleep(0.05)
                    continue
                number = next(order) % len(samples)
                sample, begun = samples[number], time.monotonic()
                status, _ = service.transcribe(sample.body, sample.query, sample.content_type, sample.path)
                times.append((begun, number, time.monotonic() - begun))
                if status != sample.status:
                    wrong.append(f"{status} instead of {sample.status}")

        def at_rest() -> tuple[float, int]:
            pause.set()
            time.sleep(IDLE_S)
            found = service.settled_memory(), sum(map(_descriptors, (service.pid, *descendants(service.pid))))
            pause.clear()
            return found

        begun = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            asking = [clients.submit(ask) for _ in range(CLIENTS)]
            time.sleep(seconds * WARM_SHARE)
            memory, descriptors = at_rest()
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
            memory_then, descriptors_then = at_rest()
            ended.set()
            for client in asking:
                client.result()
    half = begun + seconds * (1 + WARM_SHARE) / 2
    warm = [(at, took) for at, _, took in times if at >= begun + seconds * WARM_SHARE]
    before = _percentile([took for at, took in warm if at < half])
    after = _percentile([took for at, took in warm if at >= half])
    drift, growth = memory_then / memory - 1, after / before - 1
    median = statistics.median(took for _, took in warm)
    met = not wrong and abs(drift) < 0.02 and descriptors_then <= descriptors and growth < 0.1 and seconds >= SECONDS
    return Row(
        f"memory {drift:+.1%} ({memory_then:.0f} MB), descriptors {descriptors} and {descriptors_then}, "
        f"99th percentile {growth:+.1%} ({after:.2f} s)",
        met,
        f"{len(times)} requests in {seconds:.0f} s, {len(wrong)} wrong answers; median {median:.2f} s",
    )


def _percentile(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
