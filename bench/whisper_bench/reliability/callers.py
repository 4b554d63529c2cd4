"""What the rows about callers have in common: each caller is another address of the loopback."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from whisper_bench import builds
from whisper_bench.locations import RECORDINGS

ATTACKERS = tuple(f"127.0.0.{number}" for number in range(2, 6))
CLIP = (RECORDINGS / "en-00.wav").read_bytes()  # 3 s, 16 kHz
_FORK = multiprocessing.get_context("fork")


def packages() -> Path:
    """Return the directory that holds the package of `small`: the one that WHISPER_BENCH_DIST names, or a build."""
    given = os.environ.get("WHISPER_BENCH_DIST")
    return Path(given).resolve() if given else builds.fixture("small")


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    kind: str = "",
    caller: str = "",
    seconds: float = 5,
) -> int | str:
    """Return the status of an answer, or the name of what went wrong, of a caller (an address) with some patience."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds, source_address=(caller, 0))
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__


def transcribe(port: int, audio: bytes = CLIP, *, kind: str = "audio/wav", caller: str = "", seconds: float = 60):
    """Return the status of the answer and the seconds until it."""
    begun = time.monotonic()
    status = ask(port, "POST", "/transcribe", audio, kind=kind, caller=caller, seconds=seconds)
    return status, time.monotonic() - begun


@contextlib.contextmanager
def attacking(attack: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run an attack in a process of its own, as long as the block takes."""
    process = _FORK.Process(target=attack, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()
