"""Chooses the CPU library of a package for this processor: by its flags, never by its vendor or name.

An instruction that the processor lacks would be a SIGILL, so nothing is loaded before the choice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from whisper_package.errors import VariantError
from whisper_package.package import Package


@dataclass(frozen=True)
class Variant:
    """The CPU library to load: its name in the manifest, its path in the package, and why it is this one."""

    name: str
    path: str
    reason: str


def cpu_flags(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str]:
    """Return the flags of this host's processor, by the kernel's names (`avx2`, `fma`, …)."""
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise VariantError(
            f"{cpuinfo} cannot be read ({error.strerror}): it lists what the processor supports"
        ) from None
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split() if found else ())


def choose_variant(package: Package, flags: frozenset[str], wanted: str | None = None) -> Variant:
    """Return the first of the manifest's variants, which are in order of preference, for which `flags` suffice.

    `wanted` names another one, unless it is None or `auto`. Raises `VariantError`, which says what is missing.
    """
    variants = package.manifest["variants"]
    lacking = {variant["name"]: sorted(set(variant["cpu_flags"]) - flags) for variant in variants}
    paths = {variant["name"]: variant["path"] for variant in variants}
    able = [name for name in lacking if not lacking[name]]
    if wanted and wanted != "auto":
        if wanted not in lacking:
            raise VariantError(f"{package.name} has no CPU variant {wanted!r}; it has {', '.join(lacking)}")
        if wanted not in able:
            raise VariantError(
                f"this host's processor lacks {', '.join(lacking[wanted])} for CPU variant {wanted!r}; "
                f"it runs {', '.join(able) or 'none of the package'}"
            )
        return Variant(wanted, paths[wanted], "requested")
    if not variants:
        raise VariantError(f"{package.directory} has no CPU variant: fetch or build the package again")
    if not able:
        fewest = min(lacking.values(), key=len)
        raise VariantError(
            f"this host's processor lacks {', '.join(fewest)}: {package.name} needs AVX2 "
            "(Intel Haswell or newer); use another host"
        )
    best, better = able[0], list(lacking)[: list(lacking).index(able[0])]
    reason = f"the best that this processor runs; {better[-1]} needs {', '.join(lacking[better[-1]])}" if better else ""
    return Variant(best, paths[best], reason or "the best of the package")
