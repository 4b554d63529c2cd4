"""Action `artifact_build_signature`: sign packages on the control node, with a key or a command of one's own.

A package that this key has signed already is left alone; with a command, whose key is not known, one that a trusted
key has signed, or, without trusted keys, one that has a signature of its manifest. The key reaches openssl in memory.
The task needs `no_log`, as Ansible can be told to show arguments.

Arguments: `packages` (directories), `signing_key` or `signing_command`, `trusted_keys`, and `trial`: fail if what signs
does not work, or belongs to none of the trusted keys. Returns `signed` (directories).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.whisper.xeon.plugins.plugin_utils.artifact_build import action_errors

from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import (
    Signer,
    SigningError,
    command_signer,
    is_about,
    key_of,
    key_signer,
    new_serial,
    public_key,
    trusted_keys,
)
from whisper_package.small_files import read_small


class ActionModule(ActionBase):
    """Reports changed when a signature was written."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the directories of the packages that got a signature, or would get one in check mode."""
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "packages": {"type": "list", "elements": "str", "default": []},
                "signing_key": {"type": "str", "default": "", "no_log": True},
                "signing_command": {"type": "list", "elements": "str", "default": []},
                "trusted_keys": {"type": "list", "elements": "str", "default": []},
                "trial": {"type": "bool", "default": False},
            }
        )
        key, command = arguments["signing_key"], arguments["signing_command"]
        with action_errors():
            own = _public_key(key) if key else ""
            sign = key_signer(key) if key else command_signer(command)
            keys = (own,) if own else _trusted(arguments["trusted_keys"])
            if arguments["trial"]:
                _try(sign, own, _trusted(arguments["trusted_keys"]))
            wanted = [path for path in arguments["packages"] if not _is_signed(Path(path), keys)]
            for path in wanted if not self._task.check_mode else ():
                Package(path).sign(sign, new_serial())
        return {**result, "changed": bool(wanted), "signed": wanted}


def _public_key(key: str) -> str:
    try:
        return public_key(key)
    except SigningError as error:
        raise SigningError(f"artifact_build_signing_key: {error}") from None


def _trusted(keys: list[str]) -> tuple[str, ...]:
    return trusted_keys("\n".join(keys), "whisper_service_trusted_keys") if keys else ()


def _try(sign: Signer, own: str, trusted: tuple[str, ...]) -> None:
    if key_of(sign, trusted):
        return
    if own:
        raise SigningError(
            "the public key of artifact_build_signing_key is not in whisper_service_trusted_keys, so no host would "
            f"take what it signs: add {own} there"
        )
    raise SigningError(
        "artifact_build_signing_command signs with a key that is not in whisper_service_trusted_keys, so no host would "
        "take what it signs: add its public key there"
    )


def _is_signed(directory: Path, keys: tuple[str, ...]) -> bool:
    if not keys:
        try:
            return is_about(read_small(directory / SIGNATURE_NAME), (directory / MANIFEST_NAME).read_bytes())
        except OSError:
            return False
    try:
        Package(directory, keys)
    except PackageError:
        return False
    return True
