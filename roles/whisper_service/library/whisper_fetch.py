"""Ansible module: fetch the files of a package from the store, several at a time, each checked while it arrives.

The addresses are as good as credentials: the module tells the store and the file, never an address.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import io
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: whisper_fetch
short_description: Fetch the files of a package from the store
description:
  - A transfer that breaks off goes on where it stopped; a file with another digest than expected is removed.
options:
  folder: {type: path, required: true, description: The staging folder.}
  files: {type: list, elements: dict, required: true, description: "path below O(folder), size in bytes, sha256"}
  urls: {type: dict, required: true, description: "path -> signed address of the file"}
"""

RETURN = r"""
bytes: {description: How much was fetched, type: int}
"""

CONNECTIONS = 4
ATTEMPTS = 4
TIMEOUT_S = 30  # without any data
BLOCK_BYTES = 1 << 20


class FetchError(Exception):
    """Why a file could not be fetched, for the person who deploys."""


def store_of(url: str) -> str:
    """Return the store that an address leads to, without path and signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


class Transfer:
    """One file on its way: what has arrived and its digest so far."""

    def __init__(self, path: Path, entry: dict, url: str):
        """`path` is where the file goes, `entry` what it has to be."""
        self._path, self._entry, self._url = path, entry, url
        self._arrived, self._digest = 0, hashlib.sha256()

    def run(self) -> int:
        """Fetch the file and return its size in bytes. Raises `FetchError`."""
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                time.sleep(2 ** (attempt - 2))
            try:
                self._go_on()
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if error.code < 500:
                    break
            except (OSError, ValueError, http.client.HTTPException) as error:
                cause = getattr(error, "reason", error)
                reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            else:
                if self._arrived == self._entry["size"]:
                    return self._finish()
                reason = "the connection was closed early"
        raise FetchError(
            f"{self._entry['path']} did not arrive from {store_of(self._url)}: {reason} "
            f"(after {self._arrived} of {self._entry['size']} bytes)"
        )

    def _go_on(self) -> None:
        request = urllib.request.Request(self._url)  # noqa: S310 - signed on the control node, for an http(s) endpoint
        if self._arrived:
            request.add_header("Range", f"bytes={self._arrived}-")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            if self._arrived and answer.status != 206:
                self._arrived, self._digest = 0, hashlib.sha256()
            with open(self._path, "r+b" if self._arrived else "wb", buffering=0) as target:
                target.seek(self._arrived)
                while self._arrived <= self._entry["size"]:
                    block = answer.read(BLOCK_BYTES)
                    if not block:
                        break
                    self._write(target, block)

    def _write(self, target: io.RawIOBase, block: bytes) -> None:
        rest = memoryview(block)
        while rest:
            try:
                written = target.write(rest)
            except OSError as error:
                raise FetchError(f"{self._path} cannot be written: {error.strerror}") from None
            self._digest.update(rest[:written])
            self._arrived += written
            rest = rest[written:]

    def _finish(self) -> int:
        if self._digest.hexdigest() != self._entry["sha256"]:
            self._path.unlink()
            raise FetchError(
                f"{self._entry['path']} from {store_of(self._url)} has another SHA-256 than its manifest says: the "
                "store holds other bytes than were published"
            )
        self._path.chmod(0o644)
        return self._arrived


def fetch(folder: Path, files: list[dict], urls: dict[str, str]) -> int:
    """Fetch every file, the largest first, and return the bytes. Raises `FetchError` for the first that fails."""
    transfers = [
        Transfer(folder / entry["path"], entry, urls[entry["path"]])
        for entry in sorted(files, key=lambda entry: entry["size"], reverse=True)
    ]
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        running = [pool.submit(transfer.run) for transfer in transfers]
        try:
            return sum(future.result() for future in concurrent.futures.as_completed(running))
        except FetchError:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "urls": {"type": "dict", "required": True, "no_log": True},
        },
    )
    try:
        fetched = fetch(Path(module.params["folder"]), module.params["files"], module.params["urls"])
    except FetchError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, bytes=fetched)


if __name__ == "__main__":
    main()
