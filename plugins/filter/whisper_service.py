"""Filters that make what Ansible knows of a fleet readable."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "host": "host",
    "model": "model",
    "release_id": "release",
    "cpu_variant": "variant",
    "ready_at": "ready since",
    "memory_mb": "memory",
    "requests": "requests",
    "errors": "errors",
    "state": "state",
}
NUMBERS = ("memory_mb", "requests", "errors")


def fleet_table(results: dict[str, dict[str, Any]]) -> str:
    """Return host -> result of module `whisper_service_status` as a table, a line a host, silent hosts included."""
    rows = [COLUMNS]
    for host, result in results.items():
        status = result.get("status") or {"state": _why(result)}
        row = {name: str(status.get(name, "-")) for name in COLUMNS}
        row["release_id"] = row["release_id"][:12]
        if "memory_mb" in status:
            row["memory_mb"] += " MB"
        rows.append({**row, "host": host})
    widths = {name: max(len(row[name]) for row in rows) for name in COLUMNS}
    return "\n".join(
        "  ".join(f"{row[name]:{'>' if name in NUMBERS else '<'}{widths[name]}}" for name in COLUMNS).rstrip()
        for row in rows
    )


def fleet_problems(results: dict[str, tuple[dict[str, Any], ...]]) -> list[str]:
    """Return `host: problem` for host -> results of modules `whisper_service_plan` and `whisper_service_host_check`."""
    return [
        f"{host}: {problem}"
        for host, several in results.items()
        for result in several
        for problem in (result["problems"] if "problems" in result else [_why(result)])
    ]


def _why(result: dict[str, Any]) -> str:
    reason = " ".join(str(result.get("msg", "no answer")).split())
    return f"unreachable: {reason}" if result.get("unreachable") else reason


class FilterModule:
    """The filters, by their names in templates."""

    def filters(self) -> dict[str, Any]:
        """Return name -> function."""
        return {"whisper_fleet_table": fleet_table, "whisper_fleet_problems": fleet_problems}
