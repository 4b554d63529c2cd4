"""Action `artifact_build_dist`: tell whether `dist/` holds the packages of these inputs, or put exported ones there.

It runs on the control node. A package directory is exchanged by a rename after every digest was checked.

Arguments: `dist_dir`, `models`, `inputs_sha256`, and `export_dir` to install from there.
Returns `outdated` (messages; empty when nothing has to be built) without `export_dir`, else `packages` (model, path,
release_id).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.whisper.xeon.plugins.plugin_utils.artifact_build import action_errors

from whisper_build.distribution import Built, Distribution


class ActionModule(ActionBase):
    """Inspect or install; reports changed when a package directory was exchanged."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return outdated, or install and return packages."""
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "dist_dir": {"type": "str", "required": True},
                "models": {"type": "list", "elements": "str", "required": True},
                "inputs_sha256": {"type": "str", "required": True},
                "export_dir": {"type": "str", "default": ""},
            }
        )
        with action_errors():
            dist = Distribution(Path(arguments["dist_dir"]), arguments["models"])
            if not arguments["export_dir"]:
                outdated = dist.outdated(arguments["inputs_sha256"])
                packages = [] if outdated else dist.built()
                return {**result, "changed": False, "outdated": outdated, "packages": _plain(packages)}
            if self._task.check_mode:
                return {**result, "changed": True, "packages": []}
            changed = dist.install(Path(arguments["export_dir"]), arguments["inputs_sha256"])
            return {**result, "changed": bool(changed), "packages": _plain(dist.built())}


def _plain(packages: list[Built]) -> list[dict[str, Any]]:
    return [{**asdict(package), "path": str(package.path)} for package in packages]
