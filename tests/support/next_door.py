"""Programs for a process that somebody has taken over: what it can do to the others of the same user."""

from __future__ import annotations

# What one process can do to others: prints a line of JSON for each of those whose ids it gets.
PROBE = """
import ctypes, json, os, socket, sys

here = os.path.dirname(os.path.abspath(__file__)) if "__file__" in globals() else ""
libc = ctypes.CDLL(None, use_errno=True)

def can(attempt):
    try:
        return attempt() != -1
    except OSError:
        return False

def reads(pid):
    target = ctypes.create_string_buffer(8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(target), 8)
    remote = (ctypes.c_size_t * 2)(0x400000, 8)
    if libc.process_vm_readv(pid, local, 1, remote, 1, 0) != -1 or ctypes.get_errno() == 14:  # no such address
        return True
    return False

def done_to(pid):
    attempts = {
        "memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),
        "map": lambda: open(f"/proc/{pid}/maps").read(),
        "rollup": lambda: open(f"/proc/{pid}/smaps_rollup").read(),
        "environment": lambda: open(f"/proc/{pid}/environ").read(),
        "files": lambda: [os.stat(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")],
        "process_vm_readv": lambda: 0 if reads(pid) else -1,
        "ptrace": lambda: libc.ptrace(0x4206, pid, 0, 0),
        "signal": lambda: os.kill(pid, 0),
    }
    return [name for name, attempt in attempts.items() if can(attempt)]

def family(pid):
    children = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        children += open(f"/proc/{pid}/task/{thread}/children").read().split()
    return [pid] + [each for child in map(int, children) if child != os.getpid() for each in family(child)]
"""
OF_OTHERS = (
    PROBE
    + """
print(json.dumps({open(f"/proc/{pid}/comm").read().strip(): done_to(pid) for pid in family(int(sys.argv[1]))}))
"""
)
