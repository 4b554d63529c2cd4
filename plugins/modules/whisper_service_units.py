"""Ansible module: the links by which systemd finds the units of the current deployment.

Links of our own and not `systemctl enable`, which resolves them and would name one deployment, removed some deploys
later. One module and not the file module, because a link of this role must be told from a unit of somebody else, which
a deploy replaces and an uninstall leaves.
"""

from __future__ import annotations

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: whisper_service_units
short_description: The links by which systemd finds the units of the current deployment
description:
  - Makes or removes the links of the units and those that start them at boot, and reports where they lead.
options:
  units: {type: str, required: true, description: "Directory of the units, through the link `current`."}
  wants: {type: dict, required: true, description: "Unit -> target that starts it at boot."}
  state:
    type: str
    default: present
    choices: [present, absent, query]
    description: Whether the links exist; C(query) changes nothing.
"""

RETURN = r"""
links: {description: Links that were changed, type: list}
serve: {description: "Systemd takes a unit from O(units)", type: bool}
elsewhere: {description: "Other roots from whose current deployment systemd takes a unit", type: list}
"""

SYSTEMD = Path("/etc/systemd/system")


def links_of(units: Path, wants: dict[str, str]) -> dict[Path, str]:
    """Return every link and its target."""
    links = {SYSTEMD / unit: str(units / unit) for unit in wants}
    links.update({SYSTEMD / f"{target}.wants" / unit: f"../{unit}" for unit, target in wants.items()})
    return links


def target_of(link: Path) -> str | None:
    """Return the target of a link; None if there is no link."""
    try:
        return str(link.readlink())
    except OSError:
        return None


def root_of(target: str | None) -> Path | None:
    """Return the root from whose current deployment a link takes its unit, by its real path; None if from no root."""
    found = re.fullmatch(r"(/.*)?/current/units/[^/]+", target or "")
    return Path(found.group(1) or "/").resolve() if found else None


def leads_to(link: Path, target: str) -> bool:
    """Return whether a link leads to that target, under whichever name of the root."""
    found = target_of(link)
    return found == target or (root_of(found) is not None and root_of(found) == root_of(target))


def make(link: Path, target: str) -> None:
    """Point `link` to `target` by one rename."""
    link.parent.mkdir(mode=0o755, exist_ok=True)
    temporary = link.with_name(f".{link.name}.new")
    if temporary.is_symlink():
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "path", "required": True},
            "wants": {"type": "dict", "required": True},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent", "query"]},
        },
        supports_check_mode=True,
    )
    units = Path(module.params["units"])
    links = links_of(units, module.params["wants"])
    root = root_of(str(units / "any"))
    roots = {root_of(target_of(SYSTEMD / unit)) for unit in module.params["wants"]} - {None}
    where = {"serve": root in roots, "elsewhere": sorted(map(str, roots - {root}))}
    if module.params["state"] == "query":
        module.exit_json(changed=False, links=[], **where)
    present = module.params["state"] == "present"
    try:
        # A file in place of a link is somebody else's unit: a deploy replaces it, an uninstall leaves it.
        if present:
            wrong = [link for link, target in links.items() if target_of(link) != target]
        else:
            wrong = [link for link, target in links.items() if leads_to(link, target)]
        for link in wrong if not module.check_mode else ():
            if present:
                make(link, links[link])
            else:
                link.unlink()
                if link.parent != SYSTEMD and not any(link.parent.iterdir()):
                    link.parent.rmdir()
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(wrong), links=[str(link) for link in wrong], **where)


if __name__ == "__main__":
    main()
