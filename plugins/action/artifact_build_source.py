"""Action `artifact_build_source`: get a model, a file or the whisper.cpp source into the control node's cache.

An action and not a module, because it runs on the control node whatever the host is, and because only an action can
show progress while a model of 1.5 GB comes down. It never writes outside the cache.

Arguments: `name` (for messages), `kind` (`model`, `file` or `whisper_cpp`), `sources` (see whisper_build/sources.py),
`sha256` (the pinned digest of the whisper.cpp tree; empty for a tree of one's own), `assets` (what a model gets that
has to be converted, a package of the Python index), `cache_dir`.
Returns `path`, `sha256`, `parts` (of third parties), `alignment_heads` (that a model's directory states) and `fetched`;
they are empty in check mode when the content would have to be downloaded or converted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.whisper.xeon.plugins.plugin_utils.artifact_build import action_errors

from whisper_build.sources import Cache, default_cache


class ActionModule(ActionBase):
    """Fetch through the cache; reports changed when something new came into it."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return path, sha256 and fetched, or fail with the one line that says what to do."""
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "name": {"type": "str", "required": True},
                "kind": {"type": "str", "required": True, "choices": ["model", "file", "whisper_cpp"]},
                "sources": {"type": "list", "elements": "dict", "required": True},
                "sha256": {"type": "str", "default": ""},
                "assets": {"type": "dict", "default": {}},
                "cache_dir": {"type": "str", "default": ""},
            }
        )
        directory = Path(arguments["cache_dir"]).expanduser() if arguments["cache_dir"] else default_cache()
        cache = Cache(directory, lambda line: self._display.display(f"  {line}"), read_only=self._task.check_mode)
        with action_errors():
            if arguments["kind"] == "model":
                fetched = cache.model(arguments["name"], arguments["sources"], arguments["assets"])
            elif arguments["kind"] == "file":
                fetched = cache.file(arguments["name"], arguments["sources"])
            else:
                fetched = cache.whisper_cpp(arguments["sources"], arguments["sha256"] or None)
        if fetched is None:
            nothing = {"fetched": False, "path": "", "sha256": "", "parts": [], "alignment_heads": []}
            return {**result, "changed": True, **nothing}
        return {
            **result,
            "changed": fetched.changed,
            "fetched": True,
            "path": str(fetched.path),
            "sha256": fetched.sha256,
            "parts": list(fetched.parts),
            "alignment_heads": [list(pair) for pair in fetched.alignment_heads],
        }
