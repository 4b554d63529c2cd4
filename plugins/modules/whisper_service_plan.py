"""Ansible module: plan what a deployment consists of, before any host is touched.

Runs on the control node with `PYTHONPATH` naming this project's `app/`. A deployment is a package, the application,
its settings and its units. Its record lists every file, and the digest of the record is its name. The module only
reads: no host, no store and no file is changed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, memory_mb, weights_bytes
from whisper_package.models import model_name, package_directory
from whisper_package.package import Package
from whisper_package.signature import trusted_keys
from whisper_xeon.settings import settings_problems

DOCUMENTATION = r"""
module: whisper_service_plan
short_description: Plan what a deployment consists of
description:
  - Lists every file of the package, the application, the settings and the units with its digest. Needs C(app/) of this
    project on PYTHONPATH.
options:
  model: {type: str, required: true, description: Model that the package must contain, as people name it.}
  artifact_dir: {type: path, description: Directory of the package, or one that contains packages.}
  manifest: {type: dict, description: "Checked content of manifest.json, if the package is not on the control node."}
  files: {type: list, elements: dict, description: "Every file of that package: path, size, sha256, executable."}
  signature: {type: dict, description: "What role artifact_store verified of that package: serial, key."}
  channel: {type: str, default: "", description: "Channel that named that release, empty if its id did."}
  trusted_keys:
    type: list
    elements: str
    required: true
    description: Public keys that the host trusts, of which one must have signed the package.
  url: {type: str, required: true, description: URL at which the host itself reaches the service; part of the record.}
  app_dir: {type: path, required: true, description: Directory that contains the application, whisper_xeon.}
  texts: {type: dict, required: true, description: "Path in the deployment -> content: settings and units."}
  settings: {type: dict, default: {}, description: The service's settings from the inventory, to be checked.}
"""

RETURN = r"""
problems: {description: "What prevents the deployment and what to do about it; empty if nothing does", type: list}
digest: {description: Name of the deployment, type: str}
model: {description: Its model, by the name that its package has, type: str}
url: {description: URL at which the host itself reaches the service, type: str}
record: {description: "Text of deployment.json: model, release, every file with its digest", type: str}
bundle: {description: "Base64 of a tar.gz of every file that does not belong to the package", type: str}
sources: {description: "Path in the deployment -> file on the control node, for the files of the package", type: dict}
release_id: {description: Release ID of the package, type: str}
signature: {description: "The trusted key that signed the package, and its serial", type: dict}
channel: {description: "Channel that named the release; empty for one that was named, or a directory", type: str}
package: {description: Directory name of the package, type: str}
manifest_sha256: {description: SHA-256 of the package's manifest.json, type: str}
weights_bytes: {description: Size of the model file, type: int}
ram_mb: {description: Memory of one engine with the package's weights, type: int}
minimum: {description: "Versions of glibc and glibcxx that the libraries need", type: dict}
variants: {description: CPU variants with the flags each needs, type: list}
"""

# The packages of app/ that a host runs.
APP_PACKAGES = ("whisper_package", "whisper_xeon")


def package_in(artifact_dir: Path, model: str, trusted: tuple[str, ...]) -> Package:
    """Return the package of `model` that `artifact_dir` is or contains, if a trusted key has signed it.

    Raises `PackageError`.
    """
    try:
        if not (artifact_dir / MANIFEST_NAME).exists():
            return Package.find(artifact_dir, model, trusted)
        package = Package(artifact_dir, trusted)
    except PackageError as error:
        raise PackageError(f"whisper_service_artifact_dir: {error}") from None
    if package.model != model:
        raise PackageError(
            f"whisper_service_artifact_dir: {artifact_dir} contains model {package.model!r}, this host gets {model!r}: "
            f"name the directory that contains {package_directory(model)}"
        )
    return package


def app_files(app_dir: Path) -> dict[str, bytes]:
    """Return path in the deployment -> content of the application's files, without Python's caches."""
    found = {
        f"app/{path.relative_to(app_dir).as_posix()}": path.read_bytes()
        for name in APP_PACKAGES
        for path in sorted((app_dir / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    if "app/whisper_xeon/__main__.py" not in found:
        raise PackageError(f"{app_dir} does not contain the application: whisper_xeon/__main__.py is missing")
    return found


def bundle_of(files: dict[str, bytes]) -> str:
    """Return the files as base64 of a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def plan(
    *,
    model: str,
    artifact_dir: str,
    manifest: dict,
    files: list[dict],
    signature: dict,
    trusted: tuple[str, ...],
    url: str,
    app_dir: str,
    texts: dict[str, str],
) -> dict:
    """Return the module's result; the arguments are the module's options. Raises `PackageError`."""
    sources: dict[str, str] = {}
    if artifact_dir:
        package = package_in(Path(artifact_dir), model, trusted)
        signature = asdict(package.signature) if package.signature else {}
        manifest = package.manifest
        files = package.files
        sources = {f"package/{package.name}/{entry['path']}": str(package.path(entry["path"])) for entry in files}
    elif signature["key"] not in trusted:
        raise PackageError(
            f"release {manifest['release_id']} is signed by a key that whisper_service_trusted_keys of this host lacks"
        )
    elif manifest["model"]["name"] != model:
        raise PackageError(f"the store offers model {manifest['model']['name']!r} as {model!r}: publish it again")
    directory = f"package/{manifest['package']}"
    small = app_files(Path(app_dir))
    small.update({path: text.encode("utf-8") for path, text in texts.items()})
    recorded = [dict(entry, path=f"{directory}/{entry['path']}") for entry in files] + [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "executable": False}
        for path, data in small.items()
    ]
    record = {
        "schema_version": 1,
        "model": model,
        "url": url,
        "package": manifest["package"],
        "release_id": manifest["release_id"],
        "files": sorted(recorded, key=lambda entry: entry["path"]),
    }
    text = json.dumps(record, sort_keys=True, indent=1) + "\n"
    return {
        "digest": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        "record": text,
        "bundle": bundle_of(small),
        "sources": sources,
        "model": model,
        "url": url,
        "release_id": manifest["release_id"],
        "signature": {name: signature[name] for name in ("serial", "key")},
        "package": manifest["package"],
        "manifest_sha256": next(entry["sha256"] for entry in files if entry["path"] == MANIFEST_NAME),
        "weights_bytes": weights_bytes(manifest),
        "ram_mb": memory_mb(manifest),
        "minimum": manifest["minimum"],
        "variants": manifest["variants"],
    }


def without_package(model: str, url: str) -> dict:
    """Return the module's result where there is no package to deploy: the host can still be checked."""
    return {
        "digest": "",
        "record": "",
        "bundle": "",
        "sources": {},
        "model": model,
        "url": url,
        "release_id": "",
        "signature": {},
        "package": package_directory(model),
        "manifest_sha256": "",
        "weights_bytes": 0,
        "ram_mb": 0,
        "minimum": {},
        "variants": [],
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "model": {"type": "str", "required": True},
            "artifact_dir": {"type": "path"},
            "manifest": {"type": "dict"},
            "files": {"type": "list", "elements": "dict"},
            "signature": {"type": "dict"},
            "channel": {"type": "str", "default": ""},
            "trusted_keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "url": {"type": "str", "required": True},
            "app_dir": {"type": "path", "required": True},
            "texts": {"type": "dict", "required": True},
            "settings": {"type": "dict", "default": {}},
        },
        required_one_of=[("artifact_dir", "manifest")],
        mutually_exclusive=[("artifact_dir", "manifest")],
        required_together=[("manifest", "files", "signature")],
        supports_check_mode=True,
    )
    named = {name: str(value) for name, value in module.params.pop("settings").items()}
    problems = [f"whisper_service_settings: {problem}" for problem in settings_problems(named)]
    keys, channel = "\n".join(module.params.pop("trusted_keys")), module.params.pop("channel")
    empty = {"artifact_dir": "", "manifest": {}, "files": [], "signature": {}}
    given = {name: module.params[name] or default for name, default in empty.items()}
    try:
        model = model_name(module.params["model"])
    except PackageError as error:
        module.fail_json(msg=f"whisper_service_model: {error}")
    result = without_package(model, module.params["url"])
    try:
        trusted = trusted_keys(keys, "whisper_service_trusted_keys")
        result = plan(**{**module.params, **given, "model": model, "trusted": trusted})
    except PackageError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{error.filename} cannot be read: {error.strerror}")
    module.exit_json(changed=False, problems=problems, channel=channel, **result)


if __name__ == "__main__":
    main()
