"""Switching models while clients ask: nobody is refused, no request fails, and every answer is right."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator

import pytest

from host_container import Host
from paths import ROOT

CLIENTS = 8
PAUSE_S = 1.0
SWITCHES = 50


class Load:
    """Clients that send recordings to one host until they are told to stop."""

    def __init__(self, host: Host, recordings: list[dict]):
        """`recordings` are such as every model transcribes word for word."""
        self._host = host
        self._stopped = threading.Event()
        self._bodies = [(entry["path"].read_bytes(), entry["text"]) for entry in recordings]
        self.failures: list[str] = []
        self.models: set[str] = set()
        self.waits: list[float] = []
        self._clients = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        for client in self._clients:
            client.join()

    def _ask(self, number: int) -> None:
        for body, text in itertools.islice(itertools.cycle(self._bodies), number, None):
            if self._stopped.wait(PAUSE_S):
                return
            start = time.monotonic()
            try:
                answer = self._host.request("POST", "/transcribe", body, {"Content-Type": "audio/wav"})
                if answer["text"] != text:
                    self.failures.append(f"{answer['text']!r} instead of {text!r}")
                self.models.add(answer["model"])
            except (OSError, http.client.HTTPException, AssertionError, json.JSONDecodeError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.waits.append(time.monotonic() - start)


@pytest.fixture
def load(small, exact_recordings, record_property) -> Iterator[Load]:
    """The clients of the small host, asking while the test runs; the summary of the run shows their longest wait."""
    shortest = sorted(exact_recordings, key=lambda entry: entry["seconds"])[:4]
    with Load(small, shortest) as running:
        yield running
    record_property("clients", f"{len(running.waits)} requests of {CLIENTS}, longest wait {max(running.waits):.1f} s")


def test_three_deploys_of_another_model_and_fifty_switches_fail_no_request(hosts, small, deploy, load):
    for model in ("medium", "small", "medium"):
        deploy("-e", f"model={model}")
    assert load.failures == []
    assert load.models == {"small", "medium"}
    load.models.clear()
    there = [small.link(name) for name in ("previous", "current")]
    play = hosts.play(
        str(ROOT / "tests" / "playbooks" / "switches.yml"),
        "--limit",
        small.name,
        "-e",
        json.dumps({"switches": list(itertools.islice(itertools.cycle(there), SWITCHES))}),
    )
    assert play.output.count("Switch the link to the deployment") == SWITCHES
    assert load.failures == []
    assert load.models == {"small", "medium"}
