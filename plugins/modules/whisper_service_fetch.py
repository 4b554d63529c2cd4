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
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import (
    LOCK,
    direct_opener,
    store_of,
    wait_for_others,
)

DOCUMENTATION = r"""
module: whisper_service_fetch
short_description: Fetch the files of a package from the store
description:
  - An interrupted transfer is resumed. A file with an unexpected digest fails the task.
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
BLOCK_BYTES = 1 << 20
SIGN_OF_LIFE_S = 60


class FetchError(Exception):
    """Why a file could not be fetched, in words for the person who deploys."""


class Transfer:
    """The transfer of one file: what has arrived and its digest so far."""

    def __init__(self, path: Path, entry: dict, url: str, stop: threading.Event):
        """`path` is where the file goes, `entry` what it must be; `stop` is set when another file has failed."""
        self._path, self._entry, self._url, self._stop = path, entry, url, stop
        self._arrived, self._digest = 0, hashlib.sha256()

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
                reason = self._go_on(target)
                if not reason:
                    return self._finish()
                attempt = 1 if self._arrived > before else attempt + 1
                if attempt == ATTEMPTS:
                    break
                self._stop.wait(2 ** (attempt - 1))
            else:
                reason = "the transfer was stopped"
        raise FetchError(
            f"{self._entry['path']} did not arrive from {store_of(self._url)}: {reason} "
            f"(after {self._arrived} of {self._entry['size']} bytes)"
        )

    def _go_on(self, target: io.FileIO) -> str:
        """Fetch what is missing; return why some still is, or an empty string. Raises `FetchError` if a retry is
        of no use."""
        request = urllib.request.Request(self._url)  # noqa: S310 - signed on the control node, for an http(s) endpoint
        if self._arrived:
            request.add_header("Range", f"bytes={self._arrived}-")
        try:
            with direct_opener().open(request, timeout=TIMEOUT_S) as answer:
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
                raise FetchError(
                    f"{self._entry['path']} did not arrive from {store_of(self._url)}: {error.code} {error.reason}"
                ) from None
            return f"{error.code} {error.reason}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return "" if self._arrived == self._entry["size"] else "the connection was closed early"

    def _receive(self, answer: http.client.HTTPResponse, target: io.FileIO) -> None:
        while not self._stop.is_set():
            block = answer.read(BLOCK_BYTES)
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
                    running, SIGN_OF_LIFE_S, return_when=concurrent.futures.FIRST_COMPLETED
                )
                fetched += sum(transfer.result() for transfer in done)
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
