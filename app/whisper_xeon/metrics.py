"""The service's metrics in Prometheus' text format, version 0.0.4. Knows nothing about HTTP.

Labels have a fixed set of values: nothing that a client chooses (paths, file names, languages) becomes one.
"""

from __future__ import annotations

import bisect
import collections
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

from whisper_xeon.footprint import Footprint

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper bounds of the histograms' buckets in seconds: from a short clip on a fast host to the longest request allowed.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

# The kernel walks every page of every process to tell it: about 17 ms per GB of each process (4 KiB pages).
_MEMORY_AGE_S = 10.0

# (suffix of the name, labels, value)
Sample = tuple[str, Mapping[str, str], float]


class Metrics:
    """What the service counts about its requests. All methods may be called from any thread."""

    def __init__(self, routes: Iterable[str], *, info: Mapping[str, str], started_at: float):
        """`routes` are the values of the label `route`; `info` the labels of `whisper_info`; `started_at` in seconds
        since 1970."""
        self._info = dict(info)
        self._started_at = started_at
        self._lock = threading.Lock()
        # From the start on, so that the first success is seen as an increase.
        self._routes = frozenset(routes)
        self._requests = collections.Counter({(route, 200): 0 for route in self._routes})
        self._audio_seconds = 0.0
        self._speech_seconds = 0.0
        self._decoded_again = 0
        self._request_seconds = _Histogram()
        self._wait_seconds = _Histogram()

    def answered(self, route: str | None, status: int) -> None:
        """Count a request; routes that were not given are ignored."""
        if route in self._routes:
            with self._lock:
                self._requests[route, status] += 1

    def transcribed(
        self, *, audio_s: float, speech_s: float | None, wait_s: float, total_s: float, again: bool
    ) -> None:
        """Record a transcript: seconds of audio, of the wait for an engine, and from the upload's end to the text.

        `speech_s` are the seconds of speech in the audio, None where nothing looked for it; `again` tells whether a
        short clip was decoded again with all of its window.
        """
        with self._lock:
            self._decoded_again += again
            self._audio_seconds += audio_s
            self._speech_seconds += audio_s if speech_s is None else speech_s
            self._wait_seconds.observe(wait_s)
            self._request_seconds.observe(total_s)

    def render(self, stats: Mapping[str, Any], *, ready_at: float | None, memory: int | None) -> bytes:
        """Return the whole page: `stats` of the pool, time of the model's load (seconds since 1970), memory in bytes.

        Values that are None are left out.
        """
        return "".join(self._lines(stats, ready_at, memory)).encode()

    def _lines(self, stats: Mapping[str, Any], ready_at: float | None, memory: int | None) -> Iterator[str]:
        with self._lock:
            requests: list[Sample] = [
                ("", {"route": r, "status": str(s)}, n) for (r, s), n in sorted(self._requests.items())
            ]
            audio_seconds, speech_seconds = self._audio_seconds, self._speech_seconds
            decoded_again = self._decoded_again
            request_seconds, wait_seconds = self._request_seconds.samples(), self._wait_seconds.samples()
        info = {**self._info, "cpu_variant": stats["cpu_variant"] or ""}
        families: tuple[tuple[str, str, str, list[Sample]], ...] = (
            (
                "requests_total",
                "counter",
                "Requests by status of the answer; 499: the client left before it.",
                requests,
            ),
            ("audio_seconds_total", "counter", "Seconds of audio transcribed.", _one(audio_seconds)),
            (
                "speech_seconds_total",
                "counter",
                "Seconds of speech in that audio; all of it where voice detection is off.",
                _one(speech_seconds),
            ),
            (
                "decoded_again_total",
                "counter",
                "Requests with a short clip that was decoded again with all of its window.",
                _one(decoded_again),
            ),
            (
                "request_seconds",
                "histogram",
                "Seconds from the end of an upload to its transcript: decoding, waiting, computing.",
                request_seconds,
            ),
            ("wait_seconds", "histogram", "Seconds that transcribed requests waited for an engine.", wait_seconds),
            ("queue_waiting", "gauge", "Requests waiting for an engine.", _one(stats["queued"])),
            ("engines", "gauge", "Engines running, busy or idle.", _one(stats["idle"] + stats["busy"])),
            ("engines_busy", "gauge", "Engines computing a request.", _one(stats["busy"])),
            (
                "engine_restarts_total",
                "counter",
                "Engines replaced because they crashed or hung, or their client left.",
                _one(stats["restarts"]),
            ),
            (
                "start_time_seconds",
                "gauge",
                "Start time of the service, in seconds since 1970.",
                _one(self._started_at),
            ),
            (
                "ready_timestamp_seconds",
                "gauge",
                "Time of the last load of the model, in seconds since 1970.",
                _one(ready_at),
            ),
            (
                "memory_bytes",
                "gauge",
                f"Memory of all processes of the service (PSS), measured at most {_MEMORY_AGE_S:g} s ago.",
                _one(memory),
            ),
            ("info", "gauge", "Versions and model that are running.", [("", info, 1)]),
        )
        for name, kind, text, samples in families:
            yield from _family("whisper_" + name, kind, text, samples)


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)  # of each bucket alone; the last one has no upper bound
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def samples(self) -> list[Sample]:
        samples: list[Sample] = []
        total = 0
        for limit, count in zip((*map(_number, SECONDS), "+Inf"), self._counts):
            total += count
            samples.append(("_bucket", {"le": limit}, total))
        return [*samples, ("_sum", {}, self._sum), ("_count", {}, total)]


class Memory:
    """Memory of a set of processes, with each shared page counted once, as the kernel does."""

    def __init__(self, processes: Callable[[], Iterable[Footprint]]):
        """`processes` returns what to measure; those that have ended are ignored."""
        self._processes = processes
        self._lock = threading.Lock()
        self._read_at = -_MEMORY_AGE_S
        self._bytes: int | None = None

    def read(self) -> int | None:
        """Return the bytes of all processes; None where the kernel does not tell.

        At most `_MEMORY_AGE_S` old. A call during a measurement returns the last value.
        """
        if self._lock.acquire(blocking=self._bytes is None):
            try:
                if time.monotonic() - self._read_at >= _MEMORY_AGE_S:
                    sizes = [size for each in self._processes() if (size := each.read()) is not None]
                    self._bytes = sum(sizes) if sizes else None
                    self._read_at = time.monotonic()
            finally:
                self._lock.release()
        return self._bytes


def _one(value: float | None) -> list[Sample]:
    return [] if value is None else [("", {}, value)]


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {_escape(text)}\n# TYPE {name} {kind}\n"
    for suffix, labels, value in samples:
        inner = ",".join(f'{label}="{_escape_label(given)}"' for label, given in labels.items())
        yield f"{name}{suffix}{{{inner}}} {_number(value)}\n" if inner else f"{name}{suffix} {_number(value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape(text).replace('"', '\\"')
