"""Ansible module: the deployments on a host, from staging to pruning.

The root contains `deployments/<digest>/` and three links. `current` is what systemd starts, `confirmed` is what last
passed its health check, `previous` is what was confirmed before that. `current` and `confirmed` differ only while a
switch is unfinished, so the run after an interrupted one sees that, and what to roll back to. A deployment's digest is
the SHA-256 of its `deployment.json`, which lists every file. A directory with a digest as its name is complete, because
it gets that name last, by a rename.

The module never reads or changes anything outside the root and needs only Python 3.9 on the host. Whatever else the
root contains stays: what is removed is told from it by its name, by its record and by what a link names.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import (
    read_serials,
    serials_file,
    wait_for_others,
)

DOCUMENTATION = r"""
module: whisper_service_deployment
short_description: The deployments on a host
description:
  - Stages, verifies, switches, confirms and removes the deployments below a directory, and reports what is there.
  - What else that directory contains is never touched.
options:
  root: {type: path, required: true, description: Directory of the service.}
  state:
    type: str
    default: query
    choices: [query, created, staged, complete, current, confirmed, absent, pruned, uninstalled]
    description:
      - C(query) changes nothing.
      - C(created) creates the directories, and notes for C(uninstalled) which of them it created.
      - C(staged) fills a staging directory with the files that are at hand and returns those that are missing.
      - C(complete) verifies the staging directory and renames it to the digest.
      - C(current) makes a deployment the one that systemd starts; an empty digest means none.
      - C(confirmed) records that the current deployment is healthy, and what was signed of its release.
      - C(absent) removes a deployment and its staging directory, unless a link names it.
      - C(pruned) removes all deployments except the newest O(keep) and those in use.
      - C(uninstalled) removes the links, every deployment and the directories that the role created, and nothing else.
  digest: {type: str, description: Name of the deployment.}
  record: {type: str, description: Text of deployment.json, for C(staged).}
  bundle: {type: str, description: "Base64 of a tar.gz of the small files, for C(staged)."}
  keep: {type: int, default: 3, description: How many deployments C(pruned) leaves.}
  channel: {type: str, default: "", description: "Channel that named the release, for C(confirmed)."}
  signature: {type: dict, default: {}, description: "For C(confirmed): serial and key to note of it, if there are any."}
"""

RETURN = r"""
deployments: {description: "digest -> {digest, model, release_id, url} of every complete deployment", type: dict}
current: {description: "Digest that the link names, or an empty string; confirmed and previous likewise", type: str}
rollback: {description: Digest of the deployment to which a rollback goes; empty if there is none, type: str}
staging: {description: The staging directory, type: str}
complete: {description: The deployment exists and every digest is right, type: bool}
missing: {description: "Files that must be brought to the staging directory: path, size, sha256", type: list}
restart: {description: The service may not be running the current deployment, type: bool}
restart_socket: {description: The socket's unit differs from the confirmed deployment's, type: bool}
left: {description: "What C(uninstalled) left in the root, because no deployment made it: paths below it", type: list}
"""

LINKS = ("current", "confirmed", "previous")
RECORD = "deployment.json"
CREATED = "created-directories"  # those that the role created for the root, one per line, the outermost first
COMPLETE = re.compile(r"[0-9a-f]{64}")
UNFINISHED = re.compile(r"\.(?:staging|broken)-[0-9a-f]{64}")
SOCKET_UNIT = "units/whisper-xeon.socket"


class DeploymentError(Exception):
    """What is wrong with a deployment, in words for the person who deploys."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def is_right(path: Path, entry: dict) -> bool:
    """Return whether the file at `path` is the one that a record's entry describes."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == entry["size"] and file_digest(path) == entry["sha256"]


def extra(directory: Path, listed: set[str]) -> list[str]:
    """Return what is in a directory beside the listed files and their directories; a link is no directory."""
    needed = {parent.as_posix() for path in listed for parent in Path(path).parents}
    found = []
    for parent, directories, names in os.walk(directory):
        here = Path(parent).relative_to(directory)
        right = [
            name for name in directories if (here / name).as_posix() in needed and not Path(parent, name).is_symlink()
        ]
        others = sorted({*directories} - {*right}) + sorted(names)
        found += [(here / name).as_posix() for name in others if (here / name).as_posix() not in listed]
        directories[:] = right
    return found


def replace_link(link: Path, target: str) -> None:
    """Point `link` to `target` by one rename, or remove it if `target` is empty."""
    if not target:
        link.unlink(missing_ok=True)
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync(link.parent)


def describe(record: dict) -> str:
    """Return a record as lines to compare: model, release, and every file with the first digits of its digest."""
    files = [f"{entry['sha256'][:12]} {entry['path']}" for entry in record["files"]]
    return "\n".join([f"model {record['model']}", f"release {record['release_id']}", *files, ""])


def sync(path: Path) -> None:
    """Have the kernel write a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_listed(directory: Path, record: dict) -> None:
    """Remove the files of a record from a directory, and directories that are empty then; links are not followed."""
    listed = {entry["path"] for entry in record["files"]} | {RECORD}
    for parent, directories, files, descriptor in os.fwalk(directory, topdown=False):
        for name in files:
            if Path(parent, name).relative_to(directory).as_posix() in listed:
                os.unlink(name, dir_fd=descriptor)
        for name in directories:
            with contextlib.suppress(OSError):  # something else is in it, or it is a link
                os.rmdir(name, dir_fd=descriptor)
    with contextlib.suppress(OSError):
        directory.rmdir()


def remove_tree(directory: Path) -> None:
    """Remove a directory, read-only directories in it included."""
    for parent, _, _ in os.walk(directory):
        Path(parent).chmod(0o755)
    shutil.rmtree(directory)


class Deployments:
    """The deployments below one root."""

    def __init__(self, root: os.PathLike | str):
        """`root` need not exist."""
        self.root = Path(root)
        self.directory = self.root / "deployments"

    def path(self, digest: str) -> Path:
        """Return the directory of a complete deployment."""
        return self.directory / digest

    def staging(self, digest: str) -> Path:
        """Return the directory in which a deployment is staged."""
        return self.directory / f".staging-{digest}"

    def link(self, name: str) -> str:
        """Return the digest that a link names, or an empty string."""
        try:
            return (self.root / name).readlink().name
        except OSError:
            return ""

    def record(self, digest: str) -> dict:
        """Return the record of a complete deployment. Raises `DeploymentError`."""
        path = self.path(digest) / RECORD
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DeploymentError(f"{path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise DeploymentError(f"{path} was altered: deploy again")
        return json.loads(data)

    def describe(self, digest: str) -> str:
        """Return a deployment as lines to compare; an empty string if there is none."""
        return describe(self.record(digest)) if digest and self.path(digest).is_dir() else ""

    def complete(self) -> dict[str, dict]:
        """Return digest -> record of every complete deployment whose record is unaltered."""
        found = {}
        for path in self._named(COMPLETE):
            with contextlib.suppress(DeploymentError):
                found[path.name] = self.record(path.name)
        return found

    def problems(self, directory: Path, record: dict) -> list[str]:
        """Return how a directory differs from its record, reading every byte."""
        listed = {entry["path"] for entry in record["files"]} | {RECORD}
        wrong = [
            f"{entry['path']} is missing or differs from its manifest (SHA-256)"
            for entry in record["files"]
            if not is_right(directory / entry["path"], entry)
        ]
        return wrong + [f"{path} does not belong there" for path in extra(directory, listed)]

    def is_sound(self, digest: str) -> bool:
        """Return whether a deployment is complete and unaltered."""
        try:
            return not self.problems(self.path(digest), self.record(digest))
        except DeploymentError:
            return False

    def stage(self, digest: str, text: str, bundle: str, dry_run: bool) -> list[dict]:
        """Fill the staging directory with what is at hand: right files that it has already, equal files of other
        deployments as hard links, the bundle. Return the entries of the files that are still missing.
        """
        record = json.loads(text)
        for entry in record["files"]:
            if Path(entry["path"]).is_absolute() or ".." in Path(entry["path"]).parts:
                raise DeploymentError(
                    f"{entry['path']} is outside the deployment: this record was not made by whisper-xeon"
                )
        staging = self.staging(digest)
        alike = self._files_by_digest()
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(bundle)), mode="r:gz") as archive:
            contents = ((member.name, archive.extractfile(member)) for member in archive)
            at_hand = {name: content.read() for name, content in contents if content}
        missing = []
        for entry in record["files"]:
            target = staging / entry["path"]
            if is_right(target, entry):
                continue
            source = next((path for path in alike.get(_identity(entry), ()) if is_right(path, entry)), None)
            if source is None and entry["path"] not in at_hand:
                missing.append({key: entry[key] for key in ("path", "size", "sha256")})
            if dry_run:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if source is not None:
                os.link(source, target)
            elif entry["path"] in at_hand:
                target.write_bytes(at_hand[entry["path"]])
        if not dry_run:
            (staging / RECORD).write_text(text, "utf-8")
        return missing

    def _files_by_digest(self) -> dict[tuple, list[Path]]:
        found: dict[tuple, list[Path]] = {}
        for digest, record in self.complete().items():
            for entry in record["files"]:
                found.setdefault(_identity(entry), []).append(self.path(digest) / entry["path"])
        return found

    def finish(self, digest: str) -> None:
        """Verify the staging directory, make it read-only and rename it to the digest. Raises `DeploymentError`."""
        staging = self.staging(digest)
        text = (staging / RECORD).read_bytes()
        record = json.loads(text)
        problems = self.problems(staging, record)
        if problems or hashlib.sha256(text).hexdigest() != digest:
            raise DeploymentError(
                f"the files in {staging} are not those of the deployment: "
                f"{'; '.join(problems) or f'{RECORD} was altered'}. Nothing was switched. Run it again; if that fails "
                "too, publish the package again"
            )
        executable = {entry["path"] for entry in record["files"] if entry["executable"]}
        for parent, _, names in os.walk(staging, topdown=False):
            for name in names:
                path = Path(parent, name)
                path.chmod(0o555 if path.relative_to(staging).as_posix() in executable else 0o444)
                sync(path)
            Path(parent).chmod(0o555)
            sync(Path(parent))
        broken = self.directory / f".broken-{digest}"
        if self.path(digest).exists():
            if self.link("confirmed") == digest:
                # What was confirmed had other content: the service must start, and be checked, again.
                replace_link(self.root / "confirmed", "")
            self.path(digest).rename(broken)
        staging.rename(self.path(digest))
        sync(self.directory)
        if broken.exists():
            remove_tree(broken)

    def socket_differs(self, digest: str, other: str) -> bool:
        """Return whether two deployments listen differently."""
        try:
            one, two = ((self.path(name) / SOCKET_UNIT).read_bytes() for name in (digest, other))
        except OSError:
            return False
        return one != two

    def confirm(self) -> None:
        """Record the current deployment as healthy; what was confirmed before it becomes the previous one."""
        os.utime(self.path(self.link("current")))
        if self.link("confirmed"):
            replace_link(self.root / "previous", f"deployments/{self.link('confirmed')}")
        replace_link(self.root / "confirmed", f"deployments/{self.link('current')}")

    def note_serial(self, channel: str, signature: dict, dry_run: bool) -> bool:
        """Note the signature of the current deployment unless a newer one of its key is; return whether it is new."""
        record = self.record(self.link("current"))
        noted = read_serials(self.root)
        entry = {**signature, "release_id": record["release_id"]}
        before = noted.get(channel, {}).get(record["model"])
        newer = before and channel and before["key"] == entry["key"] and before["serial"] > entry["serial"]
        if before == entry or newer:
            return False
        if not dry_run:
            noted.setdefault(channel, {})[record["model"]] = entry
            path = serials_file(self.root)
            scratch = path.with_name(f".{path.name}.new")
            scratch.write_text(json.dumps(noted, sort_keys=True, indent=1) + "\n", "utf-8")
            scratch.chmod(0o644)
            scratch.replace(path)
            sync(self.root)
        return True

    def rollback(self) -> str:
        """Return where a rollback goes, or an empty string: to what was confirmed while a switch is unfinished, to the
        deployment before that otherwise.
        """
        current, confirmed, previous = (self.link(name) for name in LINKS)
        digest = confirmed if current != confirmed else previous
        return digest if digest in self.complete() else ""

    def superfluous(self, keep: int) -> list[Path]:
        """Return the directories that `pruned` removes: unfinished ones, and deployments neither in use nor newest."""
        used = {self.link(name) for name in LINKS}
        complete = self._named(COMPLETE)
        newest_first = sorted(complete, key=lambda path: (path.name in used, path.stat().st_mtime), reverse=True)
        return newest_first[max(keep, len(used & {path.name for path in complete})) :] + self._named(UNFINISHED)

    def _named(self, pattern: re.Pattern) -> list[Path]:
        """Return the directories among the deployments that have such a name: no other is this module's."""
        try:
            with os.scandir(self.directory) as entries:
                names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self.directory / name for name in sorted(names) if pattern.fullmatch(name)]

    def create(self, dry_run: bool) -> bool:
        """Create the directories of the deployments, noting which; return whether any was missing."""
        missing = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        note_path = self.root / CREATED
        # Deployments without a note are older than it; `_created` says what is known of these.
        if not dry_run and (missing or not (note_path.exists() or self.complete())):
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            with open(note_path, "a", encoding="utf-8") as note:
                note.writelines(f"{path}\n" for path in reversed(missing))
        return bool(missing)

    def uninstall(self, dry_run: bool) -> tuple[bool, list[str]]:
        """Remove what deployments made; return whether there was anything, and the paths below the root that stay."""
        links = [
            path
            for name in LINKS
            for path in (self.root / name, self.root / f".{name}.new")
            if path.is_symlink() and re.fullmatch(f"deployments/{COMPLETE.pattern}", os.readlink(path))  # noqa: PTH115
        ]
        # A record that was altered says nothing about who made the files beside it.
        records = self.complete()
        unfinished = self._named(UNFINISHED)
        found = bool(links or records or unfinished or (self.root / CREATED).is_file())
        if found and not dry_run:
            for link in links:
                link.unlink()
            for directory in unfinished:
                remove_tree(directory)
            for digest, record in records.items():
                remove_listed(self.path(digest), record)
            with contextlib.suppress(ValueError):  # it was altered, or is not this module's
                if read_serials(self.root):
                    serials_file(self.root).unlink()
            for directory in reversed(self._created()):
                with contextlib.suppress(OSError):  # it is not empty, or a file system is mounted there
                    directory.rmdir()
        try:
            left = sorted(os.listdir(self.root))  # noqa: PTH208 - names
            if "deployments" in left and self.directory.is_dir():
                left.remove("deployments")
                left += [f"deployments/{name}" for name in sorted(os.listdir(self.directory))]  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            left = []
        return found, left

    def _created(self) -> list[Path]:
        """Return the directories that the role created, the outermost first, and forget the note of them."""
        note = self.root / CREATED
        try:
            lines = note.read_text("utf-8", "replace").splitlines()
            note.unlink()
        except OSError:
            # From before the note: a directory of that name was made for nothing else.
            lines = [str(self.root)] if self.root.name == "whisper-xeon" else []
            lines.append(str(self.directory))
        return [path for path in (*reversed(self.directory.parents), self.directory) if str(path) in lines]


def _identity(entry: dict) -> tuple:
    # Hard links share their mode, so an executable file is never equal to one that is not.
    return entry["sha256"], entry["size"], entry["executable"]


def run(deployments: Deployments, parameters: dict, dry_run: bool) -> dict:
    """Bring the deployments into the requested state and return the module's result. Raises `DeploymentError`."""
    state, digest = parameters["state"], parameters["digest"]
    result: dict[str, Any] = {"changed": False}
    if state == "created":
        result["changed"] = deployments.create(dry_run)
    elif state == "staged":
        result["complete"] = deployments.is_sound(digest)
        result["staging"] = str(deployments.staging(digest))
        result["missing"] = []
        if not result["complete"]:
            result["changed"] = True
            result["missing"] = deployments.stage(digest, parameters["record"], parameters["bundle"], dry_run)
            result["diff"] = {
                "before": deployments.describe(deployments.link("current")),
                "after": describe(json.loads(parameters["record"])),
            }
    elif state == "complete":
        result["changed"] = deployments.staging(digest).exists()
        if result["changed"] and not dry_run:
            deployments.finish(digest)
    elif state == "current":
        current, confirmed = deployments.link("current"), deployments.link("confirmed")
        result["changed"] = current != digest
        result["restart"] = result["changed"] or current != confirmed
        if result["changed"] and deployments.path(digest).is_dir():
            result["diff"] = {"before": deployments.describe(current), "after": deployments.describe(digest)}
        result["restart_socket"] = any(deployments.socket_differs(digest, other) for other in (current, confirmed))
        if result["changed"] and not dry_run:
            if digest and not deployments.path(digest).is_dir():
                raise DeploymentError(f"{deployments.path(digest)} does not exist: deploy it first")
            replace_link(deployments.root / "current", f"deployments/{digest}" if digest else "")
    elif state == "confirmed":
        result["changed"] = deployments.link("current") != deployments.link("confirmed")
        if result["changed"] and not dry_run:
            deployments.confirm()
        if parameters["signature"] and deployments.link("current"):
            noted = deployments.note_serial(parameters["channel"], parameters["signature"], dry_run)
            result["changed"] = result["changed"] or noted
    elif state == "absent":
        directories = [path for path in (deployments.staging(digest), deployments.path(digest)) if path.exists()]
        used = digest in {deployments.link(name) for name in LINKS}
        directories = [path for path in directories if not used or path != deployments.path(digest)]
        result["changed"] = bool(directories)
        _remove(directories, dry_run)
    elif state == "pruned":
        directories = deployments.superfluous(parameters["keep"])
        result["changed"] = bool(directories)
        _remove(directories, dry_run)
    elif state == "uninstalled":
        result["changed"], result["left"] = deployments.uninstall(dry_run)
    return result


def _remove(directories: list[Path], dry_run: bool) -> None:
    for directory in directories if not dry_run else ():
        remove_tree(directory)


def main() -> None:
    """Run as an Ansible module."""
    needs_digest = ["digest"]
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "default": "query",
                "choices": [
                    "query",
                    "created",
                    "staged",
                    "complete",
                    "current",
                    "confirmed",
                    "absent",
                    "pruned",
                    "uninstalled",
                ],
            },
            "digest": {"type": "str"},
            "record": {"type": "str"},
            "bundle": {"type": "str"},
            "keep": {"type": "int", "default": 3},
            "channel": {"type": "str", "default": ""},
            "signature": {"type": "dict", "default": {}},
        },
        required_if=[
            ("state", "staged", ["digest", "record", "bundle"]),
            ("state", "complete", needs_digest),
            ("state", "current", needs_digest),
            ("state", "absent", needs_digest),
        ],
        supports_check_mode=True,
    )
    deployments = Deployments(module.params["root"])
    state = module.params["state"]
    try:
        if not deployments.root.is_absolute():
            raise DeploymentError(
                f"whisper_service_root is {module.params['root']!r}: set the whole path of a directory on the host"
            )
        if state not in ("query", "created", "uninstalled"):
            deployments.create(module.check_mode)
        if state != "query" and not module.check_mode and deployments.directory.is_dir():
            wait_for_others(deployments.directory)
        result = run(deployments, module.params, module.check_mode)
        result["deployments"] = {
            digest: {"digest": digest, **{key: record[key] for key in ("model", "release_id", "url")}}
            for digest, record in deployments.complete().items()
        }
        result["rollback"] = deployments.rollback()
    except (DeploymentError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or deployments.root}: {error.strerror}")
    module.exit_json(**{name: deployments.link(name) for name in LINKS}, **result)


if __name__ == "__main__":
    main()
