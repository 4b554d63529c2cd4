"""Action `artifact_build_context`: make a Docker build context exactly what its arguments describe.

It runs on the control node, where the sources are. It touches only what differs and removes what is not described. The
context then is this run's until the playbook ends: another one that asks for it is rejected.

Arguments: `dest`; `files` (path in the context → source file), `trees` (path → source directory), `texts` (path →
content), `directories` (empty ones), `sha256` (path in the context → digest of a file that was read before). A source
that is an empty string is not there yet (check mode).
Returns `inputs_sha256`, the digest of everything described, empty when a source is not there yet.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.whisper.xeon.plugins.plugin_utils.artifact_build import action_errors

from whisper_build.claim import claim
from whisper_build.context import BuildContext

# A directory with more differences than this is shown by their number.
_LISTED = 20


class ActionModule(ActionBase):
    """Compare, apply outside check mode, and report the digest of the inputs."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return inputs_sha256, and with --diff the paths that differ."""
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "dest": {"type": "str", "required": True},
                "files": {"type": "dict", "default": {}},
                "trees": {"type": "dict", "default": {}},
                "texts": {"type": "dict", "default": {}},
                "directories": {"type": "list", "elements": "str", "default": []},
                "sha256": {"type": "dict", "default": {}},
            }
        )
        if "" in [*arguments["files"].values(), *arguments["trees"].values()]:
            return {**result, "changed": True, "inputs_sha256": ""}
        dest = Path(arguments["dest"])
        with action_errors():
            if not self._task.check_mode:
                # An action runs in a child of the playbook's process.
                claim(dest, os.getppid())
            context = BuildContext(
                dest,
                files={relative: Path(source) for relative, source in arguments["files"].items()},
                trees={relative: Path(source) for relative, source in arguments["trees"].items()},
                texts=arguments["texts"],
                directories=arguments["directories"],
            )
            differences = context.differences()
            if differences and not self._task.check_mode:
                context.apply(differences)
            digest = context.digest(arguments["sha256"])
        if self._task.diff and differences:
            result["diff"] = {"prepared": "".join(f"{line}\n" for line in _summary(differences))}
        return {**result, "changed": bool(differences), "inputs_sha256": digest}


def _summary(differences: list[str]) -> list[str]:
    """Name the paths, but a directory with many of them (the source tree of a first run) in one line."""
    tops = Counter(path.split("/")[0] for path in differences)
    lines = [path for path in differences if tops[path.split("/")[0]] <= _LISTED]
    return lines + [f"{top}/: {count} files" for top, count in tops.items() if count > _LISTED]
