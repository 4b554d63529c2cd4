"""Ansible module: check whether a host can take a deployment. It changes nothing and reports every problem at once.

It must run where the service cannot, to report that: on any Linux with a Python that Ansible supports.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import (
    DirectOpener,
    read_serials,
    show_unit,
    store_of,
)

DOCUMENTATION = r"""
module: whisper_service_host_check
short_description: Check whether a host can take a deployment
description:
  - Compares CPU, libraries, disk, memory, port and the way to the store with what a deployment needs. Changes nothing.
options:
  root: {type: path, required: true, description: Directory of the service; it need not exist.}
  digest: {type: str, required: true, description: Name of the deployment.}
  record:
    type: str
    required: true
    description: Text of its deployment.json. Files that the host has need no space. Empty if there is no package.
  variants: {type: list, elements: dict, required: true, description: CPU variants of the package with their cpu_flags.}
  minimum: {type: dict, required: true, description: Versions of glibc and glibcxx that the package needs.}
  memory_mb: {type: int, required: true, description: Memory of the model with one engine, in MB.}
  weights_bytes: {type: int, required: true, description: Size of the model file.}
  memory_max: {type: str, default: "", description: The unit's MemoryMax; empty means none.}
  packages: {type: list, elements: str, default: [], description: Debian packages that the service needs.}
  address: {type: str, default: "", description: "Address to listen on, IPv6 in brackets; empty means all."}
  port: {type: int, required: true, description: Port to listen on.}
  socket_unit: {type: str, required: true, description: The socket unit that may listen on the port already.}
  model: {type: str, required: true, description: Model of the package.}
  channel:
    type: str
    default: ""
    description: >-
      Channel that named the release. It must not be older than what the host confirmed from there; empty for a release
      that was named.
  signature: {type: dict, default: {}, description: "The release's serial, and the public key whose owner stated it."}
  trusted_keys: {type: list, elements: str, default: [], description: Public keys that count.}
  store_url: {type: str, description: "Signed URL of a file in the store, if the package comes from there."}
  store_sha256: {type: str, description: SHA-256 of that file.}
"""

RETURN = r"""
problems: {description: "What prevents the deployment and what to do about it; empty if nothing does", type: list}
packages_missing: {description: Which of the packages are not installed, type: list}
"""

OLDEST_PYTHON = (3, 9)
STORE_TIMEOUT_S = 15
STORE_MAX_BYTES = 1 << 20
PACKAGES_MB = 450  # ffmpeg and what it needs, on a bare Debian 12
# What the unit does not see (ProtectHome, PrivateTmp and others in vars/main.yml).
HIDDEN = tuple(map(Path, ("/home", "/root", "/run", "/tmp", "/var/tmp", "/var/log", "/dev")))  # noqa: S108
LIBSTDCXX = ("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/lib64/libstdc++.so.6")


def cpu_flags() -> set[str]:
    """Return the flags of the first processor, named as in /proc/cpuinfo."""
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text("ascii", "replace"), re.MULTILINE)
    return set(found.group(1).split()) if found else set()


def glibcxx_version() -> str:
    """Return the newest GLIBCXX version that libstdc++ defines; empty without the library."""
    for path in map(Path, LIBSTDCXX):
        if path.exists():
            versions = re.findall(rb"GLIBCXX_(\d+(?:\.\d+)+)\0", path.read_bytes())
            return max((version.decode() for version in versions), key=_numbers, default="")
    return ""


def disk_free_mb(directory: Path) -> int:
    """Return the free space of the file system that contains `directory` or would contain it."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free >> 20


def memory_available_mb() -> int:
    """Return the memory that new processes can use without swapping."""
    return _meminfo_kb("MemAvailable") >> 10


def _meminfo_kb(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    return int(found.group(1)) if found else 0


def packages_missing(packages: list[str]) -> list[str]:
    """Return the packages that dpkg does not know as installed."""
    if not packages:
        return []
    query = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def system_problems() -> list[str]:
    """Return what prevents this machine from being a host at all."""
    found = []
    machine = os.uname().machine
    if machine != "x86_64":
        found.append(f"the processor is {machine}: the package is for x86_64")
    if not Path("/run/systemd/system").is_dir():
        found.append("systemd does not run on this host: the service is a systemd unit")
    if not shutil.which("dpkg-query"):
        found.append("this is neither Debian nor derived from it: the role installs with apt-get")
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        found.append(f"Python is {sys.version.split()[0]}, the service needs {wanted}: use a newer Debian")
    return found


def root_problems(root: Path) -> list[str]:
    """Return the problem of a directory in which no deployment can be, if there is one."""
    if not root.is_absolute():
        return [f"whisper_service_root is {str(root)!r}: set the whole path of a directory on the host"]
    hidden = next((place for place in HIDDEN if place in (root, *root.parents)), None)
    if hidden:
        return [f"whisper_service_root is {root}, but the service's sandbox hides {hidden}: set a directory elsewhere"]
    if root.exists() and not root.is_dir():
        return [f"whisper_service_root is {root}, which is not a directory: set another one"]
    return []


def processor_problems(flags: set[str], variants: list[dict]) -> list[str]:
    """Return the problem of a processor that no variant of the package supports, if there is one."""
    lacking = [sorted(set(variant["cpu_flags"]) - flags) for variant in variants]
    if not all(lacking):
        return []
    fewest = min(lacking, key=len)
    return [f"the processor lacks {', '.join(fewest)}: the package needs a newer one"]


def library_problems(name: str, present: str, needed: str) -> list[str]:
    """Return the problem of a library older than needed, if there is one."""
    if present and _numbers(present) >= _numbers(needed):
        return []
    return [f"{name} is {present or 'missing'}, the package needs {needed}: use a newer Debian"]


def space_problems(what: str, free_mb: int, needed_mb: int) -> list[str]:
    """Return the problem of too little disk or memory, if there is one."""
    return [] if free_mb >= needed_mb else [f"{what} has {free_mb} MB free, {needed_mb} MB are needed: make room"]


def disk_problems(root: Path, record: dict, packages_mb: int) -> list[str]:
    """Return the problem of a disk without space for what is missing and, on a new host, for the deployment after it.

    `packages_mb` is what Debian packages will take of the disk that contains /usr.
    """
    known = [_record(path) for path in root.glob(f"deployments/{'[0-9a-f]' * 64}/deployment.json")]
    present = {entry["sha256"] for each in known for entry in each["files"]}
    missing = sum(entry["size"] for entry in record["files"] if entry["sha256"] not in present)
    needed_mb = int(missing / 1e6 * 1.1 + 50) * (1 if known else 2)
    nearest = root
    while not nearest.exists():
        nearest = nearest.parent
    if nearest.stat().st_dev == Path("/usr").stat().st_dev:
        return space_problems(f"the disk of {root}", disk_free_mb(root), needed_mb + packages_mb)
    return [
        *space_problems(f"the disk of {root}", disk_free_mb(root), needed_mb),
        *(space_problems("the disk of /usr", disk_free_mb(Path("/usr")), packages_mb) if packages_mb else ()),
    ]


def memory_problems(root: Path, digest: str, memory_mb: int) -> list[str]:
    """Return the problem of too little memory for a candidate beside what serves or, on a new host, will serve."""
    current = root / "current"
    if current.resolve().name == digest:
        return []
    models = 1 if current.is_symlink() else 2
    return space_problems("the memory", memory_available_mb(), memory_mb * models)


def memory_limit(memory_max: str) -> int | None:
    """Return what systemd's MemoryMax allows, in bytes; None if there is no limit or only systemd can judge it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTPE%]?)", memory_max)
    if not found:
        return None
    number, unit = float(found.group(1)), found.group(2)
    if unit == "%":
        return int(number / 100 * _meminfo_kb("MemTotal") * 1024)
    return int(number * 1024 ** " KMGTPE".index(unit or " "))


# What one decoder may take (app/whisper_xeon/audio/ffmpeg.py).
_DECODER_MB = 400


def limit_problems(memory_max: str, weights_bytes: int, memory_mb: int) -> list[str]:
    """Return the problem of a memory limit below the size of the weights, if there is one."""
    limit = memory_limit(memory_max)
    if limit is None or limit >= weights_bytes:
        return []
    return [
        f"whisper_service_memory_max is {memory_max}, but the weights alone take {weights_bytes / 1e6:.0f} MB: set at "
        f"least {memory_mb + _DECODER_MB}M, which one engine with ten minutes of audio and one decoder need"
    ]


def package_problems(root: Path, wanted: dict, packages_mb: int) -> list[str]:
    """Return what prevents this machine from running the package; `wanted` has the module's options."""
    return [
        *processor_problems(cpu_flags(), wanted["variants"]),
        *library_problems("glibc", (os.confstr("CS_GNU_LIBC_VERSION") or "0").split()[-1], wanted["minimum"]["glibc"]),
        *library_problems("GLIBCXX of libstdc++", glibcxx_version(), wanted["minimum"]["glibcxx"]),
        *disk_problems(root, json.loads(wanted["record"]), packages_mb),
        *memory_problems(root, wanted["digest"], wanted["memory_mb"]),
        *limit_problems(wanted["memory_max"], wanted["weights_bytes"], wanted["memory_mb"]),
    ]


def port_problems(address: str, port: int, socket_unit: str) -> list[str]:
    """Return the problem of an invalid port, or of one on which something other than the service's socket listens."""
    if not 1 <= port <= 65535:
        return [f"whisper_service_port is {port}: set a number from 1 to 65535"]
    try:
        with _stream_socket(address) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.strip("[]"), port))
            return []
    except OSError as error:
        # Another error, such as that of an address that the host gets later, is no problem of the port.
        if error.errno != errno.EADDRINUSE or port in _ports_of(socket_unit):
            return []
    where = f"{address}:{port}" if address else f"port {port}"
    return [f"{where} is taken{_listener(port)}: stop what listens there, or set whisper_service_port"]


def _stream_socket(address: str) -> socket.socket:
    if address and not address.startswith("["):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        return socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:  # a kernel without IPv6
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def _ports_of(unit: str) -> set[int]:
    shown = show_unit(unit, "Listen", "ActiveState")
    return {int(port) for port in re.findall(r":(\d+) \(Stream\)", shown)} if "ActiveState=active" in shown else set()


def _listener(port: int) -> str:
    """Return ` by NAME (process N)`, or an empty string if that is not known."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text("ascii").splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Path.readlink needs Python 3.9, which is what this module checks.
            if any(os.readlink(descriptor) in inodes for descriptor in (process / "fd").iterdir()):  # noqa: PTH115
                return f" by {(process / 'comm').read_text('utf-8', 'replace').strip()} (process {process.name})"
        except OSError:
            continue
    return ""


def store_problems(url: str, sha256: str) -> list[str]:
    """Return the problem of a store from which this host cannot fetch a file, without the signed URL."""
    store = store_of(url)
    opener = DirectOpener()
    end = threading.Timer(STORE_TIMEOUT_S, opener.hang_up)
    end.daemon = True
    end.start()
    try:
        with opener.open(url, STORE_TIMEOUT_S) as answer:
            data = answer.read(STORE_MAX_BYTES)
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            return [
                f"the store {store} sends this host elsewhere ({error.code} {error.reason}), which is not followed: "
                "set artifact_store_host_endpoint to the address that answers itself"
            ]
        return [
            f"the store {store} answers this host with {error.code} {error.reason}: compare the clocks, and check that "
            "artifact_store_host_endpoint leads to the store without a proxy that rewrites requests"
        ]
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return [
                f"this host does not trust the certificate of the store {store} ({reason.verify_message}): install the "
                "certificate authority there, with the package ca-certificates and update-ca-certificates"
            ]
        why = getattr(reason, "strerror", None) or str(reason)
        return [
            f"the store {store} cannot be reached from this host: {why}; set artifact_store_host_endpoint to "
            "an address that hosts can reach, or deploy with -e whisper_service_transport=copy"
        ]
    finally:
        end.cancel()
    if hashlib.sha256(data).hexdigest() != sha256:
        return [
            f"the store {store} sends this host content that differs from what the control node reads: is a proxy "
            "rewriting responses?"
        ]
    return []


def serial_problems(root: Path, model: str, channel: str, signature: dict, trusted: list[str]) -> list[str]:
    """Return the problem of a release that is older than what this host confirmed of its channel.

    What was confirmed counts while its key is trusted: whoever stole a key can state any serial with it.
    """
    try:
        confirmed = read_serials(root).get(channel, {}).get(model)
    except ValueError as error:
        return [str(error)]
    # Without a package there is nothing to compare.
    if not channel or not signature or not confirmed or signature["serial"] >= confirmed["serial"]:
        return []
    if not any(confirmed["key"] in key for key in trusted):
        return []
    return [
        f"channel {channel!r} names a release of {model} signed {signature['serial']}, and this host confirmed one "
        f"signed {confirmed['serial']} ({confirmed['release_id'][:12]}) from it: somebody put an old channel back, or "
        "its owner pointed it back and must sign that release again; an older one is deployed by id (docs/signing.md)"
    ]


def _record(path: Path) -> dict:
    """Return the record of a deployment; one that was altered lists nothing, as its files are fetched again."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    intact = hashlib.sha256(data).hexdigest() == path.parent.name
    return json.loads(data) if intact else {"files": []}


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
            "record": {"type": "str", "required": True},
            "variants": {"type": "list", "elements": "dict", "required": True},
            "minimum": {"type": "dict", "required": True},
            "memory_mb": {"type": "int", "required": True},
            "weights_bytes": {"type": "int", "required": True},
            "memory_max": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "required": True},
            "socket_unit": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "channel": {"type": "str", "default": ""},
            "signature": {"type": "dict", "default": {}},
            "trusted_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "store_url": {"type": "str", "no_log": True},
            "store_sha256": {"type": "str"},
        },
        required_together=[("store_url", "store_sha256")],
        supports_check_mode=True,
    )
    wanted = module.params
    root = Path(wanted["root"])
    problems = system_problems()
    missing = packages_missing(wanted["packages"]) if shutil.which("dpkg-query") else []
    problems += root_problems(root)
    if not problems:
        problems = [
            *(package_problems(root, wanted, PACKAGES_MB if missing else 0) if wanted["record"] else ()),
            *port_problems(wanted["address"], wanted["port"], wanted["socket_unit"]),
        ]
        there = wanted["digest"] and (root / "deployments" / wanted["digest"]).is_dir()
        if wanted["store_url"] and not there:
            problems += store_problems(wanted["store_url"], wanted["store_sha256"])
    problems += serial_problems(root, *(wanted[name] for name in ("model", "channel", "signature", "trusted_keys")))
    module.exit_json(changed=False, problems=problems, packages_missing=missing)


if __name__ == "__main__":
    main()
