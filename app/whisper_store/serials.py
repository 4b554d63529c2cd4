"""The newest serial that a directory has taken from each channel: nothing older is taken from there by itself.

    DIR/.whisper_small_xeon.serials    channel -> serial, and the public key whose owner stated it

A serial counts while its key is trusted: whoever stole a key could state one of the far future with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_package.signature import Signature
from whisper_store.errors import StoreError, Untrusted


class Serials:
    """The serials of the channels of one package."""

    def __init__(self, path: Path):
        """Read `path`; it need not exist. Raises `StoreError` for other content."""
        self._path = path
        try:
            self._channels: dict[str, Any] = json.loads(path.read_bytes())
            valid = all(isinstance(entry["serial"] + entry["key"], str) for entry in self._channels.values())
        except FileNotFoundError:
            self._channels, valid = {}, True
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            valid = False
        if not valid:
            raise StoreError(
                f"{path} is not what whisper-xeon writes there: remove it, and check what the channel names"
            )

    def check(self, channel: str, signature: Signature, trusted: Sequence[str]) -> None:
        """Raise `Untrusted` if a newer release has been taken from a channel before."""
        newest = self._channels.get(channel)
        if newest and newest["key"] in trusted and signature.serial < newest["serial"]:
            raise Untrusted(
                f"channel {channel!r} names release {signature.release_id[:12]} of {signature.model}, signed "
                f"{signature.serial}, but one signed {newest['serial']} was taken from it before: somebody put an old "
                "channel back, or its owner pointed it back and must sign that release again; "
                f"--release {signature.release_id[:12]} takes it nevertheless"
            )

    def note(self, channel: str, signature: Signature) -> None:
        """Note what was taken from a channel. Raises OSError."""
        entry = {"serial": signature.serial, "key": signature.key}
        if self._channels.get(channel) == entry:
            return
        self._channels[channel] = entry
        scratch = self._path.with_name(f"{self._path.name}.new")
        scratch.write_text(json.dumps(self._channels, sort_keys=True, indent=1) + "\n", "utf-8")
        scratch.replace(self._path)
