"""What the modules have in common: the lock of a run, how they ask systemd, and how they fetch without a proxy."""

from __future__ import annotations

import fcntl
import os
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

# Who changes the host (module whisper_service_lock); its time of modification is the last sign of life of that run.
LOCK = Path("/run/whisper-xeon-deploy.json")


def wait_for_others(deployments: Path) -> None:
    """Wait until no module of a run that died is at work on the deployments, and keep others out from now on.

    Ansible's workers outlive their run until their module is done. The lock goes with this process.
    """
    fcntl.flock(os.open(deployments, os.O_RDONLY), fcntl.LOCK_EX)


def show_unit(unit: str, *properties: str) -> str:
    """Return what systemd knows of a unit, as lines NAME=VALUE."""
    return subprocess.run(
        ["systemctl", "show", f"--property={','.join(properties)}", unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout


def direct_opener() -> urllib.request.OpenerDirector:
    """Return an opener that asks no proxy, whatever the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def store_of(url: str) -> str:
    """Return the store that a signed address leads to, without path and signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
