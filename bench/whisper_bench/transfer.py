"""How long a host takes to get a package from the store: the role's own step, and `mc cp` of the same files.

Both are tasks of one playbook (bench/transfer.yml), interleaved, and both include what Ansible adds to a task. Needs
the demo (`make demo`): its store and its first host, in containers on this machine. The package has true dimensions and
random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from whisper_bench import builds
from whisper_bench.locations import ROOT
from whisper_bench.provenance import origin

HOST = "whisper-xeon-demo-1"
STORE = "whisper-xeon-demo-minio"
CHANNEL = "bench-transfer"
TASKS = {"role": "Fetch the files from the store", "mc cp": "Fetch the files with mc"}


def run(*command: str, **environment: str) -> str:
    """Return what a command printed; if it fails, the measurement ends with its output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"transfer: {' '.join(command)} failed:\n{result.stdout}")
    return result.stdout


def publish(package: Path) -> None:
    """Sign the package with the demo's key and publish it to the demo's store under a channel of its own."""
    signs = {"name": "whisper.xeon.artifact_build", "tasks_from": "sign"}
    play = [
        {
            "hosts": "whisper_builder",
            "gather_facts": False,
            "tasks": [
                {"name": "Sign", "ansible.builtin.include_role": signs},
                {"name": "Publish", "ansible.builtin.include_role": {"name": "whisper.xeon.artifact_store"}},
            ],
            "vars": {
                "artifact_build_packages": [{"path": str(package)}],
                "artifact_store_packages": [str(package)],
                "artifact_store_channel": CHANNEL,
                "artifact_store_trusted_keys": "{{ whisper_service_trusted_keys }}",
            },
        }
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as playbook:
        json.dump(play, playbook)
        playbook.flush()
        run("ansible-playbook", "-i", "inventory/demo", playbook.name)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="medium", choices=["small", "medium"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    package = builds.true_size(arguments.model) / f"whisper_{arguments.model}_xeon"
    publish(package)
    with tempfile.TemporaryDirectory() as directory:
        run("docker", "cp", f"{STORE}:/bin/mc", f"{directory}/mc")
        run("docker", "cp", f"{directory}/mc", f"{HOST}:/root/mc")
    seconds: dict[str, list[float]] = {name: [] for name in TASKS}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        given = {"whisper_service_model": arguments.model, "artifact_store_channel": CHANNEL}
        output = run(
            *("ansible-playbook", "-i", "inventory/demo", "bench/transfer.yml", "--limit", HOST),
            *("--extra-vars", json.dumps(given)),
            ANSIBLE_CALLBACKS_ENABLED="ansible.posix.profile_tasks",
        )
        for name, task in TASKS.items():
            seconds[name].append(float(re.search(rf"{task} -+ ([0-9.]+)s", output).group(1)))
    run("docker", "exec", HOST, "rm", "/root/mc")
    megabytes = sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) / 1e6
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: {medians[name]:.2f} s (of {', '.join(f'{value:.2f}' for value in sorted(values))})")
    print(f"ratio {medians['role'] / medians['mc cp']:.2f} for {megabytes:.0f} MB; {origin()}")


if __name__ == "__main__":
    main()
