"""Ansible module: the links by which systemd finds the units of the current deployment.

Links of our own and not `systemctl enable`, which resolves them and would name one deployment, removed some deploys
later. One module and not the file module, because a link of this role must be told from a unit of somebody else, which
a deploy replaces and an uninstall leaves.
"""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: whisper_service_units
short_description: The links by which systemd finds the units of the current deployment
description:
  - Makes or removes the links of the units and those that start them at boot.
options:
  units: {type: str, required: true, description: "Directory of the units, through the link `current`."}
  wants: {type: dict, required: true, description: "Unit -> target that starts it at boot."}
  state: {type: str, default: present, choices: [present, absent], description: "Whether the links exist."}
"""

RETURN = r"""
links: {description: Links that were changed, type: list}
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
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        },
        supports_check_mode=True,
    )
    links = links_of(Path(module.params["units"]), module.params["wants"])
    present = module.params["state"] == "present"
    try:
        # A file in place of a link is somebody else's unit: a deploy replaces it, an uninstall leaves it.
        wrong = [link for link, target in links.items() if (target_of(link) == target) != present]
        if not present:
            wrong = [link for link in wrong if link.is_symlink()]
        for link in wrong if not module.check_mode else ():
            if present:
                make(link, links[link])
            else:
                link.unlink()
                if link.parent != SYSTEMD and not any(link.parent.iterdir()):
                    link.parent.rmdir()
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(wrong), links=[str(link) for link in wrong])


if __name__ == "__main__":
    main()
