"""Requests while a worker is killed again and again."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from whisper_bench.processes import Service
from whisper_bench.reliability import Row, engines

TITLE = "a worker killed every 300 ms, 16 clients, 60 s, 2 engines with the tests' tiny network: requests lost"
GOAL = "0"
TODAY = "26 of 749 are 500"

CLIENTS = 16
EVERY_S = 0.3


def measure(seconds: float) -> Row:
    """Count the answers by status."""
    statuses: collections.Counter[int] = collections.Counter()
    kills = 0
    audio = engines.CLIP.read_bytes()
    ended = threading.Event()
    with Service(
        engines.packages(engines.FIXTURE), engines.FIXTURE, WHISPER_ENGINES="2", WHISPER_THREADS="1"
    ) as service:
        service.wait_ready()
        expected = service.text(audio)

        def ask() -> None:
            while not ended.is_set():
                status, body = service.transcribe(audio, "language=en&response_format=text")
                statuses[status if status != 200 or body.decode().strip() == expected.strip() else 0] += 1

        with ThreadPoolExecutor(CLIENTS) as clients:
            asking = [clients.submit(ask) for _ in range(CLIENTS)]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(EVERY_S)
                with contextlib.suppress(IndexError, ProcessLookupError):  # between two workers
                    os.kill(engines.workers(service)[kills % 2], signal.SIGKILL)
                    kills += 1
            ended.set()
            for client in asking:
                client.result()
    total = statuses.total()
    lost = total - statuses[200]
    others = {status: count for status, count in statuses.items() if status != 200}
    return Row(f"{lost} of {total}", lost == 0 and total > 0, f"{kills} kills; other answers: {others or 'none'}")
