#!/usr/bin/python
"""Publish a package to the artifact store. The work is `whisper_store`'s; this is its Ansible face."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact_store_publish
short_description: Publish a package to the artifact store
description:
  - Puts the files of a package under C(releases/<release id>/) and makes it a channel's release of its model.
  - An existing release is checked and never changed; publishing it again sends nothing.
  - Needs botocore, and C(app/) of this repository on PYTHONPATH.
options:
  package_dir: {type: path, required: true, description: Directory with C(manifest.json).}
  to_be_signed:
    type: bool
    default: false
    description: Whether a task before this one signs the package. In check mode it is not signed yet.
  channel: {type: str, default: stable, description: Channel that shall name this release.}
  endpoint: {type: str, required: true, description: Address of the store.}
  bucket: {type: str, default: whisper-artifacts, description: Bucket.}
  region: {type: str, default: us-east-1, description: Region of the store.}
  access_key: {type: str, required: true, description: Access key of an account that may write.}
  secret_key: {type: str, required: true, description: Its secret.}
  trusted_keys:
    type: list
    elements: str
    default: []
    description: Public keys, of which one must have signed the package.
attributes:
  check_mode: {support: full, description: Reads the store and tells what would be uploaded.}
  diff_mode: {support: full, description: Shows the channel before and after.}
author: whisper-xeon
"""

EXAMPLES = r"""
- whisper.xeon.artifact_store_publish:
    package_dir: dist/whisper_small_xeon
    endpoint: http://127.0.0.1:9000
    access_key: "{{ artifact_store_access_key }}"
    secret_key: "{{ artifact_store_secret_key }}"
    trusted_keys: "{{ artifact_store_trusted_keys }}"
"""

RETURN = r"""
release_id: {type: str, returned: success, description: Id of the release; empty in check mode without a package.}
uploaded: {type: list, returned: success, description: Files that were, or would be, uploaded.}
uploaded_bytes: {type: int, returned: success, description: Their size together.}
"""

from pathlib import Path  # noqa: E402 - Ansible wants the documentation first

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.whisper.xeon.plugins.module_utils.artifact_store import (  # noqa: E402
    STORE_ARGUMENTS,
    TRUSTED_KEYS,
    store_errors,
    store_of,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "package_dir": {"type": "path", "required": True},
            "to_be_signed": {"type": "bool", "default": False},
            "channel": {"type": "str", "default": "stable"},
            **STORE_ARGUMENTS,
            **TRUSTED_KEYS,
        },
        supports_check_mode=True,
    )
    directory, channel = module.params["package_dir"], module.params["channel"]
    built = Path(directory).is_dir()
    if module.check_mode and not (built and not module.params["to_be_signed"]):
        planned = "would be signed and published" if built else "does not exist yet; it would be published"
        module.exit_json(
            changed=True,
            msg=f"{directory} {planned} to channel {channel!r}{'' if built else ' once it is built'}",
            release_id="",
            uploaded=[],
            uploaded_bytes=0,
        )
    with store_errors(module):
        done = store_of(module, trusting=True).publish(directory, channel, dry_run=module.check_mode)
    before, after = (
        side.encode().decode("ascii") if side.models else "" for side in (done.channel_before, done.channel_after)
    )
    where = f"channels/{channel}.json"
    module.exit_json(
        changed=done.changed,
        release_id=done.release_id,
        uploaded=done.uploaded,
        uploaded_bytes=done.uploaded_bytes,
        diff={"before": before, "after": after, "before_header": where, "after_header": where},
    )


if __name__ == "__main__":
    main()
