"""Uploads that fill the memory for all of them and then stop, or go on as slowly as is allowed."""

from __future__ import annotations

import collections
import contextlib
import socket
import time

from whisper_bench.processes import Service
from whisper_bench.reliability import Row
from whisper_bench.reliability.callers import ATTACKERS, attacking, packages, transcribe

UPLOADS = 46
MEBIBYTES = 22
TITLE = (
    f"{UPLOADS} uploads of {MEBIBYTES} MiB of one address that stall (and then that drip), in a spool of 1 GiB: a 3 s "
    "WAV of others, one per second"
)
GOAL = "all served"
TODAY = "503 for 416 s"
SECONDS = 60.0


def measure(seconds: float) -> Row:
    """Count the answers of others, half of the time for each kind."""
    found = {}
    for kind, drip in (("stall", b""), ("drip", b"a" * 1100)):
        with Service(packages(), "small", WHISPER_SPOOL_MB="1024") as service:
            service.wait_ready()
            with attacking(attack, service.port, drip):
                time.sleep(5)
                found[kind] = served(service.port, round(seconds / 2))
    return Row(
        "; ".join(f"{kind}: {answers[200]} of {answers.total()}" for kind, answers in found.items()),
        all(answers[200] == answers.total() for answers in found.values()),
        "; ".join(f"{kind}: {dict(answers)}" for kind, answers in found.items() if len(answers) > 1),
    )


def served(port: int, number: int) -> collections.Counter[int | str]:
    """Return what others are answered, once per second."""
    answers: collections.Counter[int | str] = collections.Counter()
    for _ in range(number):
        begun = time.monotonic()
        answers[transcribe(port)[0]] += 1
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
    return answers


def attack(port: int, drip: bytes) -> None:
    """Keep so many uploads open, for ever: most of their bytes at once, and then `drip` every second."""
    head = b"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n\r\n"
    size = MEBIBYTES << 20
    uploads: list[socket.socket] = []
    while True:
        while len(uploads) < UPLOADS:
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 5, source_address=(ATTACKERS[0], 0))
                uploads.append(sock)
                sock.sendall(head % size + bytes(size - (1 << 16)))
        time.sleep(1)
        for sock in list(uploads):
            try:
                sock.sendall(drip)
                if sock.recv(1, socket.MSG_DONTWAIT):
                    raise ConnectionAbortedError
            except BlockingIOError:
                continue
            except OSError:
                uploads.remove(sock)
                sock.close()
