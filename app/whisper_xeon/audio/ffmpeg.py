"""Runs ffmpeg on one upload, which may be hostile.

It gets an open file descriptor, never a name or a URL from a user, a list of the formats and the protocols it may use,
an empty environment, and hard limits on memory, processor time, output and wall time. Nothing is written to a
disk. It and the other processes of the service are kept apart (`confinement`): in lists of processes it therefore has
the number of a descriptor for a name.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from whisper_xeon import confinement
from whisper_xeon.audio.errors import DecoderMissing, DecodingTooSlow
from whisper_xeon.audio.file_types import CODECS, DEMUXERS

_MEMORY = 400 << 20  # of its own; the address space beyond is its libraries'
_OOM_SCORE_ADJUSTMENT = "1000"  # decoders go first when memory runs out
_NICENESS = "10"
_GROWTH_SECONDS = 0.05  # how often the output is measured: ffmpeg writes some MB in that time
# What is read to find out about tracks; a track that begins late in a film is found far behind its header.
_PROBE_BYTES = 32 << 20
_PROBE_SECONDS = 60
_OF_PROCESS = 2  # the kind of clock that counts the processor time of a process (clock_getcpuclockid)
# Formats are recognized among these only. A forced format has a list of its own.
RECOGNIZE = ("-format_whitelist", DEMUXERS)
# With Debian's packages.
_TOOLS = {
    "ffmpeg": "ffmpeg",
    "nice": "coreutils",
    **dict.fromkeys(("prlimit", "choom", "setpriv"), "util-linux"),
}
# Processor time that is allowed for any file, for each MiB of it, and for each second of audio that came out so far.
_CPU_SECONDS = 10.0
_CPU_SECONDS_PER_MIB = 0.02
_CPU_SECONDS_PER_SECOND = 0.1
_BYTES_PER_SECOND = 4 * 16000  # of the first output


class Ffmpeg:
    """ffmpeg for one upload; all runs together may take `timeout` seconds."""

    def __init__(self, upload_fd: int, *, timeout: float):
        self._upload_fd = upload_fd
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout

    def run(
        self,
        before: Sequence[str],
        after: Sequence[str],
        *,
        outputs: Sequence[int],
        max_bytes: int,
        log: int = subprocess.DEVNULL,
        grown: Callable[[int], None] = lambda size: None,
    ) -> bool:
        """Run ffmpeg with options `before` and `after` the input; return whether it succeeded.

        It may write `max_bytes` to each of the descriptors `outputs`, and to `log`, which then gets what it says about
        the input. `grown` is called with the bytes in the outputs so far, and what it raises ends the run. Raises
        `DecodingTooSlow` or `DecoderMissing`.
        """
        with confinement.unreadable_copy(_find("ffmpeg")) as (program, copy):
            command = self._command(program, before, after, max_bytes, log)
            passed = (self._upload_fd, *outputs, *copy)
            readable = _readable()
            if readable is not None:
                readable += (f"/proc/self/fd/{self._upload_fd}",)  # it may be a file with a name, as a self-test's is
            return confinement.apart(lambda: self._watch(command, passed, outputs, log, grown), readable)

    def _command(
        self, program: str, before: Sequence[str], after: Sequence[str], max_bytes: int, log: int
    ) -> list[str]:
        limits = {
            "data": _MEMORY,
            "as": 2 * _MEMORY,
            "cpu": int(self._timeout) + 1,
            "fsize": max_bytes,
            "nofile": 32,
            "core": 0,
        }
        return [
            *_ends_with_its_parent(),
            # Where that is allowed, which it is not in the unit: engines go first.
            *(_find("nice"), "-n", _NICENESS),
            *(_find("choom"), "-n", _OOM_SCORE_ADJUSTMENT, "--"),
            *(_find("prlimit"), *(f"--{name}={value}" for name, value in limits.items()), "--"),
            *(program, "-nostdin", "-nostats", "-hide_banner"),
            *("-loglevel", "quiet" if log == subprocess.DEVNULL else "info"),
            *("-protocol_whitelist", "file", "-codec_whitelist", CODECS, "-threads", "1"),
            *("-probesize", str(_PROBE_BYTES), "-analyzeduration", f"{_PROBE_SECONDS}M"),
            *before,
            *("-i", f"/proc/self/fd/{self._upload_fd}"),
            *after,
        ]

    def _watch(
        self,
        command: Sequence[str],
        passed: Sequence[int],
        outputs: Sequence[int],
        log: int,
        grown: Callable[[int], None],
    ) -> bool:
        # The pipe stays empty: its end tells at once that the program has ended.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=passed,
            env={"LC_ALL": "C"},
            cwd="/",
        ) as process:
            try:
                while True:
                    try:
                        process.communicate(timeout=_GROWTH_SECONDS)
                        return process.returncode == 0
                    except subprocess.TimeoutExpired:
                        if time.monotonic() > self._deadline:
                            raise DecodingTooSlow(
                                f"decoding the audio took longer than {self._timeout:g} s: send a shorter file, or a "
                                "simpler format such as wav"
                            ) from None
                        self._check_cpu(process.pid, os.fstat(outputs[0]).st_size)
                    finally:
                        grown(sum(os.fstat(output).st_size for output in outputs))
            finally:
                process.kill()  # does nothing once it has ended

    def _check_cpu(self, pid: int, written: int) -> None:
        """Raise `DecodingTooSlow` for a file that takes more than any recording of its length would."""
        try:
            spent = time.clock_gettime(~pid << 3 | _OF_PROCESS)
        except OSError:  # it has just ended
            return
        mebibytes = os.fstat(self._upload_fd).st_size / (1 << 20)
        allowed = (
            _CPU_SECONDS + mebibytes * _CPU_SECONDS_PER_MIB + written / _BYTES_PER_SECOND * _CPU_SECONDS_PER_SECOND
        )
        if spent > allowed:
            raise DecodingTooSlow(
                "decoding the audio takes out of all proportion to its length: convert it, for example with "
                "ffmpeg -i FILE -vn -ac 1 -ar 16000 audio.flac"
            )


def require_tools() -> None:
    """Raise `DecoderMissing` unless everything that decoding runs is installed."""
    for tool in _TOOLS:
        _find(tool)
    # Now, and not while somebody waits.
    _readable()
    _ends_with_its_parent()


@functools.cache
def _ends_with_its_parent() -> tuple[str, ...]:
    """Return what has a program end with the thread that started it, and so with the service, however that ends.

    Nothing where it is denied, as by the filter of the unit: there systemd ends whatever the service leaves.
    """
    command = (_find("setpriv"), "--pdeathsig", "KILL", "--")
    tried = subprocess.run([*command, _find("nice")], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return command if tried.returncode == 0 else ()


@functools.cache
def _readable() -> tuple[str, ...] | None:
    """Return what the tools read; None, which means anything, where that does not do: their libraries are elsewhere."""
    paths = (*confinement.SYSTEM_FILES, *(str(Path(_find(tool)).parent) for tool in _TOOLS))
    command = [_find("ffmpeg"), "-version"]

    def starts() -> bool:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

    try:
        return paths if confinement.apart(starts, paths) else None
    except OSError:
        return None


def _find(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise DecoderMissing(f"{tool} is not installed on this host: apt-get install {_TOOLS[tool]}")
    return path
