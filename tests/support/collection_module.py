"""Plugins of the collection, to call their functions in this process."""

from __future__ import annotations

import importlib
from types import ModuleType

import ansible_collections

from paths import ROOT

# Where Ansible finds this collection, by ansible.cfg.
ansible_collections.__path__.append(str(ROOT / "collections" / "ansible_collections"))


def load_module(name: str, kind: str = "modules") -> ModuleType:
    """Return a module of the collection, or a plugin of another kind, by its name."""
    return importlib.import_module(f"ansible_collections.whisper.xeon.plugins.{kind}.{name}")
