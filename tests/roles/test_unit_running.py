"""The sandbox as it is in force: what the service's processes are denied, and what somebody who took one over finds.

A property in a unit file says nothing about whether this systemd and this kernel do it.
"""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

import metrics_page
from running_service import wait_for

# Runs with the properties of the unit, as the same user beside the service. Prints what it can do.
PROBE = r"""
import ctypes, glob, json, os, socket

libc = ctypes.CDLL(None, use_errno=True)

def can(attempt):
    try:
        return attempt() not in (-1, [], b"")
    except OSError:
        return False

def connects(path):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            if can(lambda: client.connect(path)):
                return True
    return False

mine = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if int(pid) != os.getpid()]
attempts = {
    **{f"reads {what} of another": lambda what=what: [
        pid for pid in mine if can(lambda: open(f"/proc/{pid}/{what}", "rb").read(1) or "empty")
    ] for what in ("mem", "maps", "environ", "smaps_rollup")},
    "lists the journal": lambda: glob.glob("/var/log/*") + glob.glob("/run/log/*"),
    "writes to /dev/shm": lambda: open("/dev/shm/new", "w"),
    "lists /dev/shm": lambda: os.listdir("/dev/shm"),
    "lists /dev/mqueue": lambda: os.listdir("/dev/mqueue"),
    "writes to /run": lambda: open("/run/new", "w"),
    "writes to its package": lambda: open("/opt/whisper-xeon/new", "w"),
    "opens a TCP socket": lambda: socket.socket(socket.AF_INET),
    "adds a key": lambda: libc.syscall(248, b"user", b"name", b"key", 3, -2),
    "reads keys": lambda: libc.syscall(250, 0, -3, 0),
    "uses io_uring": lambda: -1 if libc.syscall(425, 1, 0) == -1 and ctypes.get_errno() == 1 else 0,
    "debugs": lambda: libc.ptrace(0, 0, 0, 0),
    "measures performance": lambda: -1 if libc.syscall(298, 0, 0, -1, -1, 0) == -1 and ctypes.get_errno() == 1 else 0,
    "makes a namespace": lambda: libc.unshare(0x10000000),
    "executes what it wrote": lambda: -1 if libc.mmap(0, 4096, 7, 34, -1, 0) in (-1, 0xFFFFFFFF) else 0,
}
found = [name for name, attempt in attempts.items() if can(attempt)]
sockets = [path for path in glob.glob("/run/**/*", recursive=True) if os.path.exists(path) and connects(path)]
sockets += [path for path in ("/run/dbus/system_bus_socket", "/run/systemd/journal/socket", "/run/systemd/private",
    "/var/run/dbus/system_bus_socket") if connects(path)]
landlock = libc.syscall(444, None, ctypes.c_size_t(0), 1)
print(json.dumps({"can": found, "sockets": sockets, "sees": len(mine), "landlock": landlock}))
"""


def sandbox(host) -> list[str]:
    """Return the properties of the sandbox in the unit that runs, as arguments of systemd-run."""
    unit = host.run("cat", "/etc/systemd/system/whisper-xeon.service").partition("# The sandbox.")[2]
    directives = re.findall(r"^[A-Z]\w+=.*$", unit.partition("[Install]")[0], re.MULTILINE)
    return [f"--property={directive}" for directive in directives]


def processes(host) -> list[str]:
    """Return the process ids of front, zygote and workers."""
    found = host.run("sh", "-c", "grep --files-with-matches --extended-regexp '^(python3|wx-)' /proc/[0-9]*/comm")
    pids = re.findall(r"/proc/(\d+)/comm", found)
    assert len(pids) >= 3
    return pids


def test_somebody_inside_the_sandbox_reaches_neither_the_other_processes_nor_the_host(small):
    probe = (
        "systemd-run",
        "--wait",
        "--pipe",
        "--collect",
        "--quiet",
        *sandbox(small),
        "/usr/bin/python3",
        "-c",
        PROBE,
    )
    found = json.loads(small.run(*probe))
    landlock = found.pop("landlock")
    assert found == {"can": [], "sockets": ["/run/systemd/notify"], "sees": 0}
    kernel = small.run("python3", "-c", "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))")
    assert landlock == int(kernel)


@pytest.mark.parametrize("status", [2, 3])
def test_what_no_restart_would_mend_is_not_started_again(small, status):
    unit = small.run("cat", "/etc/systemd/system/whisper-xeon.service")
    restarts = re.findall(r"^(?:Restart\w*|StartLimit\w+)=.*$", unit, re.MULTILINE)
    assert "Restart=always" in restarts
    name = f"ends-with-{status}.service"
    properties = [f"--property={directive}" for directive in restarts]
    small.run("systemd-run", "--quiet", f"--unit={name}", *properties, "/bin/sh", "-c", f"exit {status}")
    try:
        wait_for(lambda: "ActiveState=failed" in small.run("systemctl", "show", name))
        assert "\nNRestarts=0\n" in small.run("systemctl", "show", name)
    finally:
        small.run("systemctl", "reset-failed", name)


def test_every_process_of_the_service_runs_without_privileges_under_the_filter(small):
    wanted = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16, "CapInh": "0" * 16}
    for pid in processes(small):
        status = dict(re.findall(r"^(\w+):\s*(.*)$", small.run("cat", f"/proc/{pid}/status"), re.MULTILINE))
        assert {name: status[name] for name in wanted} == wanted, status["Name"]
        assert status["Uid"].split()[0] not in ("0", "65534")


def test_the_memory_of_all_processes_is_reported_from_inside_the_sandbox(small):
    with urllib.request.urlopen(f"{small.url}/metrics") as answer:
        samples = metrics_page.parse(answer.read().decode())
    rollups = small.run("cat", *(f"/proc/{pid}/smaps_rollup" for pid in processes(small)))
    sizes = [int(size) * 1024 for size in re.findall(r"^Pss: +(\d+) kB$", rollups, re.MULTILINE)]
    assert samples[("whisper_memory_bytes",)] == pytest.approx(sum(sizes), rel=0.1)
