"""The processes of the service are no single domain of trust: who takes over one of them gets at no other.

The service runs as a user without capabilities, as it does on a host and in the container. That user's processes may
normally read and end each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from next_door import OF_OTHERS, PROBE
from paths import RECORDINGS, ROOT
from running_service import running_service, wait_for

NOBODY = "65534"
PYTHON = "/usr/bin/python3"  # everybody may run it, and it is the one of a host
# Runs in the place of a program of the service, and notes what it can do beside what it is for.
TAKEN_OVER = (
    PROBE
    + """
front = int(open(f"{here}/front").read())
itself = {
    "keys": lambda: open(f"{here}/keys-of-others/keys").read(),
    "file": lambda: open(f"{here}/new", "w"),
    "connection": lambda: socket.create_connection(("127.0.0.1", int(open(f"{here}/port").read()))),
    "key": lambda: libc.syscall(248, b"user", b"x", b"x", 1, -2),
    "io_uring": lambda: 0 if libc.syscall(425, 0, None) == -1 and ctypes.get_errno() == 14 else -1,
}
found = {str(pid): done_to(pid) for pid in family(front) if pid != worker}
found["itself"] = [name for name, attempt in itself.items() if can(attempt)]
open(f"{here}/found", "w").write(json.dumps(found))
"""
)
DECODER = f"{TAKEN_OVER.replace('!= worker', '!= 0')}os.execv('/usr/bin/choom', ['choom', *sys.argv[1:]])\n"
ENGINE = f"{TAKEN_OVER.replace('!= worker', '!= os.getppid()')}sys.exit(1)\n"


def as_nobody(*command: str) -> list[str]:
    """Return a command that runs as a user without capabilities."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    return [*drop, *command]


@pytest.fixture(scope="module")
def ground(artifacts_dir):
    """A directory that everybody may read, with the application, the small package and a recording for ffmpeg."""
    with tempfile.TemporaryDirectory(prefix="whisper-xeon-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        shutil.copytree(ROOT / "app", path / "app", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(artifacts_dir / "whisper_small_xeon", path / "dist" / "whisper_small_xeon")
        wav, flac = RECORDINGS / "en-00.wav", path / "en-00.flac"
        subprocess.run(["ffmpeg", "-loglevel", "error", "-i", wav, flac], check=True, stdin=subprocess.DEVNULL)
        yield path


@contextlib.contextmanager
def service_of_nobody(ground: Path, **settings: str):
    python = as_nobody(PYTHON, "-B")
    with running_service(ground / "dist", python=python, PYTHONPATH=str(ground / "app"), **settings) as service:
        yield service


def test_no_process_of_the_same_user_reads_the_front_the_zygote_or_a_worker(ground):
    with service_of_nobody(ground, WHISPER_ENGINES="2") as service:
        wait_for(lambda: len(service.worker_pids()) == 2)
        probe = as_nobody(PYTHON, "-c", OF_OTHERS, str(service.process.pid))
        done = json.loads(subprocess.run(probe, stdout=subprocess.PIPE, check=True).stdout)
        # Signals of this one, which the service did not start, are the system's to forbid.
        assert done == {"python3": ["signal"], "wx-zygote": ["signal"], "wx-worker": ["signal"]}
        assert service.transcribe("en-00.wav").status == 200


def taken_over(ground: Path, program: Path, code: str, recording: Path, **settings: str) -> tuple[dict, list[str], int]:
    """Have `code` run in the place of a program; return what it found, the processes of the service, and the status."""
    here = program.parent
    here.mkdir(exist_ok=True)
    program.unlink(missing_ok=True)
    program.write_text(f"#!{PYTHON} -S\n{code}", encoding="utf-8")
    program.chmod(0o755)
    (ground / "keys").write_text("a-key\n", encoding="ascii")
    (here / "keys-of-others").symlink_to(ground)
    (here / "found").touch()
    (here / "found").chmod(0o666)
    here.chmod(0o777)
    with service_of_nobody(ground, WHISPER_API_KEY_FILE=str(ground / "keys"), **settings) as service:
        (here / "front").write_text(str(service.process.pid), encoding="ascii")
        (here / "port").write_text(str(service.port), encoding="ascii")
        service.headers["Authorization"] = "Bearer a-key"
        engines = wait_for(service.worker_pids) and service.engine_pids()
        answer = service.post_form("/v1/audio/transcriptions", ("file", recording))
    found = json.loads((here / "found").read_text(encoding="utf-8"))
    return found, [str(pid) for pid in (service.process.pid, *engines)], answer.status


def landlock() -> int:
    """Return the version of Landlock in this kernel; signals are in it since 6."""
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)


def test_what_takes_over_the_decoder_reaches_no_other_process_and_no_key(ground):
    tools = ground / "tools"
    settings = {"PATH": f"{tools}:{os.environ['PATH']}", "WHISPER_ENGINES": "1"}
    found, pids, status = taken_over(ground, tools / "choom", DECODER, ground / "en-00.flac", **settings)
    assert status == 200
    if landlock() >= 6:
        assert found == {pid: [] for pid in pids} | {"itself": []}
    else:
        assert found.pop("itself") == (["keys", "file", "connection"] if landlock() < 1 else ["connection"])
        assert found == {pid: ["signal"] for pid in pids}


def test_what_takes_over_an_engine_reaches_no_other_process_and_no_key(ground):
    program = ground / "dist" / "whisper_small_xeon" / "whisper-cli"
    program.rename(ground / "whisper-cli")
    settings = {"WHISPER_ADAPTER": "cli", "WHISPER_ENGINES": "2"}
    try:
        found, pids, status = taken_over(ground, program, ENGINE, RECORDINGS / "en-00.wav", **settings)
    finally:
        (ground / "whisper-cli").rename(program)
    assert status == 500
    assert len(found) == len(pids)  # itself in the place of the engine that started it
    assert found.keys() < {*pids, "itself"}
    if landlock() >= 6:
        assert not any(found.values())


def test_the_memory_of_the_decoder_is_hidden_from_its_first_instruction_on(ground):
    run = """
import os, subprocess, sys
from whisper_xeon.confinement import unreadable_copy
with unreadable_copy("/bin/cat") as (program, descriptors):
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors) as cat:
        cat.stdin.write(b"hello"); cat.stdin.flush()
        print(cat.stdout.read(5).decode(), os.access(f"/proc/{cat.pid}/fd", os.R_OK), end=" ")
        try:
            open(f"/proc/{cat.pid}/mem", "rb")
        except PermissionError:
            print("hidden")
        cat.stdin.close()
"""
    done = subprocess.run(
        as_nobody(PYTHON, "-c", run),
        env={"PYTHONPATH": str(ground / "app")},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout == b"hello False hidden\n"


def test_every_call_that_is_given_up_is_refused_and_others_go_on(ground):
    run = """
import ctypes, json, os
from whisper_xeon import confinement
assert confinement.give_up_calls()
libc = ctypes.CDLL(None, use_errno=True)
allowed = []
for name, number in confinement._DENIED.items():
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        allowed.append(name)
print(json.dumps(allowed))
os.getpid(), os.pipe(), os.fork() or os._exit(0), os.wait()
"""
    done = subprocess.run(
        as_nobody(PYTHON, "-c", run),
        env={"PYTHONPATH": str(ground / "app")},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout) == []
