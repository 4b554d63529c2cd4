#!/usr/bin/python
"""Find releases in the artifact store, or check that the store can be used. Reads only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact_store_release
short_description: Find releases in the artifact store
description:
  - Resolves models and a channel, or release ids, to releases, and checks their manifests.
  - Without models it only checks that the endpoint answers, accepts the credentials and has the bucket.
  - Needs botocore, and C(app/) of this repository on PYTHONPATH.
options:
  models:
    type: list
    elements: str
    default: []
    description: Models to find, as people name them; without any only the store is checked.
  channel: {type: str, default: stable, description: Channel that names the releases.}
  releases:
    type: dict
    default: {}
    description: Model -> id of the release to find instead of the channel's; its first 8 or more digits are enough.
  endpoint: {type: str, required: true, description: Address of the store.}
  bucket: {type: str, default: whisper-artifacts, description: Bucket.}
  region: {type: str, default: us-east-1, description: Region of the store.}
  access_key: {type: str, required: true, description: Access key of an account that may read.}
  secret_key: {type: str, required: true, description: Its secret.}
  trusted_keys:
    type: list
    elements: str
    default: []
    description: Public keys, of which one must have signed a release. Nothing of it is parsed before that is verified.
attributes:
  check_mode: {support: full, description: It never changes anything.}
author: whisper-xeon
"""

EXAMPLES = r"""
- whisper.xeon.artifact_store_release:
    models: [medium]
    endpoint: http://127.0.0.1:9000
    access_key: "{{ artifact_store_reader_access_key }}"
    secret_key: "{{ artifact_store_reader_secret_key }}"
    trusted_keys: "{{ artifact_store_trusted_keys }}"
  register: found
"""

RETURN = r"""
found:
  type: dict
  description: >-
    For each model, by the name that was asked for: release_id, package (its directory's name), manifest (checked),
    manifest_sha256, files with path, size, sha256 and executable of each, manifest.json too; signed (the content of
    manifest.json.sig), signature (model, release_id, manifest_sha256, serial, key) and channel, empty for a release
    that was named.
"""

from contextlib import suppress  # noqa: E402 - Ansible wants the documentation first
from dataclasses import asdict  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.whisper.xeon.plugins.module_utils.artifact_store import (  # noqa: E402
    STORE_ARGUMENTS,
    TRUSTED_KEYS,
    store_errors,
    store_of,
)

with suppress(ImportError):  # store_errors reports it
    from whisper_store.store import model_and_package


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "models": {"type": "list", "elements": "str", "default": []},
            "channel": {"type": "str", "default": "stable"},
            "releases": {"type": "dict", "default": {}},
            **STORE_ARGUMENTS,
            **TRUSTED_KEYS,
        },
        supports_check_mode=True,
    )
    wanted = module.params
    found = {}
    with store_errors(module):
        store = store_of(module, trusting=bool(wanted["models"]))
        # Digits alone are a number in YAML.
        releases = {model_and_package(model)[0]: str(release) for model, release in wanted["releases"].items()}
        if not wanted["models"]:
            store.bucket.check()
        for model in wanted["models"]:
            found[model] = asdict(store.resolve(model, wanted["channel"], releases.get(model_and_package(model)[0])))
    module.exit_json(changed=False, found=found)


if __name__ == "__main__":
    main()
