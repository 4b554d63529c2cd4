"""What the modules of the service share: the lock of a run, serials, questions to systemd, fetching without a proxy."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

# Names the run that changes the host (module whisper_service_lock); its modification time is its last sign of life.
LOCK = Path("/run/whisper-xeon-deploy.json")


def wait_for_others(deployments: Path) -> None:
    """Wait until no module of a run that died is working on the deployments, and keep others out from now on.

    Ansible's workers outlive their run until their module is done. The lock ends with this process.
    """
    fcntl.flock(os.open(deployments, os.O_RDONLY), fcntl.LOCK_EX)


def serials_file(root: Path) -> Path:
    """Return the file in which a host notes the newest signature that it confirmed of each model and channel."""
    return root / "serials.json"


def read_serials(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return channel -> model -> serial, key and release_id. The channel of a release that was named is empty.

    Raises ValueError if the file was altered.
    """
    path = serials_file(root)
    try:
        noted = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        noted = None
    try:
        entries = [entry for models in noted.values() for entry in models.values()]
        valid = all(isinstance(entry[name], str) for entry in entries for name in ("serial", "key", "release_id"))
    except (AttributeError, TypeError, KeyError):
        valid = False
    if not valid:
        raise ValueError(f"{path} was altered: compare what this host serves with what you published, then remove it")
    return noted


def show_unit(unit: str, *properties: str) -> str:
    """Return properties of a unit, as lines NAME=VALUE."""
    return subprocess.run(
        ["systemctl", "show", f"--property={','.join(properties)}", unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout


def direct_opener() -> urllib.request.OpenerDirector:
    """Return an opener that uses no proxy, whatever the environment says."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def store_of(url: str) -> str:
    """Return the store that a signed URL leads to, without path and signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
