#!/usr/bin/python
"""Find a release in the artifact store, or check that the store can be used. Reads only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact_release
short_description: Find a release in the artifact store
description:
  - Resolves a model and a channel, or a release id, to a release, and checks its manifest.
  - Without a model it only checks that the endpoint answers, takes the credentials and has the bucket.
  - Needs botocore, and C(app/) of this repository on PYTHONPATH.
options:
  model: {type: str, description: Model to find; without it only the store is checked.}
  channel: {type: str, default: stable, description: Channel that names the release.}
  release: {type: str, default: "", description: Release id to use instead of the channel's.}
  url_endpoint:
    type: str
    default: ""
    description:
      - Address under which hosts reach the store. With it, C(urls) is returned; the task then wants C(no_log).
  url_seconds: {type: int, default: 3600, description: How long the URLs are good.}
  endpoint: {type: str, required: true, description: Address of the store.}
  bucket: {type: str, default: whisper-artifacts, description: Bucket.}
  region: {type: str, default: us-east-1, description: Region of the store.}
  access_key: {type: str, required: true, description: Access key of an account that may read.}
  secret_key: {type: str, required: true, description: Its secret.}
attributes:
  check_mode: {support: full, description: It never changes anything.}
author: whisper-xeon
"""

EXAMPLES = r"""
- artifact_release:
    model: medium
    endpoint: http://127.0.0.1:9000
    access_key: "{{ whisper_store_reader_access_key }}"
    secret_key: "{{ whisper_store_reader_secret_key }}"
  register: release
"""

RETURN = r"""
release_id: {type: str, returned: with a model, description: Id of the release.}
package: {type: str, returned: with a model, description: Folder name of its package.}
manifest: {type: dict, returned: with a model, description: The checked manifest.}
manifest_sha256: {type: str, returned: with a model, description: Digest of manifest.json.}
files: {type: list, returned: with a model, description: "path, size, sha256, executable of each, manifest.json too."}
urls: {type: dict, returned: with a url_endpoint, description: A URL for each path.}
"""

from ansible.module_utils.artifact_store import STORE_ARGUMENTS, store_errors, store_of  # noqa: E402
from ansible.module_utils.basic import AnsibleModule  # noqa: E402 - Ansible wants the documentation first


def main():
    module = AnsibleModule(
        argument_spec={
            "model": {"type": "str"},
            "channel": {"type": "str", "default": "stable"},
            "release": {"type": "str", "default": ""},
            "url_endpoint": {"type": "str", "default": ""},
            "url_seconds": {"type": "int", "default": 3600},
            **STORE_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    result = {}
    with store_errors(module):
        store = store_of(module)
        if not module.params["model"]:
            store.bucket.check()
            module.exit_json(changed=False)
        release = store.resolve(module.params["model"], module.params["channel"], module.params["release"])
        if module.params["url_endpoint"]:
            result["urls"] = store.signed_urls(release, module.params["url_seconds"], module.params["url_endpoint"])
    module.exit_json(
        changed=False,
        release_id=release.release_id,
        package=release.package,
        manifest=release.manifest,
        manifest_sha256=release.manifest_sha256,
        files=release.files,
        **result,
    )


if __name__ == "__main__":
    main()
