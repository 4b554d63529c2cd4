"""The processes behind the pool: a zygote that loads the model once, and the workers that it forks.

The pool starts the zygote (`python3 -m whisper_xeon.engine.worker <fd of the control socket>`), which never computes
and never has a second thread, so that each fork is a complete process with the weights already in its memory, shared
until written. It reaps and kills its workers by process id, which is safe for a parent only. A worker creates its own
state and answers one job at a time on its own socket. No process outlives the pool: the zygote exits when the control
socket is closed, and the kernel kills the workers of a zygote that has ended.

Control socket:
  pool to zygote: {"op": "load", "adapter", "directory", "threads", "audio_ctx", "cpu_variant",
    "vad"} first, then
    {"op": "fork", "id"} with the worker's job socket and {"op": "kill", "id"}
  zygote to pool: {"event": "loaded", "cpu_variant", "cpu_variant_reason", "load_s"} with its footprint or
    {"event": "failed", "reason"}, then {"event": "forked", "id", "pid"} and {"event": "exited", "id", "status"}
Job socket:
  pool to worker: {"options", "samples", "live"} with the memfd of the samples, or those of the left and of the right
    side, and whether somebody reads the text on the way; or
    {"check"} to hear whether it is alive, and with true whether it can compute
  worker to pool: {"event": "ready"} with its footprint or {"event": "failed", "reason"} once; then for each job
    {"event": "started"}, {"event": "window"} as each window of the audio begins, where the adapter knows, with "live"
    {"event": "text", "language", "texts"} of segments that are done, and
    {"event": "done", "transcript", "compute_s"} or {"event": "error", "kind", "message"}; for a check
    {"event": "alive"}, or {"event": "probed"} after it has computed, or an error
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from whisper_package.errors import PackageError
from whisper_package.package import Package
from whisper_xeon import confinement, footprint
from whisper_xeon.audio.decode import map_samples
from whisper_xeon.engine import process, sides
from whisper_xeon.engine.adapter import Heard, WhisperAdapter
from whisper_xeon.engine.channel import close_all, receive_message, send_message
from whisper_xeon.engine.cli_adapter import WhisperCliAdapter
from whisper_xeon.engine.errors import UnsupportedOptionError, WhisperLibraryError
from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter
from whisper_xeon.transcript import DecodeOptions

_ADAPTERS = {"library": WhisperLibraryAdapter, "cli": WhisperCliAdapter}
# Workers go first when memory runs out: the pool replaces them.
_OOM_SCORE_ADJUSTMENT = 500


def main() -> int:
    """Run the zygote on the control socket whose descriptor is the only argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # A terminal's Ctrl-C and systemd's SIGTERM reach the whole group, but the pool decides when its processes end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A core dump would contain the weights and somebody's speech.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    confinement.hide_memory()
    confinement.give_up_others()
    process.set_name(b"wx-zygote")
    process.return_memory()
    # The whisper-cli of a killed worker is reaped here: the first process of a container might not do it.
    process.adopt_orphans()
    with contextlib.suppress(EOFError, ConnectionError):
        adapter = _load(control)
        if adapter is None:
            return 1
        gc.collect()
        gc.freeze()  # garbage collection in the workers then leaves the shared pages alone
        _Zygote(control, adapter).run()
    return 0


def _load(control: socket.socket) -> WhisperAdapter | None:
    order, _ = receive_message(control)
    started = time.monotonic()
    try:
        package = Package(order["directory"])
        options = {name: order[name] for name in ("threads", "audio_ctx", "cpu_variant", "vad")}
        adapter = _ADAPTERS[order["adapter"]](package=package, **options)
    except (PackageError, WhisperLibraryError) as error:
        send_message(control, {"event": "failed", "reason": str(error)})
        return None
    load_s = round(time.monotonic() - started, 3)
    chosen = {"cpu_variant": adapter.variant.name, "cpu_variant_reason": adapter.variant.reason}
    own = footprint.open_own()
    send_message(control, {"event": "loaded", **chosen, "load_s": load_s}, own)
    close_all(own)
    return adapter


class _Zygote:
    def __init__(self, control: socket.socket, adapter: WhisperAdapter):
        self._control = control
        self._adapter = adapter
        self._pid = os.getpid()
        self._workers: dict[int, int] = {}  # process id -> the pool's number for the worker
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._wake_out in ready:
                    os.read(self._wake_out, 4096)
                    self._reap()
                if self._control.fileno() in ready:
                    self._obey(*receive_message(self._control))
        finally:
            for pid in self._workers:
                os.kill(pid, signal.SIGKILL)
            for pid in self._workers:
                os.waitpid(pid, 0)

    def _obey(self, order: dict[str, Any], fds: list[int]) -> None:
        if order["op"] == "fork":
            try:
                pid = os.fork()
            except OSError:  # no memory, or too many processes: the pool tries again
                close_all(fds)
                send_message(self._control, {"event": "exited", "id": order["id"], "status": 1 << 8})
                return
            if pid == 0:
                self._become_worker(fds[0])
            self._workers[pid] = order["id"]
            close_all(fds)
            send_message(self._control, {"event": "forked", "id": order["id"], "pid": pid})
        elif order["op"] == "kill":
            for pid, number in self._workers.items():
                if number == order["id"]:
                    os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                number = self._workers.pop(pid, None)
                if number is not None:
                    send_message(self._control, {"event": "exited", "id": number, "status": status})

    def _become_worker(self, job_fd: int) -> NoReturn:
        status = 1
        try:
            process.die_with(self._pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            close_all((self._wake_out, self._wake_in))
            _serve_jobs(socket.socket(fileno=job_fd), self._adapter)
            status = 0
        except BaseException as error:  # os._exit below would end it silently
            print(f"engine worker {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)


def _serve_jobs(jobs: socket.socket, adapter: WhisperAdapter) -> None:
    """Create a state, then transcribe jobs until the pool closes the socket."""
    process.set_name(b"wx-worker")
    confinement.set_oom_score(_OOM_SCORE_ADJUSTMENT)
    # Neither do workers get at each other, nor at the files of keys.
    confinement.give_up_others((*confinement.SYSTEM_FILES, *_own_files(), adapter.package.directory))
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            adapter.prepare()
        except WhisperLibraryError as error:
            send_message(jobs, {"event": "failed", "reason": str(error)})
            return
        own = footprint.open_own(children=True)
        send_message(jobs, {"event": "ready"}, own)
        close_all(own)
        adapter.window_begins = functools.partial(send_message, jobs, {"event": "window"})
        while True:
            job, fds = receive_message(jobs)
            if "check" in job:
                send_message(jobs, _check(adapter, compute=job["check"]))
                continue
            send_message(jobs, {"event": "started"})
            try:
                answer = _transcribe(adapter, job, fds, heard=_reporter(jobs) if job["live"] else None)
            finally:
                close_all(fds)
            send_message(jobs, answer)
            adapter.prepare()


def _check(adapter: WhisperAdapter, *, compute: bool) -> dict[str, Any]:
    if not compute:
        return {"event": "alive"}
    try:
        computed = adapter.probe()
        adapter.prepare()
    except WhisperLibraryError as error:
        return {"event": "error", "kind": "failed", "message": str(error)}
    return {"event": "probed" if computed else "alive"}


def _own_files() -> list[str]:
    """Return where Python, the application and further libraries are; not sys.path, which has the working directory."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2]), *filter(None, libraries)]


def _reporter(jobs: socket.socket) -> Heard:
    """Return what sends the pool texts of segments."""
    return lambda language, texts: send_message(jobs, {"event": "text", "language": language, "texts": list(texts)})


def _transcribe(
    adapter: WhisperAdapter, job: dict[str, Any], pcm_fds: list[int], *, heard: Heard | None
) -> dict[str, Any]:
    started = time.monotonic()
    try:
        options = DecodeOptions.from_dict(job["options"])
        transcripts = []
        for fd in pcm_fds:
            samples = map_samples(fd, job["samples"]) if job["samples"] else b""
            # What two sides say is put in order at the end.
            transcripts.append(adapter.transcribe_pcm(samples, options, heard=heard if len(pcm_fds) == 1 else None))
        transcript = sides.merge(*transcripts) if len(transcripts) > 1 else transcripts[0]
    except UnsupportedOptionError as error:
        return {"event": "error", "kind": "rejected", "message": str(error)}
    except WhisperLibraryError as error:
        return {"event": "error", "kind": "failed", "message": str(error)}
    return {"event": "done", "transcript": transcript.to_dict(), "compute_s": time.monotonic() - started}


if __name__ == "__main__":
    sys.exit(main())
