"""Ansible module: tell whether a host can run a package. It changes nothing and names every problem at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: whisper_host_check
short_description: Tell whether a host can run a package
options:
  root: {type: path, required: true, description: Folder of the service; it need not exist.}
  variants: {type: list, elements: dict, required: true, description: CPU variants of the package with their cpu_flags.}
  minimum: {type: dict, required: true, description: glibc and glibcxx that the package needs.}
  disk_mb: {type: int, required: true, description: Free space that the package needs below O(root).}
  memory_mb: {type: int, required: true, description: Free memory that the model needs.}
  packages: {type: list, elements: str, default: [], description: Debian packages to look for.}
"""

RETURN = r"""
problems: {description: "One sentence each, with what to do; empty when the host is fit", type: list}
packages_missing: {description: Those of the packages that are not installed, type: list}
"""

LIBSTDCXX = ("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/lib64/libstdc++.so.6")


def cpu_flags() -> set[str]:
    """Return the flags of the first processor, named as in /proc/cpuinfo."""
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text("ascii", "replace"), re.MULTILINE)
    return set(found.group(1).split()) if found else set()


def glibcxx_version() -> str:
    """Return the newest GLIBCXX version that libstdc++ defines; empty without the library."""
    for path in map(Path, LIBSTDCXX):
        if path.exists():
            versions = re.findall(rb"GLIBCXX_(\d+(?:\.\d+)+)\0", path.read_bytes())
            return max((version.decode() for version in versions), key=_numbers, default="")
    return ""


def disk_free_mb(folder: Path) -> int:
    """Return the free space of the file system that holds `folder` or would hold it."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def memory_available_mb() -> int:
    """Return what new processes can take without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    return int(found.group(1)) >> 10 if found else 0


def packages_missing(packages: list[str]) -> list[str]:
    """Return the packages that dpkg does not know as installed."""
    if not packages:
        return []
    query = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def processor_problems(flags: set[str], variants: list[dict]) -> list[str]:
    """Return the problem of a processor that no variant of the package supports, if it is one."""
    lacking = [sorted(set(variant["cpu_flags"]) - flags) for variant in variants]
    if not all(lacking):
        return []
    return [f"the processor lacks {', '.join(min(lacking, key=len))}: this package needs a newer one"]


def library_problems(name: str, present: str, needed: str) -> list[str]:
    """Return the problem of a library older than needed, if it is one."""
    if present and _numbers(present) >= _numbers(needed):
        return []
    return [f"{name} is {present or 'missing'}, the package needs {needed}: use a newer Debian"]


def space_problems(what: str, free_mb: int, needed_mb: int) -> list[str]:
    """Return the problem of too little disk or memory, if it is one."""
    return [] if free_mb >= needed_mb else [f"{what} has {free_mb} MB free, {needed_mb} MB are needed: make room"]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "variants": {"type": "list", "elements": "dict", "required": True},
            "minimum": {"type": "dict", "required": True},
            "disk_mb": {"type": "int", "required": True},
            "memory_mb": {"type": "int", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    root = Path(wanted["root"])
    problems = [
        *processor_problems(cpu_flags(), wanted["variants"]),
        *library_problems("glibc", os.confstr("CS_GNU_LIBC_VERSION").split()[-1], wanted["minimum"]["glibc"]),
        *library_problems("GLIBCXX of libstdc++", glibcxx_version(), wanted["minimum"]["glibcxx"]),
        *space_problems(f"the disk of {root}", disk_free_mb(root), wanted["disk_mb"]),
        *space_problems("the memory", memory_available_mb(), wanted["memory_mb"]),
    ]
    module.exit_json(changed=False, problems=problems, packages_missing=packages_missing(wanted["packages"]))


if __name__ == "__main__":
    main()
