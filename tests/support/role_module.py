"""Modules of role whisper_service, to call their functions in this process."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import ansible.module_utils

from paths import ROOT

ROLE = ROOT / "roles" / "whisper_service"
# Where Ansible would find what the modules have in common.
ansible.module_utils.__path__.append(str(ROLE / "module_utils"))


def load_module(name: str) -> ModuleType:
    """Return a module by its name in the role."""
    spec = importlib.util.spec_from_file_location(name, ROLE / "library" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
