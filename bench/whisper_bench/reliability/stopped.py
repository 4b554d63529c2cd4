"""A request, and the question whether the service is ready, while every worker is stopped."""

from __future__ import annotations

import os
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from whisper_bench.processes import Service
from whisper_bench.reliability import Row, engines

TITLE = "every worker stopped (SIGSTOP), 2 engines with `base`: seconds until the answer, and `/readyz` meanwhile"
GOAL = "answered or 503 within 3 windows' time, not ready meanwhile"
TODAY = '504 after 600 s, "ready"'

MODEL = "base"
ROUNDS = 5
REMEMBERED_S = 0.2  # longer than /readyz may remember what it found


def measure(seconds: float) -> Row:
    """Stop the workers several times; `seconds` does not matter."""
    audio = engines.CLIP.read_bytes()
    windows, answers, statuses, ready_statuses = [], [], [], []
    with Service(engines.packages(MODEL), MODEL, WHISPER_ENGINES="2", WHISPER_THREADS="1") as service:
        service.wait_ready()
        for _ in range(ROUNDS):
            begun = time.monotonic()
            expected = service.text(audio)
            windows.append(time.monotonic() - begun)
        for _ in range(ROUNDS):
            while len(engines.workers(service)) < service.engines:
                time.sleep(0.05)
            time.sleep(REMEMBERED_S)
            for pid in engines.workers(service):
                os.kill(pid, signal.SIGSTOP)
            with ThreadPoolExecutor(1) as thread:
                begun = time.monotonic()
                asked = thread.submit(service.transcribe, audio, "language=en&response_format=text")
                ready_statuses.append(service.request("GET", "/readyz")[0])
                status, body = asked.result()
                answers.append(time.monotonic() - begun)
            statuses.append(status if status != 200 or body.decode().strip() == expected.strip() else 0)
            while service.request("GET", "/readyz")[0] != 200:
                time.sleep(0.05)
    window, slowest = statistics.median(windows), max(answers)
    met = set(statuses) <= {200, 503} and slowest <= 3 * window and set(ready_statuses) == {503}
    return Row(
        f"{slowest:.2f} s at most, {slowest / window:.1f} windows; answers {sorted(set(statuses))}, "
        f"`/readyz` {sorted(set(ready_statuses))}",
        met,
        f"a window takes {window:.2f} s; {ROUNDS} rounds",
    )
