"""Builds with setuptools, unless openai-whisper is installed where pip would put the result: both are `whisper`."""

from __future__ import annotations

import sysconfig
from importlib import metadata
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks that need no check


def build_wheel(*arguments: Any) -> str:
    """Build the wheel. Ends the build when the original is installed in the environment of this interpreter."""
    # pip hides the environment's packages from a build, so they are looked for where they lie.
    paths = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    if any(metadata.distributions(name="openai-whisper", path=paths)):
        raise SystemExit(
            "openai-whisper is installed here, and whisper-xeon-openai does not replace it: "
            "pip uninstall openai-whisper, then install again"
        )
    return build_meta.build_wheel(*arguments)
