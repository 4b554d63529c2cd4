"""Action plugin: hold the lock of a host for this run of Ansible, waiting while another run has it."""

from __future__ import annotations

import getpass
import os
import platform
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

POLL_S = 3
_DISPLAY = Display()


def machine() -> str:
    """Identify this boot of this machine, or of this container: process IDs are unique only within it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty if it does not exist or is dead but not reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def this_run() -> dict[str, Any]:
    """Describe the run of Ansible that this process, one of its workers, belongs to."""
    pid = os.getppid()
    return {
        "user": getpass.getuser(),
        "node": platform.node(),
        "pid": pid,
        "started": started(pid),
        "machine": machine(),
    }


def is_dead(holder: dict[str, Any]) -> bool:
    """Return whether a run is certainly over: one of this machine whose process is gone."""
    return holder["machine"] == machine() and started(holder["pid"]) != holder["started"]


class ActionModule(ActionBase):
    """Adds `wait` (seconds) and `take_over` (bool) to the module's options; on failure it names the holder."""

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict[str, Any]:
        """Return the module's result once the lock is held, or freed."""
        super().run(tmp, task_vars)
        options = dict(self._task.args)
        deadline = time.monotonic() + int(options.pop("wait", 0))
        asked_to_take_over = options.pop("take_over", False)
        options["owner"] = this_run()
        host, announced = (task_vars or {})["inventory_hostname"], False
        while True:
            if os.getppid() != options["owner"]["pid"]:
                return {"failed": True, "msg": "this run was killed while it waited"}
            result = self._execute_module("whisper.xeon.whisper_service_lock", module_args=options, task_vars=task_vars)
            if options.get("state") == "renewed" and not result.get("held"):
                result.update(
                    failed=True, msg=f"another run took over the lock of {host}: this run changes nothing more there"
                )
            if result.get("failed") or "holder" not in result:
                return result
            holder = result["holder"]
            if asked_to_take_over or is_dead(holder):
                options["take_over"] = holder
                continue
            who = (
                f"{holder['user']} on {holder['node']} (process {holder['pid']}) has been changing {host} since "
                f"{time.strftime('%H:%M:%S', time.localtime(result['since']))}"
            )
            left = deadline - time.monotonic()
            if left <= 0:
                minutes = round((int(options["lapse"]) - result["silent"]) / 60)
                result.update(
                    failed=True,
                    msg=f"{who}; this run changed nothing there. Try again when that one is over. If it died, its lock "
                    f"lapses in {minutes} minutes; -e whisper_service_lock_take_over=true takes it over at once",
                )
                return result
            if not announced:
                _DISPLAY.display(f"{who}: waiting for up to {round(left)} s")
                announced = True
            time.sleep(min(POLL_S, left))
