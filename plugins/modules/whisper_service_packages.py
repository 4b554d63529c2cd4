"""Ansible module: remove the Debian packages that the role installed, with what only they needed, and nothing else.

Packages that another one needs by now stay. So do those that were superfluous before: the role did not install them.
`apt-get autoremove`, and the apt module with it, would remove these too.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: whisper_service_packages
short_description: Remove the Debian packages that the role installed
description:
  - Removes those that no other package needs by now, with what was installed for them only.
options:
  record:
    type: path
    required: true
    description: File with one package per line; it need not exist. What was removed is taken out of it.
  among: {type: list, elements: str, required: true, description: "Packages that the role installs. Others stay."}
"""

RETURN = r"""
removed: {description: Packages that were removed, type: list}
"""

LOCK_WAIT = "--option=DPkg::Lock::Timeout=300"


class PackageManagerError(Exception):
    """What apt-get could not do."""


def run(*command: str) -> str:
    """Return what a command printed. Raises `PackageManagerError`."""
    result = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        raise PackageManagerError(f"{' '.join(command[:2])} failed: {lines[-1]}")
    return result.stdout


def superfluous() -> set[str]:
    """Return the packages that were installed with others and that none needs any more."""
    return set(re.findall(r"^Remv (\S+)", run("apt-get", "--simulate", "autoremove"), re.MULTILINE))


def remove(packages: list[str]) -> list[str]:
    """Remove those of `packages` that no other needs, and what was installed with them; return what was removed.

    Raises `PackageManagerError`; then everything is as it was, including what apt regards as installed by hand.
    """
    manual = run("apt-mark", "showmanual", *packages).split()
    before = superfluous()
    if manual:
        run("apt-mark", "auto", *manual)
    try:
        names = superfluous() - before | (before & set(packages))
        if not names:
            return []
        purge = ("purge", "--yes", "--quiet", "--option=APT::Get::AutomaticRemove=false", *sorted(names))
        going = set(re.findall(r"^(?:Remv|Purg) (\S+)", run("apt-get", "--simulate", *purge), re.MULTILINE))
        if going - names:
            raise PackageManagerError(f"apt-get would also remove {', '.join(sorted(going - names))}")
        run("apt-get", LOCK_WAIT, *purge)
    except PackageManagerError:
        if manual:
            run("apt-mark", "manual", *manual)
        raise
    return sorted(names)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "record": {"type": "path", "required": True},
            "among": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    record = Path(module.params["record"])
    lines = record.read_text("utf-8", "replace").split() if record.is_file() else []
    # Whatever else a file of this name lists was not installed by the role.
    packages = [line for line in lines if line in module.params["among"]]
    if module.check_mode or not packages:
        module.exit_json(changed=bool(packages), removed=[])
    try:
        names = remove(packages)
        others = [line for line in lines if line not in packages]
        if others:
            record.write_text("".join(f"{line}\n" for line in others), "utf-8")
        else:
            record.unlink()
    except PackageManagerError as error:
        module.fail_json(msg=f"{error}; remove {' '.join(packages)} by hand, or fix apt-get and run this again")
    except OSError as error:
        module.fail_json(msg=f"{record}: {error.strerror}")
    module.exit_json(changed=bool(names), removed=names)


if __name__ == "__main__":
    main()
