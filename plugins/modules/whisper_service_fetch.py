"""Ansible module: fetch the files of a package from the store, several at a time, each checked while it arrives.

The URLs are as good as credentials: messages name the store and the file, never a URL.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import io
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import (
    LOCK,
    DirectOpener,
    store_of,
    wait_for_others,
)

DOCUMENTATION = r"""
module: whisper_service_fetch
short_description: Fetch the files of a package from the store
description:
  - An interrupted transfer is resumed. A file with an unexpected digest fails the task, and so does a store that sends
    the host elsewhere, or a file that comes too slowly.
options:
  directory: {type: path, required: true, description: The staging directory.}
  files: {type: list, elements: dict, required: true, description: "path below O(directory), size in bytes, sha256"}
  package: {type: str, required: true, description: "Directory of the package below O(directory)."}
  urls: {type: dict, required: true, description: "Path below O(package) -> signed URL of the file."}
"""

RETURN = r"""
bytes: {description: Number of bytes that were fetched, type: int}
"""

CONNECTIONS = 4
ATTEMPTS = 5  # in a row without another byte
TIMEOUT_S = 30  # without any data
# What a transfer brings at least, or it counts as one that brought nothing.
LEAST_BYTES = 300_000
LEAST_BYTES_S = 30
BLOCK_BYTES = 1 << 20


class FetchError(Exception):
    """Why a file could not be fetched, in words for the person who deploys."""


class Transfer:
    """The transfer of one file: what has arrived and its digest so far."""

    def __init__(self, path: Path, entry: dict, url: str, stop: threading.Event):
        """`path` is where the file goes, `entry` what it must be; `stop` is set when another file has failed."""
        self._path, self._entry, self._url, self._stop = path, entry, url, stop
        self._arrived, self._digest = 0, hashlib.sha256()
        self._opener: DirectOpener | None = None  # while something is expected
        self._mark = (0.0, 0)  # a time, and what had arrived then
        self._slow = False

    def keep_pace(self) -> None:
        """End the connection, from another thread, if it brings too little."""
        opener, (since, arrived) = self._opener, self._mark
        now = time.monotonic()
        if opener is None or now - since < LEAST_BYTES_S:
            return
        if self._arrived - arrived < LEAST_BYTES:
            self._slow = True
            opener.hang_up()
        self._mark = now, self._arrived

    def run(self) -> int:
        """Fetch the file and return its size in bytes. Raises `FetchError`."""
        try:
            target = io.FileIO(self._path, "w")
        except OSError as error:
            raise FetchError(f"{self._path} cannot be written: {error.strerror}") from None
        with target:
            attempt = 0
            while not self._stop.is_set():
                before = self._arrived
                self._mark, self._slow, self._opener = (time.monotonic(), before), False, DirectOpener()
                reason = self._go_on(target, self._opener)
                self._opener.hang_up()
                self._opener = None
                if not reason:
                    return self._finish()
                if self._slow:
                    reason = f"it sent less than {LEAST_BYTES // 1000} kB in {LEAST_BYTES_S:g} s"
                attempt = 1 if self._arrived > before and not self._slow else attempt + 1
                if attempt == ATTEMPTS:
                    break
                self._stop.wait(2 ** (attempt - 1))
            else:
                reason = "the transfer was stopped"
        raise FetchError(
            f"{self._entry['path']} did not arrive from {store_of(self._url)}: {reason} "
            f"(after {self._arrived} of {self._entry['size']} bytes)"
        )

    def _go_on(self, target: io.FileIO, opener: DirectOpener) -> str:
        """Fetch what is missing; return why some still is, or an empty string. Raises `FetchError` if a retry is
        of no use."""
        request = urllib.request.Request(self._url)  # noqa: S310 - signed on the control node, for an http(s) endpoint
        if self._arrived:
            request.add_header("Range", f"bytes={self._arrived}-")
        try:
            with opener.open(request, TIMEOUT_S) as answer:
                expected = f"bytes {self._arrived}-{self._entry['size'] - 1}/{self._entry['size']}"
                if self._arrived and answer.headers.get("Content-Range") != expected:
                    self._arrived, self._digest = 0, hashlib.sha256()
                    target.truncate(0)
                    if answer.status == 206:
                        return "the store answered with another part of the file than was requested"
                target.seek(self._arrived)
                self._receive(answer, target)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                hint = " (redirects are not followed)" if error.code < 400 else ""
                raise FetchError(
                    f"{self._entry['path']} did not arrive from {store_of(self._url)}: {error.code} {error.reason}"
                    f"{hint}"
                ) from None
            return f"{error.code} {error.reason}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return "" if self._arrived == self._entry["size"] else "the connection was closed early"

    def _receive(self, answer: http.client.HTTPResponse, target: io.FileIO) -> None:
        while not self._stop.is_set():
            block = answer.read1(BLOCK_BYTES)
            if not block:
                return
            if self._arrived + len(block) > self._entry["size"]:
                raise FetchError(self._altered())
            rest = memoryview(block)
            while rest:
                try:
                    rest = rest[target.write(rest) :]
                except OSError as error:
                    raise FetchError(f"{self._path} cannot be written: {error.strerror}") from None
            self._digest.update(block)
            self._arrived += len(block)

    def _finish(self) -> int:
        if self._digest.hexdigest() != self._entry["sha256"]:
            raise FetchError(self._altered())
        self._path.chmod(0o644)
        return self._arrived

    def _altered(self) -> str:
        return (
            f"{self._entry['path']} from {store_of(self._url)} differs from its manifest (SHA-256): the "
            "content in the store is not what was published. Publish the package again"
        )


def fetch(directory: Path, package: str, files: list[dict], urls: dict[str, str]) -> int:
    """Fetch every file, the largest first, and return the bytes. Raises `FetchError` for the first that fails.

    The paths of `files` begin at `directory`, those of `urls` at `package` below it.
    """
    stop = threading.Event()
    transfers = [
        Transfer(directory / entry["path"], entry, urls[entry["path"].removeprefix(f"{package}/")], stop)
        for entry in sorted(files, key=lambda entry: entry["size"], reverse=True)
    ]
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        running = {pool.submit(transfer.run) for transfer in transfers}
        fetched = 0
        try:
            while running:
                done, running = concurrent.futures.wait(
                    running, LEAST_BYTES_S / 6, return_when=concurrent.futures.FIRST_COMPLETED
                )
                fetched += sum(transfer.result() for transfer in done)
                for transfer in transfers:
                    transfer.keep_pace()
                if LOCK.exists():
                    os.utime(LOCK)
        finally:
            stop.set()
    return fetched


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "package": {"type": "str", "required": True},
            "urls": {"type": "dict", "required": True, "no_log": True},
        },
    )
    wanted = module.params
    directory = Path(wanted["directory"])
    wait_for_others(directory.parent)
    try:
        fetched = fetch(directory, wanted["package"], wanted["files"], wanted["urls"])
    except FetchError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, bytes=fetched)


if __name__ == "__main__":
    main()
