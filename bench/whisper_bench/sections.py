"""The sections of `make bench`: each measures every system that has the figure, in interleaved rounds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from whisper_bench import baselines, builds, synthetic_model
from whisper_bench.interleaved import OnDemand, interleaved
from whisper_bench.library import Engine
from whisper_bench.processes import HttpProcess, PeakMemory, Service
from whisper_bench.results import Results
from whisper_bench.systems import THREADS, Systems
from whisper_package.package import Package

CLIENTS = (8, 32)
WHOLE_WINDOW = "ours, audio_ctx full"
PLAIN = "upstream, AVX2"
ROOFLINE = "roofline"
MEMORY_ROUNDS = 3
MANY_THREADS = 8
WITH_MANY_THREADS = f", {MANY_THREADS} threads"
FILE_SECONDS = 600
SHORT_SECONDS = 3
PAUSE = 0.1


@dataclass
class Scale:
    """How much of everything is measured."""

    rounds: int = 5
    seconds: float = 12  # of each load
    pairs: int = 30  # of requests for the service's overhead
    file_seconds: int = FILE_SECONDS


QUICK = Scale(rounds=1, seconds=2, pairs=2, file_seconds=20)


def library(results: Results, model: str, systems: Systems, scale: Scale) -> None:
    """Encoder, token and clip of the libraries alone, each in one process for all rounds; and the roofline."""
    script = [sys.executable, "-m", "whisper_bench.library"]
    options = ["--threads", THREADS, "--on-demand", "--variant"]
    commands = {}
    for name, directory in (("ours", systems.ours), ("upstream", systems.upstream)):
        if directory:
            package = Package.find(directory, model)
            commands[name] = [*script, package.directory, *options, systems.best]
            if systems.vnni:
                commands[f"{name}, VNNI"] = [*script, package.directory, *options, systems.vnni]
            commands[f"{name}, AVX2"] = [*script, package.directory, *options, "baseline"]
    once = ()
    if model == "medium":
        # Where this project started, and what it is compared with; the rest takes minutes per round, and the small
        # model shows it.
        once = (PLAIN,)
        commands = {name: command for name, command in commands.items() if name in ("ours", *once)}
    if systems.faster_whisper:
        clip = Package.find(systems.ours, model).selftest_audio
        run = [baselines.python(), "-m", "whisper_bench.faster_whisper_run", "rounds", systems.faster_whisper, clip]
        commands["faster-whisper"] = [*run, "--threads", THREADS]
        if systems.vnni and model == "small":
            # Without AMX: CTranslate2 multiplies matrices with Intel's library.
            commands["faster-whisper, VNNI"] = ["env", "MKL_ENABLE_INSTRUCTIONS=AVX512_E1", *commands["faster-whisper"]]
    with contextlib.ExitStack() as stack:
        programs = {name: stack.enter_context(OnDemand(*command)) for name, command in commands.items()}
        # It needs the dimensions of a real model, and the baselines' venv, which has the libraries that it calls.
        with_roofline = systems.faster_whisper and model == "small"
        for name in interleaved([*programs, ROOFLINE] if with_roofline else list(programs), scale.rounds, once):
            if name == ROOFLINE:
                roofline(results, model)
                continue
            figures = programs[name].measure()
            results.note(f"variant of {name}", figures.pop("variant"))
            for figure, value in figures.items():
                results.add(f"{model}: {figure}", name, value)


def starters(model: str, systems: Systems) -> dict[str, Callable[[], HttpProcess]]:
    """Return what starts each system that answers requests."""
    threads = {"WHISPER_THREADS": str(THREADS)}
    model_file = Package.find(systems.ours, model).model_file
    found: dict[str, Callable[[], HttpProcess]] = {
        "ours": lambda: Service(systems.ours, model, **threads),
        WHOLE_WINDOW: lambda: Service(systems.ours, model, WHISPER_AUDIO_CTX="full", **threads),
        "whisper-cli": lambda: Service(systems.ours, model, WHISPER_ADAPTER="cli", **threads),
    }
    if systems.upstream:
        found[PLAIN] = lambda: Service(systems.upstream, model, WHISPER_CPU_VARIANT="baseline", **threads)
    if systems.server:
        found["whisper-server"] = lambda: baselines.WhisperServer(systems.server, model_file, THREADS)
    if systems.faster_whisper:
        found["faster-whisper"] = lambda: baselines.FasterWhisper(systems.faster_whisper, THREADS)
    return found


def requests(results: Results, model: str, systems: Systems, scale: Scale) -> None:
    """Start, first and later request of an 11 s clip, and clips per minute with many clients."""
    clip = Package.find(systems.ours, model).selftest_audio.read_bytes()
    start = starters(model, systems)
    for name in interleaved(list(start), scale.rounds):
        begun = time.perf_counter()
        with start[name]() as process:
            process.wait_ready()
            results.add(f"{model}: start", name, time.perf_counter() - begun)
            for figure in ("first", "later"):
                begun = time.perf_counter()
                text = process.text(clip)
                results.add(f"{model}: {figure}", name, time.perf_counter() - begun)
            results.add_text(model, name, text)
    for clients in CLIENTS:
        # One process per request behaves with 32 clients as it does with 8.
        left_out = (WHOLE_WINDOW, PLAIN) if clients == min(CLIENTS) else (WHOLE_WINDOW, PLAIN, "whisper-cli")
        for name in interleaved([name for name in start if name not in left_out], scale.rounds):
            with start[name]() as process:
                process.wait_ready()
                rate = clips_per_minute(process, clip, clients, scale.seconds)
            results.add(f"{model}: {clients} clients", name, rate)


def clips_per_minute(process: HttpProcess, clip: bytes, clients: int, seconds: float) -> float:
    """Let this many clients send one clip after the other; return the rate between the first answer and the last.

    It goes on until `seconds` have passed and there are four answers. Requests that are still being answered then are
    dropped with the process.
    """
    moments: list[float] = []
    enough = threading.Event()

    def client() -> None:
        with contextlib.suppress(OSError, SystemExit, ValueError):
            while not enough.is_set():
                process.text(clip)
                moments.append(time.perf_counter())

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(moments) < 4:
        if not any(thread.is_alive() for thread in threads):
            raise SystemExit(f"bench: {process.name} no longer answers any client")
        time.sleep(0.05)
    enough.set()
    process.kill()
    found = sorted(moments)
    return 60 * (len(found) - 1) / (found[-1] - found[0])


def behind(results: Results, model: str, systems: Systems, scale: Scale) -> None:
    """A clip of 3 s that arrives half a second after a file of 10 minutes."""
    start = starters(model, systems)
    start["ours, 2 engines"] = lambda: Service(systems.ours, model, WHISPER_ENGINES="2", WHISPER_THREADS="1")
    for name in ("whisper-cli", WHOLE_WINDOW, PLAIN):
        start.pop(name, None)
    long, short = builds.speech(scale.file_seconds), builds.speech(SHORT_SECONDS)
    # whisper-server takes minutes per round, and the result is always how long it takes for the file.
    for name in interleaved(list(start), scale.rounds, once=("whisper-server",)):
        with start[name]() as process:
            process.wait_ready()
            process.text(short)
            threading.Thread(target=send_quietly, args=(process, long), daemon=True).start()
            time.sleep(0.5)
            begun = time.perf_counter()
            process.text(short)
            results.add(f"{model}: behind", name, time.perf_counter() - begun)
            process.kill()


def send_quietly(process: HttpProcess, audio: bytes) -> None:
    """Send a request whose answer nobody waits for."""
    with contextlib.suppress(OSError, SystemExit, ValueError):
        process.text(audio)


def memory(results: Results, model: str, systems: Systems, scale: Scale) -> None:
    """Peak of the summed PSS while every engine computes a request."""
    clip = Package.find(systems.ours, model).selftest_audio.read_bytes()
    for engines in (1, 2, 4):
        start = memory_starters(model, systems, engines)
        # It takes by far the longest, and the memory of n processes is n times that of one.
        once = ("whisper-server",) if engines > 1 else ()
        for name in interleaved(list(start), min(scale.rounds, MEMORY_ROUNDS), once):
            with contextlib.ExitStack() as stack:
                processes = [stack.enter_context(process) for process in start[name]()]
                for process in processes:
                    process.wait_ready()
                    if isinstance(process, Service):
                        process.settled_memory()
                with contextlib.ExitStack() as sampling, ThreadPoolExecutor(engines) as clients:
                    peaks = [sampling.enter_context(PeakMemory(process.pid)) for process in processes]
                    answers = [
                        clients.submit(process.text, clip)
                        for process in processes
                        for _ in range(engines // len(processes))
                    ]
                    for answer in answers:
                        answer.result()
            row = f"{engines}{WITH_MANY_THREADS}" if name.endswith(WITH_MANY_THREADS) else str(engines)
            results.add(f"{model}: memory, {row}", name.removesuffix(WITH_MANY_THREADS), sum(peak.mb for peak in peaks))
    memory_per_thread(results, model)


def memory_starters(model: str, systems: Systems, engines: int) -> dict[str, Callable[[], list[HttpProcess]]]:
    """Return what starts each system with this many engines of one thread, and a single engine with many threads."""
    model_file = Package.find(systems.ours, model).model_file

    def service(directory: Path, threads: int = 1) -> Callable[[], list[HttpProcess]]:
        return lambda: [Service(directory, model, WHISPER_ENGINES=str(engines), WHISPER_THREADS=str(threads))]

    found = {"ours": service(systems.ours)}
    if systems.server:
        # It has one engine per process.
        found["whisper-server"] = lambda: [
            baselines.WhisperServer(systems.server, model_file, 1) for _ in range(engines)
        ]
    if systems.faster_whisper:
        found["faster-whisper"] = lambda: [baselines.FasterWhisper(systems.faster_whisper, 1, engines)]
    if engines == 1:
        found[f"ours{WITH_MANY_THREADS}"] = service(systems.ours, MANY_THREADS)
        if systems.upstream:
            found["upstream"] = service(systems.upstream)
            found[f"upstream{WITH_MANY_THREADS}"] = service(systems.upstream, MANY_THREADS)
    return found


def memory_per_thread(results: Results, model: str) -> None:
    """Add what each further thread takes, round by round, and how much more that is than upstream's."""
    grown = {}
    for name in ("ours", "upstream"):
        few, many = (results.figures(f"{model}: memory, {row}").get(name, ()) for row in ("1", f"1{WITH_MANY_THREADS}"))
        grown[name] = [(more - less) / (MANY_THREADS - 1) for less, more in zip(few, many)]
        for megabytes in grown[name]:
            results.add(f"{model}: memory per thread", name, megabytes)
    for ours, upstream in zip(grown["ours"], grown["upstream"]):
        results.add(f"{model}: memory per thread beyond upstream", "ours", ours - upstream)


def overhead(results: Results, systems: Systems, scale: Scale) -> None:
    """What the service adds to whisper_full, with the fixture's network, which computes in no time."""
    package = Package.find(systems.ours, "small")
    clip = package.selftest_audio.read_bytes()
    engine = Engine(package, THREADS)
    headers = {"Content-Type": "audio/wav"}
    with Service(systems.ours, "small", WHISPER_THREADS=str(THREADS)) as process:
        process.wait_ready()
        process.text(clip)
        engine.transcribe()
        for _ in range(scale.pairs):
            # A pause before each, in which caches go cold and cores go to sleep.
            time.sleep(PAUSE)
            begun = time.perf_counter()
            _, _, answered = process.request("POST", "/transcribe?language=en", clip, headers)
            seconds = time.perf_counter() - begun
            steps = dict(step.split(";dur=") for step in answered["Server-Timing"].split(", "))
            results.add("overhead: round trip less compute", "ours", 1e3 * seconds - float(steps["compute"]))
            results.add("overhead: decoding", "ours", float(steps["decode"]))
            results.add("overhead: waiting", "ours", float(steps["wait"]))
            time.sleep(PAUSE)
            results.add("overhead: round trip less whisper_full", "ours", 1e3 * (seconds - engine.transcribe()[0]))


def roofline(results: Results, model: str) -> None:
    """The matrix products and the memory bandwidth that no implementation can beat on this machine."""

    def run(*options: str, library_threads: int) -> dict[str, float]:
        command = [baselines.python(), "-m", "whisper_bench.roofline", model, "--threads", str(THREADS), *options]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(library_threads)}
        return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)

    products, reading = run(library_threads=THREADS), run("--read", library_threads=1)
    results.add(f"{model}: encode", f"{ROOFLINE}, float32 products", products["float32_seconds"])
    results.add(f"{model}: encode", f"{ROOFLINE}, int8 products", products["int8_seconds"])
    gigabytes = reading["gigabytes_per_second"]
    weights = synthetic_model.bytes_per_token(model, 6.0) / 1e9
    results.add(f"{model}: reading", f"{ROOFLINE}, reading the weights", gigabytes)
    results.add(f"{model}: token", f"{ROOFLINE}, reading the weights", 1e3 * weights / gigabytes)
