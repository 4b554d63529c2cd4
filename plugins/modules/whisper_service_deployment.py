"""Ansible module: the deployments on a host, from staging to pruning.

Below the root stand `deployments/<digest>/` and three links. `current` is what systemd starts, `confirmed` is what last
passed its health check, `previous` what was confirmed before that. `current` and `confirmed` differ only while a switch
is under way, so whoever comes after an interrupted one knows that, and where to go back to. A deployment's digest is
the SHA-256 of its `deployment.json`, which lists every file; it is complete if it stands under its name, since it gets
that name by a rename, last of all.

The module never reads or changes anything outside the root and needs nothing but Python 3.9 on the host.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whisper.xeon.plugins.module_utils.whisper_service_host import wait_for_others

DOCUMENTATION = r"""
module: whisper_service_deployment
short_description: The deployments on a host
options:
  root: {type: path, required: true, description: Folder of the service.}
  state:
    type: str
    default: query
    choices: [query, staged, complete, current, confirmed, absent, pruned]
    description:
      - C(query) changes nothing.
      - C(staged) fills a staging folder with all that is at hand and returns what is missing.
      - C(complete) verifies the staging folder and gives it its name.
      - C(current) makes a deployment the one that systemd starts; an empty digest makes it none.
      - C(confirmed) notes that the current deployment is healthy.
      - C(absent) removes a deployment and its staging folder, unless a link names it.
      - C(pruned) removes all but the newest O(keep) and those in use.
  digest: {type: str, description: Name of the deployment.}
  record: {type: str, description: Text of deployment.json, for C(staged).}
  bundle: {type: str, description: "Base64 of a tar.gz with the small files, for C(staged)."}
  keep: {type: int, default: 3, description: How many deployments C(pruned) leaves.}
"""

RETURN = r"""
deployments: {description: "digest -> {digest, model, release_id, url} of every complete deployment", type: dict}
current: {description: "Digest that the link names, or an empty string; confirmed and previous likewise", type: str}
rollback: {description: Digest of the deployment to which a rollback goes; empty if there is none, type: str}
staging: {description: The staging folder, type: str}
complete: {description: The deployment stands under its name and every digest is right, type: bool}
missing: {description: "Files that have to be brought to the staging folder: path, size, sha256", type: list}
restart: {description: The service does not run the current deployment for certain, type: bool}
restart_socket: {description: The socket's unit differs from the confirmed deployment's, type: bool}
"""

LINKS = ("current", "confirmed", "previous")
RECORD = "deployment.json"
SOCKET_UNIT = "units/whisper-xeon.socket"


class DeploymentError(Exception):
    """What is wrong with a deployment, for the person who deploys."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def is_right(path: Path, entry: dict) -> bool:
    """Tell whether the file at `path` is the one that a record's entry describes."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == entry["size"] and file_digest(path) == entry["sha256"]


def replace_link(link: Path, target: str) -> None:
    """Let `link` name `target` by one rename, or remove it if `target` is empty."""
    if not target:
        link.unlink(missing_ok=True)
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync(link.parent)


def describe(record: dict) -> str:
    """Return a record as lines to compare: model, release, and every file with the head of its digest."""
    files = [f"{entry['sha256'][:12]} {entry['path']}" for entry in record["files"]]
    return "\n".join([f"model {record['model']}", f"release {record['release_id']}", *files, ""])


def sync(path: Path) -> None:
    """Have the kernel write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder, read-only folders in it included."""
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
    shutil.rmtree(folder)


class Deployments:
    """The deployments below one root."""

    def __init__(self, root: os.PathLike | str):
        """Look at `root`, which need not exist."""
        self.root = Path(root)
        self.folder = self.root / "deployments"

    def path(self, digest: str) -> Path:
        """Return the folder of a complete deployment."""
        return self.folder / digest

    def staging(self, digest: str) -> Path:
        """Return the folder in which a deployment is put together."""
        return self.folder / f".staging-{digest}"

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
        """Return a deployment as lines to compare; nothing if there is none."""
        return describe(self.record(digest)) if digest and self.path(digest).is_dir() else ""

    def complete(self) -> dict[str, dict]:
        """Return digest -> record of every deployment that stands under its name with an unaltered record."""
        found = {}
        for path in sorted(self.folder.glob("[0-9a-f]*")):
            with contextlib.suppress(DeploymentError):
                found[path.name] = self.record(path.name)
        return found

    def problems(self, folder: Path, record: dict) -> list[str]:
        """Return what distinguishes a folder from its record, by reading every byte."""
        listed = {entry["path"] for entry in record["files"]} | {RECORD}
        wrong = [
            f"{entry['path']} is missing or has another SHA-256 than its manifest says"
            for entry in record["files"]
            if not is_right(folder / entry["path"], entry)
        ]
        present = (Path(parent, name).relative_to(folder) for parent, _, names in os.walk(folder) for name in names)
        return wrong + [f"{path} does not belong there" for path in present if path.as_posix() not in listed]

    def is_sound(self, digest: str) -> bool:
        """Tell whether a deployment is complete and unaltered."""
        try:
            return not self.problems(self.path(digest), self.record(digest))
        except DeploymentError:
            return False

    def stage(self, digest: str, text: str, bundle: str, dry_run: bool) -> list[dict]:
        """Fill the staging folder with what is at hand: its own right files, equal files of other deployments as hard
        links, the bundle. Return the entries of the files that are still missing.
        """
        record = json.loads(text)
        for entry in record["files"]:
            if Path(entry["path"]).is_absolute() or ".." in Path(entry["path"]).parts:
                raise DeploymentError(f"{entry['path']} is outside the deployment: this record is not one of ours")
        staging = self.staging(digest)
        alike = self._files_by_digest()
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(bundle)), mode="r:gz") as archive:
            at_hand = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
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
        """Verify the staging folder, make it read-only and give it its name. Raises `DeploymentError`."""
        staging = self.staging(digest)
        text = (staging / RECORD).read_bytes()
        record = json.loads(text)
        problems = self.problems(staging, record)
        if problems or hashlib.sha256(text).hexdigest() != digest:
            raise DeploymentError(
                f"what arrived in {staging} is not the deployment: {'; '.join(problems) or f'{RECORD} was altered'}. "
                "Nothing was switched; publish the package again if a second run says the same"
            )
        executable = {entry["path"] for entry in record["files"] if entry["executable"]}
        for parent, _, names in os.walk(staging, topdown=False):
            for name in names:
                path = Path(parent, name)
                path.chmod(0o555 if path.relative_to(staging).as_posix() in executable else 0o444)
                sync(path)
            Path(parent).chmod(0o555)
            sync(Path(parent))
        broken = self.folder / f".broken-{digest}"
        if self.path(digest).exists():
            if self.link("confirmed") == digest:
                # What was confirmed were other bytes: the service has to start, and be checked, once more.
                replace_link(self.root / "confirmed", "")
            self.path(digest).rename(broken)
        staging.rename(self.path(digest))
        sync(self.folder)
        if broken.exists():
            remove_tree(broken)

    def socket_differs(self, digest: str, other: str) -> bool:
        """Tell whether two deployments listen differently."""
        try:
            one, two = ((self.path(name) / SOCKET_UNIT).read_bytes() for name in (digest, other))
        except OSError:
            return False
        return one != two

    def confirm(self) -> None:
        """Note the current deployment as healthy; what was confirmed before it becomes the previous one."""
        os.utime(self.path(self.link("current")))
        if self.link("confirmed"):
            replace_link(self.root / "previous", f"deployments/{self.link('confirmed')}")
        replace_link(self.root / "confirmed", f"deployments/{self.link('current')}")

    def rollback(self) -> str:
        """Return where a rollback goes, or an empty string: to what was confirmed while a switch is unfinished, to the
        deployment before that otherwise.
        """
        current, confirmed, previous = (self.link(name) for name in LINKS)
        digest = confirmed if current != confirmed else previous
        return digest if digest in self.complete() else ""

    def superfluous(self, keep: int) -> list[Path]:
        """Return the folders that `pruned` removes: unfinished ones, and deployments neither in use nor new."""
        used = {self.link(name) for name in LINKS}
        complete = [path for path in self.folder.glob("[0-9a-f]*") if path.is_dir()]
        newest_first = sorted(complete, key=lambda path: (path.name in used, path.stat().st_mtime), reverse=True)
        return newest_first[max(keep, len(used & {path.name for path in complete})) :] + list(self.folder.glob(".*-*"))


def _identity(entry: dict) -> tuple:
    # A hard link shares its mode, so an executable file is never the same as one that is not.
    return entry["sha256"], entry["size"], entry["executable"]


def run(deployments: Deployments, parameters: dict, dry_run: bool) -> dict:
    """Bring the deployments into the state asked for and return the module's result. Raises `DeploymentError`."""
    state, digest = parameters["state"], parameters["digest"]
    result = {"changed": False}
    if state == "staged":
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
    elif state == "absent":
        folders = [path for path in (deployments.staging(digest), deployments.path(digest)) if path.exists()]
        used = digest in {deployments.link(name) for name in LINKS}
        folders = [path for path in folders if not used or path != deployments.path(digest)]
        result["changed"] = bool(folders)
        _remove(folders, dry_run)
    elif state == "pruned":
        folders = deployments.superfluous(parameters["keep"])
        result["changed"] = bool(folders)
        _remove(folders, dry_run)
    return result


def _remove(folders: list[Path], dry_run: bool) -> None:
    for folder in folders if not dry_run else ():
        remove_tree(folder)


def main() -> None:
    """Run as an Ansible module."""
    needs_digest = ["digest"]
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "default": "query",
                "choices": ["query", "staged", "complete", "current", "confirmed", "absent", "pruned"],
            },
            "digest": {"type": "str"},
            "record": {"type": "str"},
            "bundle": {"type": "str"},
            "keep": {"type": "int", "default": 3},
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
    try:
        if module.params["state"] != "query" and not module.check_mode:
            deployments.folder.mkdir(parents=True, exist_ok=True)
            wait_for_others(deployments.folder)
        result = run(deployments, module.params, module.check_mode)
        result["deployments"] = {
            digest: {"digest": digest, **{key: record[key] for key in ("model", "release_id", "url")}}
            for digest, record in deployments.complete().items()
        }
        result["rollback"] = deployments.rollback()
    except DeploymentError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or deployments.root}: {error.strerror}")
    module.exit_json(**{name: deployments.link(name) for name in LINKS}, **result)


if __name__ == "__main__":
    main()
