"""Action `artifact_build_signature`: sign packages on the control node, with a key or a command of one's own.

A package that this key has signed already, or with a command one that has a signature of its manifest, is left alone.
The key reaches openssl in memory. The task needs `no_log`, as Ansible can be told to show arguments.

Arguments: `packages` (directories), `signing_key` or `signing_command`, and `trusted_keys`, to which the signing key
must belong if there are any. Returns `signed` (directories).
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
    SigningError,
    command_signer,
    is_about,
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
                "packages": {"type": "list", "elements": "str", "required": True},
                "signing_key": {"type": "str", "default": "", "no_log": True},
                "signing_command": {"type": "list", "elements": "str", "default": []},
                "trusted_keys": {"type": "list", "elements": "str", "default": []},
            }
        )
        key, command = arguments["signing_key"], arguments["signing_command"]
        with action_errors():
            public = _public_key(key, arguments["trusted_keys"]) if key else ""
            sign = key_signer(key) if key else command_signer(command)
            wanted = [Path(path) for path in arguments["packages"] if not _is_signed(Path(path), public)]
            for path in wanted if not self._task.check_mode else ():
                Package(path).sign(sign, new_serial())
        return {**result, "changed": bool(wanted), "signed": [str(path) for path in wanted]}


def _public_key(key: str, trusted: list[str]) -> str:
    try:
        public = public_key(key)
    except SigningError as error:
        raise SigningError(f"artifact_build_signing_key: {error}") from None
    if trusted and public not in trusted_keys("\n".join(trusted), "whisper_service_trusted_keys"):
        raise SigningError(
            "the public key of artifact_build_signing_key is not in whisper_service_trusted_keys, so no host would "
            f"take what it signs: add {public} there"
        )
    return public


def _is_signed(directory: Path, public: str) -> bool:
    if not public:
        try:
            return is_about(read_small(directory / SIGNATURE_NAME), (directory / MANIFEST_NAME).read_bytes())
        except FileNotFoundError:
            return False
    try:
        Package(directory, (public,))
    except PackageError:
        return False
    return True
