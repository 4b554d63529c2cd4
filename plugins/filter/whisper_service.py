"""Filters of role `whisper_service`: models, what it reports of a fleet, why a task failed, how systemd is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.whisper.xeon.plugins.plugin_utils import app_path  # noqa: F401 - for the packages of app/

from whisper_package.errors import PackageError
from whisper_package.models import did_you_mean, model_name
from whisper_package.package import packaged_models

COLUMNS = {
    "host": "host",
    "model": "model",
    "release_id": "release",
    "signed": "signed",
    "cpu_variant": "variant",
    "ready_at": "ready since",
    "memory_mb": "memory",
    "requests": "requests",
    "errors": "errors",
    "state": "state",
}
NUMBERS = ("memory_mb", "requests", "errors")
# Exit status of an application that rejects its settings.
BAD_SETTINGS = 2
# Exit statuses from here on are systemd's own (systemd.exec(5)) ...
SYSTEMD = 200
# ... except this one, which systemd-run has for a process that was killed.
KILLED = 255


def by_host(hosts: list[str], hostvars: Mapping[str, Mapping[str, Any]], variable: str, default: Any = None) -> dict:
    """Return host -> value of a variable; hosts without it have `default`, or are left out if that is None."""
    found = {host: hostvars[host].get(variable, default) for host in hosts}
    return {host: value for host, value in found.items() if value is not None}


def model_problems(hosts: list[str], hostvars: Mapping[str, Mapping[str, Any]], start: str) -> list[str]:
    """Return what is wrong with the models of hosts, each problem once and with its hosts.

    Where the package comes from a directory of the control node, relative to `start`, the model must be there; a
    directory without any package is not judged here.
    """
    found: dict[str, list[str]] = {}
    for host in hosts:
        variables = hostvars[host]
        copies = variables.get("whisper_service_transport") == "copy"
        directory = variables.get("whisper_service_artifact_dir") if copies else ""
        model = str(variables.get("whisper_service_model", ""))
        problem = _model_problem(model, Path(start, directory) if directory else None)
        if problem:
            found.setdefault(problem, []).append(host)
    return [f"{problem} (for {', '.join(several)})" for problem, several in found.items()]


def _model_problem(model: str, directory: Path | None) -> str:
    if not model:
        return "whisper_service_model is not set"
    try:
        name = model_name(model)
    except PackageError as error:
        return str(error)
    there = packaged_models(directory) if directory else []
    if not there or name in there:
        return ""
    return f'there is no model "{name}" in {directory}, which has {", ".join(there)}{did_you_mean(name, there)}'


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return host -> result of module `whisper_service_status` as a table, one host per line."""
    rows = [COLUMNS]
    for host, result in results.items():
        status = result.get("status") or {"state": _one_line(result)}
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


def not_serving(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the hosts that do not serve, from host -> result of module `whisper_service_status`."""
    return [host for host, result in results.items() if result.get("status", {}).get("state") != "serving"]


def signed_long_ago(results: dict[str, dict[str, Any]], days: int) -> list[str]:
    """Return the hosts whose release was signed more than `days` ago, with its date, from results as above."""
    status = {host: result.get("status", {}) for host, result in results.items()}
    old = {host: of["signed"] for host, of in status.items() if of.get("signed_days", 0) > days}
    return [f"{host} ({date})" for host, date in old.items()]


def problems(results: list[dict[str, Any]]) -> list[str]:
    """Return the problems that checks found, and for a check that failed the reason."""
    return [problem for result in results for problem in result.get("problems", [_one_line(result)])]


def problem_lines(problems_by_host: dict[str, list[str]]) -> str:
    """Return host -> problems as lines `host: problem`."""
    return "\n".join(f"{host}: {problem}" for host, several in problems_by_host.items() for problem in several)


def reason(result: dict[str, Any]) -> str:
    """Return why a task failed; for a loop over files, of the first that failed and with its path."""
    failed = next((each for each in result.get("results", ()) if each.get("failed")), None)
    if failed is not None:
        item = failed.get(failed.get("ansible_loop_var", "item"))
        return f"{item['path']} {reason(failed)}" if isinstance(item, Mapping) and "path" in item else reason(failed)
    return str(result.get("msg") or result.get("status", {}).get("state", "no reason was given"))


def properties(directives: list[dict[str, Any]]) -> list[str]:
    """Return directives of a unit (`directive`, `value`) as arguments of systemd-run."""
    return [f"--property={entry['directive']}={entry['value']}" for entry in directives]


def self_test_failure(result: dict[str, Any], memory_max: str, cpu_affinity: str, start_timeout: int) -> str:
    """Return why a candidate did not pass its self-test, from the result of systemd-run and the limits it ran under."""
    status = result["rc"]
    verdict = "does not start with these settings" if status == BAD_SETTINGS else "did not pass its self-test"
    output = [text for text in (result["stderr"], result["stdout"]) if text]
    if not output and SYSTEMD <= status < KILLED:
        output = [
            f"systemd could not start it with its limits; `systemd-analyze exit-status {status}` on the host names the "
            f"one: CPUAFFINITY is whisper_service_cpu_affinity ({cpu_affinity or 'not set'})"
        ]
    elif not output:
        limit = f"whisper_service_memory_max is {memory_max}" if memory_max else "whisper_service_memory_max is not set"
        output = [
            f"it ended without any output, as a process that was killed: did it run out of memory ({limit}), or did it "
            f"take more than whisper_service_start_timeout ({start_timeout} s)? See `journalctl -p warning` on the host"
        ]
    return "\n".join([f"the candidate {verdict} (exit status {status}):", *output])


def _one_line(result: dict[str, Any]) -> str:
    text = " ".join(reason(result).split())
    return f"unreachable: {text}" if result.get("unreachable") else text


class FilterModule:
    """The filters, by their names in templates."""

    def filters(self) -> dict[str, Any]:
        """Return name -> function."""
        return {
            f"whisper_service_{each.__name__}": each
            for each in (
                by_host,
                model_problems,
                table,
                not_serving,
                signed_long_ago,
                problems,
                problem_lines,
                reason,
                properties,
                self_test_failure,
            )
        }
