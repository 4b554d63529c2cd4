"""`make tune`: how many engines of how many threads serve best on this machine, as variables for Ansible.

Tries every way to share the cores that this process may use (affinity and control group; `taskset` or a CPU quota in
front shows it fewer), each with the real service: seconds of one request with nobody else there, and clips a minute
with two clients for each engine. Of those whose request takes at most `--patience` times as long as the fastest's, the
one with the most clips a minute is chosen. More engines also want more memory: `make memory`.

The variable is `machine_settings`, which inventory/example makes `whisper_service_settings` of; an inventory of another
kind has to do so too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import packages
from bench import Contestant, clips_a_minute
from service import origin

from whisper_package.package import Package
from whisper_xeon.engine.cores import available_cores

REQUESTS = 5
MAX_ENGINES = 64  # that WHISPER_ENGINES takes
HEADER = "# Written by bench/tune.py"


def candidates(cores: int) -> list[tuple[int, int]]:
    """Return (engines, threads): of each number of engines that cores suffice for, the one with the most threads."""
    ways = {cores // threads: threads for threads in range(1, cores + 1)}
    return [(engines, threads) for engines, threads in ways.items() if engines <= MAX_ENGINES]


def choose(measured: dict[tuple[int, int], tuple[float, float]], patience: float) -> tuple[int, int]:
    """Return the (engines, threads) with the most clips a minute whose request is not too slow.

    `measured` has (seconds of a request, clips a minute).
    """
    fastest = min(seconds for seconds, _ in measured.values())
    quick = [candidate for candidate, (seconds, _) in measured.items() if seconds <= patience * fastest]
    return max(quick, key=lambda candidate: measured[candidate][1])


def refusal(output: Path) -> str | None:
    """Return why the variables cannot be written to `output`; None where they can."""
    if not output.parent.is_dir():
        return f"--output {output}: there is no folder {output.parent}; make it first"
    if output.is_dir():
        return f"--output {output}: this is a folder; name a file in it"
    folder = output.parent.absolute()
    if folder.name in ("host_vars", "group_vars") and output.with_suffix("").is_dir():
        return f"--output {output}: Ansible reads the folder {output.with_suffix('')} instead; name a file in it"
    for file in (folder.with_name(f"{folder.name}{suffix}") for suffix in (".yml", ".yaml", ".json")):
        if folder.parent.name in ("host_vars", "group_vars") and file.exists():
            return (
                f"--output {output}: Ansible reads the folder {folder} instead of {file}; move that file in there first"
            )
    if output.exists() and not output.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        return f"--output {output}: this file was not written by tune.py and would be lost; name another"
    return None


def measure(package: Package, engines: int, threads: int, seconds: float) -> tuple[float, float]:
    """Return seconds of a request and clips a minute."""
    clip = package.selftest_audio.read_bytes()
    settings = {"WHISPER_ENGINES": str(engines), "WHISPER_THREADS": str(threads), "WHISPER_QUEUE": str(2 * engines)}
    with Contestant(package.directory.parent, package.model, **settings) as process:
        process.wait_ready()
        process.text(clip)
        alone = []
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            process.text(clip)
            alone.append(time.perf_counter() - begun)
        return statistics.median(alone), clips_a_minute(process, clip, 2 * engines, seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, nargs="?", help="folder with whisper_<model>_xeon/ (default: made up)")
    parser.add_argument("--model", default="small", help="default: small")
    parser.add_argument("--patience", type=float, default=2.0, help="default: 2")
    parser.add_argument("--seconds", type=float, default=30, help="of load for each way (default: 30)")
    parser.add_argument(
        "--output",
        type=Path,
        help="file for the variable machine_settings, which inventory/example and its copies read, such as "
        "inventory/local/host_vars/HOST/tuned.yml (what HOST.yml says then belongs into that folder too, which Ansible "
        "reads instead); without, it is only printed",
    )
    arguments = parser.parse_args()
    problem = refusal(arguments.output) if arguments.output else None
    if problem:
        raise SystemExit(f"tune: {problem}")
    package = Package.find(arguments.packages or packages.true_size(arguments.model), arguments.model)
    measured = {}
    for engines, threads in candidates(available_cores()):
        measured[engines, threads] = seconds, rate = measure(package, engines, threads, arguments.seconds)
        print(f"{engines} engines, {threads} threads: {seconds:.2f} s, {rate:.1f} clips a minute", file=sys.stderr)
    engines, threads = choose(measured, arguments.patience)
    text = f"{HEADER}: {package.model}; {origin()}\nmachine_settings:\n"
    text += f"  WHISPER_ENGINES: {engines}\n  WHISPER_THREADS: {threads}\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
