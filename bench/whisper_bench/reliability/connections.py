"""One caller with more connections than there are slots, which come back as soon as they are cut."""

from __future__ import annotations

import collections
import contextlib
import resource
import select
import socket
import time

from whisper_bench.processes import Service
from whisper_bench.reliability import Row
from whisper_bench.reliability.callers import ATTACKERS, ask, attacking, packages

CONNECTIONS = 600
TITLE = (
    f"{CONNECTIONS} connections of one address that reconnect for 40 s, each of three kinds (without a byte, half a "
    "head, half an upload that drips): probes of another address, one per second"
)
GOAL = "40 of 40 answered, of each kind"
TODAY = "1 of 40"
SECONDS = 120.0

# What each connection sends at first, and what it sends every second.
KINDS = {
    "connect": (b"", b""),
    "head": (b"POST /transcribe HTTP/1.1\r\nHost: a\r\nX: ", b""),
    "body": (
        b"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Type: audio/wav\r\nContent-Length: 900000\r\n\r\n"
        + b"a" * 200,
        b"a" * 2300,
    ),
}


def measure(seconds: float) -> Row:
    """Count the probes that get 200, a third of the time for each kind."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    number = round(seconds / len(KINDS))
    found = {}
    for kind in KINDS:
        with Service(packages(), "small") as service:
            service.wait_ready()
            with attacking(attack, service.port, kind):
                time.sleep(2)
                found[kind] = probes(service.port, number)
    answered = {kind: answers[200] for kind, answers in found.items()}
    return Row(
        ", ".join(f"{kind} {answers} of {number}" for kind, answers in answered.items()),
        all(answers == number for answers in answered.values()),
        "; ".join(f"{kind}: {dict(answers)}" for kind, answers in found.items() if answers[200] != number),
    )


def probes(port: int, number: int) -> collections.Counter[int | str]:
    """Return what `GET /readyz` of another address is answered, once per second."""
    answers: collections.Counter[int | str] = collections.Counter()
    for _ in range(number):
        begun = time.monotonic()
        answers[ask(port, "GET", "/readyz")] += 1
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
    return answers


def attack(port: int, kind: str, address: str = ATTACKERS[0], connections: int = CONNECTIONS) -> None:
    """Keep so many connections open, for ever."""
    at_first, every_second = KINDS[kind]
    poll = select.epoll()
    open_ones: dict[int, socket.socket] = {}
    drip_at = time.monotonic() + 1
    while True:
        while len(open_ones) < connections:
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 5, source_address=(address, 0))
                sock.sendall(at_first)
                open_ones[sock.fileno()] = sock
                poll.register(sock.fileno(), select.EPOLLIN | select.EPOLLHUP)
        for fd, _ in poll.poll(0.05):
            open_ones.pop(fd).close()
        if every_second and time.monotonic() > drip_at:
            drip_at = time.monotonic() + 1
            for sock in open_ones.values():
                with contextlib.suppress(OSError):
                    sock.sendall(every_second)
