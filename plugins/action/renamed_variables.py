"""Action `renamed_variables`: fail if an inventory or a command line uses a name that no variable has any more.

It looks at the variables of all hosts of the play, extra variables included, and reports all old names at once: run it
once for a play. It connects to no host and changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.whisper.xeon.plugins.module_utils.renamed_variables import REMOVED, RENAMED

try:
    # Says in which file and line a name is; Ansible has no public interface for it.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

# Of the clone or of the installed collection.
_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "rename_variables.py"
# As many places are shown for each name.
_SHOWN = 5


class ActionModule(ActionBase):
    """Takes no argument."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with one line for each old name."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self.validate_argument_spec({})
        places = find_old_names(_variables(task_vars))
        if not places:
            return result
        sources = task_vars.get("ansible_inventory_sources") or []
        inventory = _relative(str(sources[0])) if len(sources) == 1 else "INVENTORY"
        report = [f"{old} {_instead(old)}{_where(places[old])}" for old in sorted(places)]
        return {
            **result,
            "failed": True,
            "msg": "\n".join(
                [
                    "These variables have new names or are gone:",
                    *report,
                    f"`{_relative(str(_SCRIPT))} {inventory}` renames them in an inventory; `--dry-run` only shows "
                    "what it would do.",
                ]
            ),
        }


def find_old_names(several: Iterator[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return old name -> the places where it is set, as far as Ansible knows them, for mappings of variables."""
    places = defaultdict(set)
    for variables in several:
        for name in variables:
            if name in RENAMED or name in REMOVED:
                places[str(name)].update(_origin(name, variables[name]))
    return dict(places)


def _variables(task_vars: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield dict.fromkeys(task_vars)
    for host in task_vars["ansible_play_hosts_all"]:
        yield task_vars["hostvars"].raw_get(host)


def _origin(name: str, value: Any) -> list[str]:
    tags = [Origin.get_tag(tagged) for tagged in (name, value)] if Origin else []
    return [
        f"{_relative(tag.path)}:{tag.line_num}" if tag.path and tag.line_num else _relative(tag.path) or tag.description
        for tag in tags
        if tag
    ][:1]


def _relative(path: str | None) -> str:
    if not path:
        return ""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _instead(old: str) -> str:
    return f"is now {RENAMED[old]}" if old in RENAMED else f"is gone: {REMOVED[old]}"


def _where(places: set[str]) -> str:
    shown = sorted(places)[:_SHOWN]
    if len(places) > _SHOWN:
        shown.append(f"and {len(places) - _SHOWN} more")
    return f" ({', '.join(shown)})" if shown else ""
