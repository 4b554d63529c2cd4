"""`make tune`: how many engines with how many threads serve best on this machine, as variables for Ansible.

Tries every way to share the cores that this process may use (affinity and control group; run it under `taskset` or a
CPU quota to use fewer), each with the real service: seconds of one request without any other load, and clips per minute
with two clients per engine. Of those whose request takes at most `--patience` times as long as the fastest, the one
with the most clips per minute is chosen. More engines also need more memory: `make memory`.

The variable is `machine_settings`, from which inventory/example makes `whisper_service_settings`; any other inventory
must do so too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from whisper_bench import builds
from whisper_bench.processes import Service
from whisper_bench.provenance import origin
from whisper_bench.sections import clips_per_minute
from whisper_package.package import Package
from whisper_xeon.engine.cores import available_cores

REQUESTS = 5
MAX_ENGINES = 64  # the most that WHISPER_ENGINES accepts
HEADER = "# Written by make tune"
HEADERS = (HEADER, "# Written by bench/tune.py")  # also of files from before it was a package


def candidates(cores: int) -> list[tuple[int, int]]:
    """Return (engines, threads): each possible number of engines with the most threads that the cores allow."""
    ways = {cores // threads: threads for threads in range(1, cores + 1)}
    return [(engines, threads) for engines, threads in ways.items() if engines <= MAX_ENGINES]


def choose(measured: dict[tuple[int, int], tuple[float, float]], patience: float) -> tuple[int, int]:
    """Return the (engines, threads) with the most clips per minute whose request is not too slow.

    `measured` has (seconds of a request, clips per minute).
    """
    fastest = min(seconds for seconds, _ in measured.values())
    quick = [candidate for candidate, (seconds, _) in measured.items() if seconds <= patience * fastest]
    return max(quick, key=lambda candidate: measured[candidate][1])


def problem_with(output: Path) -> str | None:
    """Return why the variables cannot be written to `output`; None if they can."""
    if not output.parent.is_dir():
        return f"--output {output}: the directory {output.parent} does not exist; create it first"
    if output.is_dir():
        return f"--output {output}: this is a directory; name a file in it"
    directory = output.parent.absolute()
    if directory.name in ("host_vars", "group_vars") and output.with_suffix("").is_dir():
        return f"--output {output}: Ansible reads the directory {output.with_suffix('')} instead; name a file in it"
    for file in (directory.with_name(f"{directory.name}{suffix}") for suffix in (".yml", ".yaml", ".json")):
        if directory.parent.name in ("host_vars", "group_vars") and file.exists():
            return (
                f"--output {output}: Ansible would read the directory {directory} instead of {file}; "
                "move that file into it first"
            )
    if output.exists() and not output.read_text(encoding="utf-8", errors="replace").startswith(HEADERS):
        return f"--output {output}: make tune did not write this file and would overwrite it; name another one"
    return None


def measure(package: Package, engines: int, threads: int, seconds: float) -> tuple[float, float]:
    """Return seconds of a request and clips per minute."""
    clip = package.selftest_audio.read_bytes()
    settings = {"WHISPER_ENGINES": str(engines), "WHISPER_THREADS": str(threads), "WHISPER_QUEUE": str(2 * engines)}
    with Service(package.directory.parent, package.model, **settings) as process:
        process.wait_ready()
        process.text(clip)
        alone = []
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            process.text(clip)
            alone.append(time.perf_counter() - begun)
        return statistics.median(alone), clips_per_minute(process, clip, 2 * engines, seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "packages", type=Path, nargs="?", help="directory with whisper_<model>_xeon/ (default: random weights)"
    )
    parser.add_argument("--model", default="small", help="default: small")
    parser.add_argument("--patience", type=float, default=2.0, help="default: 2")
    parser.add_argument("--seconds", type=float, default=30, help="of load for each candidate (default: 30)")
    parser.add_argument(
        "--output",
        type=Path,
        help="file for the variable machine_settings, which inventory/example and its copies read, such as "
        "inventory/local/host_vars/HOST/tuned.yml (move HOST.yml into that directory, which Ansible reads instead of "
        "it); by default it is only printed",
    )
    arguments = parser.parse_args()
    problem = problem_with(arguments.output) if arguments.output else None
    if problem:
        raise SystemExit(f"tune: {problem}")
    package = Package.find(arguments.packages or builds.true_size(arguments.model), arguments.model)
    measured = {}
    for engines, threads in candidates(available_cores()):
        measured[engines, threads] = seconds, rate = measure(package, engines, threads, arguments.seconds)
        print(f"{engines} engines, {threads} threads: {seconds:.2f} s, {rate:.1f} clips per minute", file=sys.stderr)
    engines, threads = choose(measured, arguments.patience)
    text = f"{HEADER}: {package.model}; {origin()}\nmachine_settings:\n"
    text += f"  WHISPER_ENGINES: {engines}\n  WHISPER_THREADS: {threads}\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
