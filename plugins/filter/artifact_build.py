"""Filters that describe a build of role `artifact_build`: the models wanted, what is staged of them, the Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

LOCAL_NOTICE = (
    "The weights and the clip are those that were given to the builder as local files; whoever built this package "
    "knows under which terms."
)


def artifact_build_wanted(
    models: list[str], pinned: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return model -> `sources`, `notice` and `selftest`, as versions.yml pins them and the overrides change them."""
    wanted = {}
    for model in models:
        override = overrides.get(model, {})
        local = {"sources": [{"path": override["path"]}], "notice": LOCAL_NOTICE} if "path" in override else {}
        changes = {**local, **override}
        selftest = {**pinned[model]["selftest"], **changes.get("selftest", {})}
        wanted[model] = {**pinned[model], **changes, "selftest": selftest}
    return wanted


def artifact_build_staged(
    wanted: Mapping[str, Mapping[str, Any]], fetched: Mapping[str, Mapping[str, Any]], tree: str
) -> dict[str, dict[str, Any]]:
    """Return what a build context gets for the models.

    `fetched` maps each model to the `path` and `sha256` of its weights, the `parts` of third parties that it came in
    and the `alignment_heads` that it states; `tree` is the whisper.cpp source. All are empty until they are downloaded
    (check mode), and so are the sources then. Returns `files` (path in the context: source), `sha256` (path in the
    context: digest) and `settings` (model: its part of build.json).
    """
    files, sha256, settings = {}, {}, {}
    for model, entry in wanted.items():
        weights, clip = f"models/{model}.bin", PurePosixPath(entry["selftest"]["audio"])
        files[weights], sha256[weights] = fetched[model]["path"], fetched[model]["sha256"]
        # A relative clip is in the whisper.cpp tree.
        files[f"selftest/{model}.wav"] = str(clip if clip.is_absolute() else PurePosixPath(tree, clip) if tree else "")
        settings[model] = {
            "source_sha256": fetched[model]["sha256"],
            "parts": fetched[model]["parts"],
            "alignment_heads": fetched[model]["alignment_heads"],
            "notice": entry["notice"],
            "selftest": {name: entry["selftest"][name] for name in ("language", "text")},
        }
    return {"files": files, "sha256": sha256, "settings": settings}


def dockerfile_arguments(text: str, arguments: Mapping[str, str | list[str]]) -> str:
    """Return a Dockerfile with other defaults of its arguments; a list becomes one in quotes, separated by blanks."""
    for name, value in arguments.items():
        default = value if isinstance(value, str) else f'"{" ".join(value)}"'
        line = f"ARG {name}={default}".replace("\\", r"\\")
        text, count = re.subn(rf"(?m)^ARG {name}=.*$", line, text)
        if not count:
            raise AnsibleFilterError(f"the Dockerfile has no line ARG {name}=")
    return text


class FilterModule:
    """The filters, by their names in templates."""

    def filters(self) -> dict[str, Any]:
        """Return name -> function."""
        return {
            "artifact_build_wanted": artifact_build_wanted,
            "artifact_build_staged": artifact_build_staged,
            "dockerfile_arguments": dockerfile_arguments,
        }
