"""How many processor cores this process may use; the machine's count means nothing inside a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Default limit on the threads of an engine: a choice, since more than two cores were not measured.
MAX_THREADS = 8
_CGROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Return the cores allowed by CPU affinity and by the CPU quotas of this process's control groups, at least 1."""
    cores = len(os.sched_getaffinity(0))
    for quota in _quotas():
        cores = min(cores, int(quota))
    return max(1, cores)


def _quotas() -> Iterator[float]:
    try:
        memberships = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            read, root = _quota_v2, _CGROUPS
        elif "cpu" in controllers.split(","):
            read, root = _quota_v1, _CGROUPS / "cpu"
        else:
            continue
        # A quota on any group above applies too. Inside a container the path may be the host's and not exist here;
        # the root is then the container's own group.
        lowest = root / path.lstrip("/")
        for group in [lowest, *lowest.parents]:
            quota = read(group)
            if quota is not None:
                yield quota
            if group == root:
                break


def _quota_v2(group: Path) -> float | None:
    try:
        limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        limit = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return None if limit < 0 else limit / int((group / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
