"""What the processes of the service give up, so that a hostile upload that takes over one of them gets no further.

All of them run as one user, which by itself may read each other's memory, take each other's files and end each other.
Whatever the kernel here cannot do is left out: the rest still holds.

* `hide_memory`: no process of the same user may read or write the memory, environment or open files of this one.
* `give_up_calls`: no system call that debugs or looks into processes, holds keys, or hands work to the kernel unseen.
* `give_up_others`: no signal or debugging to a process outside, no new file, no TCP connection, and none of the files
  that it does not need, such as that of the API keys (Landlock). It is for a thread and what that starts.
* `unreadable_copy`: a program that hides its memory by itself, since a new program begins with its memory readable.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

# From <linux/seccomp.h>, <linux/filter.h> and <linux/audit.h>; the numbers of the calls are those of x86-64.
_SYS_SECCOMP = 317
_SECCOMP_SET_MODE_FILTER = 1
_FLAGS = 1 | 4  # all threads; without the slowdown that old kernels give filtered processes
_X86_64, _X32 = 0xC000003E, 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_DENIED = {
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "process_madvise": 440,
    "kcmp": 312,
    "pidfd_getfd": 438,
    "perf_event_open": 298,
    "lookup_dcookie": 212,
    "bpf": 321,
    "userfaultfd": 323,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
}

# From <linux/landlock.h>; the numbers of these calls are the same everywhere.
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_GET_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE = 1 << 2
_NEW_OR_GONE = sum(1 << bit for bit in range(4, 13))  # removing and making files of every kind
_TCP = 1 | 2  # bind, connect; since version 4
_SCOPED = 1 | 2  # abstract sockets, signals; since version 6

# What any program reads: itself, its libraries, and what the kernel says.
SYSTEM_FILES = ("/usr", "/lib", "/lib64", "/proc", "/sys", "/dev", "/etc/ld.so.cache", "/etc/ld.so.preload")

_libc = ctypes.CDLL(None, use_errno=True)


def hide_memory() -> None:
    """Have the kernel refuse this process's memory, environment and files to other processes of the user.

    Children that are forked hide theirs as well, until they start another program.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def set_oom_score(adjustment: int) -> None:
    """Say how early this process goes when memory runs out, if the kernel lets it; its memory is hidden afterwards."""
    # /proc/self of a process that hides its memory belongs to root.
    _prctl(_PR_SET_DUMPABLE, 1)
    try:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(adjustment), encoding="ascii")
    finally:
        hide_memory()


def give_up_calls() -> bool:
    """Do without the calls of `_DENIED`, for all threads and children for good; return whether the kernel agreed."""
    if os.uname().machine != "x86_64":
        return False
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    calls = sorted(_DENIED.values())
    deny = len(calls) + 5  # the last instruction; jumps count from the next one
    code = [
        (_LOAD, 0, 0, 4),  # the architecture: 32-bit calls have other numbers
        (_EQUAL, 0, deny - 2, _X86_64),
        (_LOAD, 0, 0, 0),  # the call
        (_AT_LEAST, deny - 4, 0, _X32),
        *((_EQUAL, deny - 5 - index, 0, call) for index, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
    # int seccomp(unsigned int operation, unsigned int flags, struct sock_fprog *program)
    return _libc.syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _FLAGS, program) == 0


def give_up_others(readable: Iterable[Path | str] | None = None) -> bool:
    """Have this thread, and what it starts, do without other processes, new files and TCP, as far as the kernel can.

    With `readable`, files and directories, it opens no other files to read; anonymous ones are not affected. Returns
    whether it can: Linux has Landlock since 5.13, with TCP since 6.7 and signals since 6.12; some containers deny it.
    """
    version = _libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)
    if version < 1:
        return False
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped; older kernels take zeros at its end.
    files = _NEW_OR_GONE if readable is None else _NEW_OR_GONE | _READ_FILE
    rules = (ctypes.c_uint64 * 3)(files, _TCP if version >= 4 else 0, _SCOPED if version >= 6 else 0)
    ruleset = _libc.syscall(_SYS_CREATE_RULESET, rules, ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if ruleset < 0:
        return False
    try:
        if not all(_allow_reading(ruleset, path) for path in readable or ()):
            return give_up_others()  # a filter of calls has no rules in it
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        return _libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: Path | str) -> bool:
    """Add a rule to a set; return whether that is possible at all. What is not there, or anonymous, needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        # struct landlock_path_beneath_attr: allowed_access, parent_fd; packed.
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _READ_FILE, descriptor))
        added = _libc.syscall(_SYS_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) == 0
        return added or ctypes.get_errno() == errno.EBADFD
    finally:
        os.close(descriptor)


def apart(task: Callable[[], T], readable: Iterable[Path | str] | None = None) -> T:
    """Return what `task` returns in a thread of its own that has given up others, so that what it starts has, too.

    The thread lasts as long as the task: a child that is to die with its parent dies with the thread that started it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            give_up_others(readable)
            results.append(task())
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name="apart", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise BlockingIOError(errno.EAGAIN, "no thread can be started") from None
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def unreadable_copy(program: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the path of a copy of `program` that may be executed and not read, and the descriptors to pass to it.

    The kernel then hides the memory of the process from its first instruction on. Each use has a copy of its own, which
    nobody else can come to change. Where memory cannot be executed as a file, it is `program` itself.
    """
    if not _can_execute_memory():
        yield program, ()
        return
    descriptor = _copy(program)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def _copy(program: str) -> int:
    memory = os.memfd_create(Path(program).name)
    try:
        with open(program, "rb") as source:
            size, done = os.fstat(source.fileno()).st_size, 0
            while done < size:
                done += os.sendfile(memory, source.fileno(), done, size - done)
        os.fchmod(memory, 0o111)
        return os.open(f"/proc/self/fd/{memory}", os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(memory)


@functools.cache
def _can_execute_memory() -> bool:
    # The system may forbid it (vm.memfd_noexec, SELinux).
    try:
        descriptor = _copy("/bin/true")
    except OSError:
        return False
    try:
        return subprocess.run([f"/proc/self/fd/{descriptor}"], pass_fds=(descriptor,), check=False).returncode == 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _prctl(option: int, value: int) -> None:
    # int prctl(int option, unsigned long arg2, …)
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
