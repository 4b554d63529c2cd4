"""Ansible module: report what a host serves, as the service itself and systemd say. It changes nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import (
    read_serials,
    show_unit,
)

DOCUMENTATION = r"""
module: whisper_service_status
short_description: Report what a host serves
description:
  - Asks systemd and the service itself, and can wait until the service is ready.
options:
  root: {type: path, required: true, description: Directory of the service.}
  unit: {type: str, required: true, description: The service's unit.}
  wait: {type: int, default: 0, description: Seconds to wait if the service does not serve yet.}
"""

RETURN = r"""
status:
  description: >-
    state (serving, not deployed, or what is wrong), model, release_id, signed (the date of its newest signature that
    this host confirmed), signed_days (its age), cpu_variant, ready_at, memory_mb, requests and errors (transcriptions
    answered since the start, and those answered with 5xx); what is unknown is left
    out
  type: dict
"""

TIMEOUT_S = 10
POLL_S = 0.5
REQUESTS = re.compile(r'^whisper_requests_total\{[^}]*status="(\d+)"[^}]*\} ([0-9.e+]+)', re.MULTILINE)


def get(url: str) -> str:
    """Return the body of an answer of the service, whatever its status. Raises OSError."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        # It is this host's own service, asked by its address, and certificates have names.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        # By a name that every WHISPER_ALLOWED_HOSTS allows.
        connection.request("GET", parts.path, headers={"Host": "localhost"})
        return connection.getresponse().read().decode("utf-8")


def signed(root: Path, model: str, release_id: str) -> dict:
    """Return date and age in days of the newest signature of a release that this host confirmed, if there is one."""
    try:
        entries = [models[model] for models in read_serials(root).values() if model in models]
        newest = max(entry["serial"] for entry in entries if entry["release_id"] == release_id)
        moment = datetime.strptime(newest, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return {}
    return {"signed": f"{moment:%Y-%m-%d}", "signed_days": (datetime.now(timezone.utc) - moment).days}


def status_of(root: Path, unit: str) -> dict:
    """Return the module's `status`."""
    try:
        deployment = json.loads((root / "current" / "deployment.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {"state": "not deployed"}
    except (OSError, ValueError):
        return {"state": f"{root / 'current' / 'deployment.json'} cannot be read: deploy again"}
    shown = show_unit(unit, "ActiveState", "SubState", "MemoryCurrent").splitlines()
    systemd = dict(line.split("=", 1) for line in shown if "=" in line)
    status = {"model": deployment["model"], "release_id": deployment["release_id"]}
    status.update(signed(root, deployment["model"], deployment["release_id"]))
    if systemd.get("MemoryCurrent", "").isdigit():
        status["memory_mb"] = round(int(systemd["MemoryCurrent"]) / 1e6)
    active = systemd.get("ActiveState", "unknown")
    if active != "active":
        return {**status, "state": f"{active} ({systemd.get('SubState', '')})"}
    try:
        ready = json.loads(get(f"{deployment['url']}/readyz"))
        version = json.loads(get(f"{deployment['url']}/version"))
        counted = REQUESTS.findall(get(f"{deployment['url']}/metrics"))
        status.update({name: version[name] for name in ("model", "release_id", "cpu_variant", "ready_at")})
        serves = ready["status"] == "ready"
    except OSError as error:
        return {**status, "state": f"does not answer: {getattr(error, 'reason', error)}"}
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        return {**status, "state": f"does not answer as whisper-xeon at {deployment['url']}"}
    status["requests"] = sum(int(float(count)) for _, count in counted)
    status["errors"] = sum(int(float(count)) for code, count in counted if code.startswith("5"))
    return {**status, "state": "serving" if serves else ready.get("reason", "not ready")}


def awaited_status(root: Path, unit: str, seconds: float) -> dict:
    """Return the status as soon as the service serves or has failed for good, or after that many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        status = status_of(root, unit)
        if status["state"] == "serving" or status["state"].startswith("failed") or time.monotonic() >= deadline:
            return status
        time.sleep(POLL_S)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "unit": {"type": "str", "required": True},
            "wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    module.exit_json(changed=False, status=awaited_status(Path(wanted["root"]), wanted["unit"], wanted["wait"]))


if __name__ == "__main__":
    main()
