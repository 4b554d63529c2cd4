"""`make bench`: how fast this is, beside what else people run, on one machine in one run.

Every figure is measured in rounds in which the contestants take turns, so that whatever the machine does meanwhile
meets all of them; a ratio is the median of the ratios within each round, where both took part in all. Sections can be
measured one at a time (`--section`): what was measured before is kept in results.json. Run it on a machine that does
nothing else.

RESULTS.md, results.json and plots/ are written beside this file; `--quick` writes elsewhere and only tries everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import packages
import report
import rivals
import synthetic_model
from library import Engine
from results import Results
from service import HttpProcess, PeakMemory, Service, duration

from whisper_package.package import Package
from whisper_package.variants import choose_variant, cpu_flags

HERE = Path(__file__).resolve().parent
THREADS = 2
VNNI = "cascadelake"
CLIENTS = (8, 32)
SHORTER = "ours, audio_ctx auto"
PLAIN = "upstream, AVX2"
FLOOR = "floor"
MEMORY_ROUNDS = 3
MANY_THREADS = 8
OF_MANY = f", {MANY_THREADS} threads"
FILE_SECONDS = 600
SHORT_SECONDS = 3
PAUSE = 0.1


@dataclass
class Places:
    """Where the contestants lie."""

    ours: Path  # folder with whisper_<model>_xeon/, patched
    best: str  # name of the CPU variant that this processor takes
    vnni: str | None = None  # of the one for VNNI alone, where that is another
    upstream: Path | None = None  # the same without patches
    server: Path | None = None  # whisper-server with the upstream libraries
    faster_whisper: Path | None = None

    @classmethod
    def of(cls, model: str, size: Callable[..., Path]) -> Places:
        """Build what is missing; `size` is `packages.fixture` or `packages.true_size`."""
        ours, upstream = size(model), size(model, patches=[])
        package = Package.find(upstream, model)
        best, vnni = variants(package)
        server = rivals.whisper_server(package, upstream.parent / "context", best)
        converted = rivals.faster_whisper_model(model) if size is packages.true_size else None
        return cls(ours, best, vnni, upstream, server, converted)

    @classmethod
    def alone(cls, ours: Path, model: str) -> Places:
        """Measure a package that is there, without rivals."""
        return cls(ours, *variants(Package.find(ours, model)))


def variants(package: Package) -> tuple[str, str | None]:
    """Return the CPU variant that this processor takes, and the one for VNNI alone where it has more than that."""
    best = choose_variant(package, cpu_flags()).name
    knows_vnni = "avx512_vnni" in cpu_flags()
    return best, VNNI if knows_vnni and best != VNNI else None


@dataclass
class Scale:
    """How much of everything is measured."""

    rounds: int = 5
    seconds: float = 12  # of each load
    pairs: int = 30  # of requests for the service's overhead
    file_seconds: int = FILE_SECONDS


QUICK = Scale(rounds=1, seconds=2, pairs=2, file_seconds=20)


class Contestant(Service):
    """The service, as the rivals are asked."""

    def text(self, audio: bytes) -> str:
        """Return what it hears."""
        status, answer = self.transcribe(audio, "language=en")
        if status != 200:
            raise SystemExit(f"the service answered {status}: {answer.decode()}")
        return json.loads(answer)["text"]


class OnDemand:
    """A program that measures one round for each line it gets."""

    def __init__(self, *command: str | Path):
        # Each with its own settings: library.py loads libraries as the service does, which has OpenMP wait passively.
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> OnDemand:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def measure(self) -> dict[str, Any]:
        """Return the figures of one round."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: {self._process.args[1]} ended with status {self._process.wait()}")
        return json.loads(line)


def turns(contestants: list[str], rounds: int, once: Collection[str] = ()) -> Iterator[str]:
    """Yield each contestant once a round, those of `once` in the first only; every other round goes backwards."""
    for number in range(rounds):
        for name in contestants if number % 2 == 0 else reversed(contestants):
            if number and name in once:
                continue
            print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            yield name


def library(results: Results, model: str, places: Places, scale: Scale) -> None:
    """Encode, token and clip of the libraries alone, each in one process that stays for all rounds; and the floor."""
    script = [sys.executable, HERE / "library.py"]
    options = ["--threads", THREADS, "--on-demand", "--variant"]
    commands = {}
    for name, folder in (("ours", places.ours), ("upstream", places.upstream)):
        if folder:
            package = Package.find(folder, model)
            commands[name] = [*script, package.directory, *options, places.best]
            if places.vnni:
                commands[f"{name}, VNNI"] = [*script, package.directory, *options, places.vnni]
            commands[f"{name}, AVX2"] = [*script, package.directory, *options, "baseline"]
    once = ()
    if model == "medium":
        # Where this project started, and what it is compared with; the rest takes minutes a round, and the small model
        # shows it.
        once = (PLAIN,)
        commands = {name: command for name, command in commands.items() if name in ("ours", *once)}
    if places.faster_whisper:
        clip = Package.find(places.ours, model).selftest_audio
        run = [rivals.python(), HERE / "faster_whisper_run.py", "rounds", places.faster_whisper, clip]
        commands["faster-whisper"] = [*run, "--threads", THREADS]
        if places.vnni and model == "small":
            # Intel's library for matrix products, which CTranslate2 calls, then leaves AMX alone.
            commands["faster-whisper, VNNI"] = ["env", "MKL_ENABLE_INSTRUCTIONS=AVX512_E1", *commands["faster-whisper"]]
    with contextlib.ExitStack() as stack:
        programs = {name: stack.enter_context(OnDemand(*command)) for name, command in commands.items()}
        # With weights of true dimensions, and the venv of the rivals, which has what it is measured with.
        with_floor = places.faster_whisper and model == "small"
        for name in turns([*programs, FLOOR] if with_floor else list(programs), scale.rounds, once):
            if name == FLOOR:
                floor(results, model)
                continue
            figures = programs[name].measure()
            results.note(f"variant of {name}", figures.pop("variant"))
            for figure, value in figures.items():
                results.add(f"{model}: {figure}", name, value)


def starters(model: str, places: Places) -> dict[str, Callable[[], HttpProcess]]:
    """Return what starts each contestant that answers requests."""
    threads = {"WHISPER_THREADS": str(THREADS)}
    model_file = Package.find(places.ours, model).model_file
    found: dict[str, Callable[[], HttpProcess]] = {
        "ours": lambda: Contestant(places.ours, model, **threads),
        SHORTER: lambda: Contestant(places.ours, model, WHISPER_AUDIO_CTX="auto", **threads),
        "whisper-cli": lambda: Contestant(places.ours, model, WHISPER_ADAPTER="cli", **threads),
    }
    if places.upstream:
        found[PLAIN] = lambda: Contestant(places.upstream, model, WHISPER_CPU_VARIANT="baseline", **threads)
    if places.server:
        found["whisper-server"] = lambda: rivals.WhisperServer(places.server, model_file, THREADS)
    if places.faster_whisper:
        found["faster-whisper"] = lambda: rivals.FasterWhisper(places.faster_whisper, THREADS)
    return found


def requests(results: Results, model: str, places: Places, scale: Scale) -> None:
    """Start, first and later request of an 11 s clip, and clips a minute with many clients."""
    clip = Package.find(places.ours, model).selftest_audio.read_bytes()
    start = starters(model, places)
    for name in turns(list(start), scale.rounds):
        begun = time.perf_counter()
        with start[name]() as process:
            process.wait_ready()
            results.add(f"{model}: start", name, time.perf_counter() - begun)
            for figure in ("first", "later"):
                begun = time.perf_counter()
                text = process.text(clip)
                results.add(f"{model}: {figure}", name, time.perf_counter() - begun)
            results.heard(model, name, text)
    for clients in CLIENTS:
        # A process a request has no more to show with 32 than with 8.
        left_out = (SHORTER, PLAIN) if clients == min(CLIENTS) else (SHORTER, PLAIN, "whisper-cli")
        taking_part = [name for name in start if name not in left_out]
        for name in turns(taking_part, scale.rounds):
            with start[name]() as process:
                process.wait_ready()
                rate = clips_a_minute(process, clip, clients, scale.seconds)
            results.add(f"{model}: {clients} clients", name, rate)


def clips_a_minute(process: HttpProcess, clip: bytes, clients: int, seconds: float) -> float:
    """Let so many clients send one clip after the other; return the rate between the first answer and the last.

    It goes on until `seconds` have passed and there are four answers. What is still being answered then is dropped
    with the process.
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
            raise SystemExit("bench: the contestant answers no client any more")
        time.sleep(0.05)
    enough.set()
    process.kill()
    found = sorted(moments)
    return 60 * (len(found) - 1) / (found[-1] - found[0])


def behind(results: Results, model: str, places: Places, scale: Scale) -> None:
    """A clip of 3 s that comes half a second after a file of 10 minutes."""
    start = starters(model, places)
    start["ours, 2 engines"] = lambda: Contestant(places.ours, model, WHISPER_ENGINES="2", WHISPER_THREADS="1")
    for name in ("whisper-cli", SHORTER, PLAIN):
        start.pop(name, None)
    long, short = packages.speech(scale.file_seconds), packages.speech(SHORT_SECONDS)
    # whisper-server takes minutes a round, and it can only be as long as the file takes.
    for name in turns(list(start), scale.rounds, once=("whisper-server",)):
        with start[name]() as process:
            process.wait_ready()
            process.text(short)
            threading.Thread(target=quietly, args=(process, long), daemon=True).start()
            time.sleep(0.5)
            begun = time.perf_counter()
            process.text(short)
            results.add(f"{model}: behind", name, time.perf_counter() - begun)
            process.kill()


def quietly(process: HttpProcess, audio: bytes) -> None:
    """Send a request whose answer nobody waits for."""
    with contextlib.suppress(OSError, SystemExit, ValueError):
        process.text(audio)


def memory(results: Results, model: str, places: Places, scale: Scale) -> None:
    """Peak of the summed PSS while as many requests are computed as there are engines."""
    clip = Package.find(places.ours, model).selftest_audio.read_bytes()
    for engines in (1, 2, 4):
        start = memory_starters(model, places, engines)
        # It takes longest by far, and n of it take n times what one does.
        once = ("whisper-server",) if engines > 1 else ()
        for name in turns(list(start), min(scale.rounds, MEMORY_ROUNDS), once):
            with contextlib.ExitStack() as stack:
                processes = [stack.enter_context(process) for process in start[name]()]
                for process in processes:
                    process.wait_ready()
                    if isinstance(process, Contestant):
                        process.settled_memory()
                with contextlib.ExitStack() as sampling, ThreadPoolExecutor(engines) as clients:
                    peaks = [sampling.enter_context(PeakMemory(process.pid)) for process in processes]
                    asked = [
                        clients.submit(process.text, clip)
                        for process in processes
                        for _ in range(engines // len(processes))
                    ]
                    for answer in asked:
                        answer.result()
            row = f"{engines}{OF_MANY}" if name.endswith(OF_MANY) else str(engines)
            results.add(f"{model}: memory, {row}", name.removesuffix(OF_MANY), sum(peak.mb for peak in peaks))
    memory_of_a_thread(results, model)


def memory_starters(model: str, places: Places, engines: int) -> dict[str, Callable[[], list[HttpProcess]]]:
    """Return what starts each contestant with so many engines of one thread; a single engine also of many threads."""
    model_file = Package.find(places.ours, model).model_file

    def service(folder: Path, threads: int = 1) -> Callable[[], list[HttpProcess]]:
        return lambda: [Contestant(folder, model, WHISPER_ENGINES=str(engines), WHISPER_THREADS=str(threads))]

    found = {"ours": service(places.ours)}
    if places.server:
        # It has one engine a process.
        found["whisper-server"] = lambda: [rivals.WhisperServer(places.server, model_file, 1) for _ in range(engines)]
    if places.faster_whisper:
        found["faster-whisper"] = lambda: [rivals.FasterWhisper(places.faster_whisper, 1, engines)]
    if engines == 1:
        found[f"ours{OF_MANY}"] = service(places.ours, MANY_THREADS)
        if places.upstream:
            found["upstream"] = service(places.upstream)
            found[f"upstream{OF_MANY}"] = service(places.upstream, MANY_THREADS)
    return found


def memory_of_a_thread(results: Results, model: str) -> None:
    """Add what each thread more takes, round by round, and how much of it upstream's does not."""
    grown = {}
    for name in ("ours", "upstream"):
        few, many = (results.figures(f"{model}: memory, {row}").get(name, ()) for row in ("1", f"1{OF_MANY}"))
        grown[name] = [(more - less) / (MANY_THREADS - 1) for less, more in zip(few, many)]
        for megabytes in grown[name]:
            results.add(f"{model}: memory, a thread", name, megabytes)
    for ours, upstream in zip(grown["ours"], grown["upstream"]):
        results.add(f"{model}: memory, a thread beyond upstream", "ours", ours - upstream)


def overhead(results: Results, places: Places, scale: Scale) -> None:
    """What the service adds to whisper_full, with the fixture's network, whose computing is short."""
    package = Package.find(places.ours, "small")
    clip = package.selftest_audio.read_bytes()
    engine = Engine(package, THREADS)
    headers = {"Content-Type": "audio/wav"}
    with Contestant(places.ours, "small", WHISPER_THREADS=str(THREADS)) as process:
        process.wait_ready()
        process.text(clip)
        engine.transcribe()
        for _ in range(scale.pairs):
            # Both are asked after a pause, in which caches cool and cores fall asleep.
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


def floor(results: Results, model: str) -> None:
    """The matrix products and the reading of memory that nothing can be faster than."""

    def run(*options: str, library_threads: int) -> dict[str, float]:
        command = [rivals.python(), HERE / "floor.py", model, "--threads", str(THREADS), *options]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(library_threads)}
        return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)

    products, reading = run(library_threads=THREADS), run("--read", library_threads=1)
    results.add(f"{model}: encode", "float32 products alone", products["float32_seconds"])
    results.add(f"{model}: encode", "int8 products alone", products["int8_seconds"])
    gigabytes = reading["gigabytes_per_second"]
    weights = synthetic_model.bytes_a_token(model, 6.0) / 1e9
    results.add(f"{model}: reading", "reading the weights alone", gigabytes)
    results.add(f"{model}: token", "reading the weights alone", 1e3 * weights / gigabytes)


SECTIONS = ("library", "medium", "requests", "behind", "memory", "overhead")


def main() -> None:
    """Command line."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this; may be given several times")
    parser.add_argument("--quick", action="store_true", help="one short round of all but medium, on the fixture")
    parser.add_argument(
        "--fixture", type=Path, metavar="DIR", help="with --quick: folder with whisper_small_xeon/, and no rivals"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds of everything (default: {Scale.rounds})")
    parser.add_argument(
        "--output", type=Path, help="folder for the results (default: this file's; with --quick, .build)"
    )
    arguments = parser.parse_args()
    packages.FOLDER.mkdir(parents=True, exist_ok=True)
    output = arguments.output or (packages.FOLDER / "quick" if arguments.quick else HERE)
    scale = QUICK if arguments.quick else Scale()
    scale.rounds = arguments.rounds or scale.rounds
    sections = [name for name in arguments.section or SECTIONS if name != "medium" or not arguments.quick]
    size = packages.fixture if arguments.quick else packages.true_size
    results = Results(output / "results.json", SECTIONS)
    print("building what is missing", file=sys.stderr, flush=True)
    places = Places.alone(arguments.fixture, "small") if arguments.fixture else Places.of("small", size)
    medium = Places.of("medium", size) if "medium" in sections else None
    tiny = places
    if "overhead" in sections and not arguments.quick:
        tiny = Places.alone(packages.fixture("small"), "small")
    built = time.monotonic()
    for section in sections:
        print(section, file=sys.stderr, flush=True)
        results.begin(section)
        if section == "library":
            library(results, "small", places, scale)
        elif section == "medium":
            library(results, "medium", medium, scale)
        elif section == "requests":
            requests(results, "small", places, scale)
        elif section == "behind":
            behind(results, "small", places, scale)
        elif section == "memory":
            memory(results, "small", places, scale)
        elif section == "overhead":
            overhead(results, tiny, scale)
        results.save()
    report.write(results, output)
    ended = time.monotonic()
    print(f"bench.py took {duration(ended - begun)}, {duration(built - begun)} of them to build", file=sys.stderr)


if __name__ == "__main__":
    main()
