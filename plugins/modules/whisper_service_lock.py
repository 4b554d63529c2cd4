"""Ansible module: the lock with which one run at a time changes a host. The action plugin of this name waits for it.

The lock is a file in /run that names its holder, so a restart of the host frees it too. Its modification time is the
holder's last sign of life. A run that died cannot free its lock: the action plugin recognizes a dead process of its own
machine, any other lock lapses.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import TextIO

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import LOCK

DOCUMENTATION = r"""
module: whisper_service_lock
short_description: Hold the lock of a host, so that one run at a time changes it
description:
  - The action plugin of this name adds C(owner), waits while another run holds the lock and names that run.
options:
  owner: {type: dict, required: true, description: The run that asks; equal content means the same run.}
  state:
    type: str
    default: held
    choices: [held, renewed, free]
    description: C(held) takes the lock, C(renewed) gives a sign of life if the caller holds it, C(free) frees it.
  lapse: {type: int, required: true, description: Seconds after the last sign of life until the lock lapses.}
  take_over: {type: dict, description: Take the lock from this holder.}
"""

RETURN = r"""
held: {description: The caller holds the lock, type: bool}
holder: {description: The run that holds it if it is another one, type: dict}
since: {description: "When that run took the lock, in seconds since 1970", type: float}
silent: {description: Seconds since its last sign of life, type: float}
"""


def locked_file() -> TextIO:
    """Open the lock and keep other modules out until it is closed."""
    while True:
        file = os.fdopen(os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(LOCK.stat(), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass
        file.close()  # it was removed between opening and locking


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "dict", "required": True},
            "state": {"type": "str", "default": "held", "choices": ["held", "renewed", "free"]},
            "lapse": {"type": "int", "required": True},
            "take_over": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    if module.check_mode:
        module.exit_json(changed=False, held=True)
    now = time.time()
    with locked_file() as file:
        try:
            content = json.load(file)
        except ValueError:
            content = {}
        holder = content.get("owner")
        mine = holder == wanted["owner"]
        silent = max(0.0, now - os.fstat(file.fileno()).st_mtime)
        if wanted["state"] == "free" or (wanted["state"] == "renewed" and not mine):
            if mine or not holder:
                LOCK.unlink()
            module.exit_json(changed=False, held=False)
        if holder and not mine and silent < wanted["lapse"] and holder != wanted["take_over"]:
            module.exit_json(changed=False, held=False, holder=holder, since=content["since"], silent=silent)
        content = {"owner": wanted["owner"], "since": content["since"] if mine else now}
        file.seek(0)
        file.truncate()
        json.dump(content, file)
    module.exit_json(changed=False, held=True)


if __name__ == "__main__":
    main()
