#!/usr/bin/python
"""Sign URLs for the files of releases. Asks the store nothing: a signature is computed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact_store_urls
short_description: Sign a URL for each file of releases
description:
  - Signs for the releases that M(whisper.xeon.artifact_store_release) found. It reads no channel, so one that has moved
    since then makes no difference.
  - A URL is as good as a credential for its file until it expires, so the task needs C(no_log).
  - Needs botocore, and C(app/) of this repository on PYTHONPATH.
options:
  releases:
    type: dict
    required: true
    description: Model -> release, as C(found) of M(whisper.xeon.artifact_store_release).
  url_endpoint: {type: str, required: true, description: Address of the store as hosts reach it; part of the signature.}
  url_seconds: {type: int, default: 3600, description: How long the URLs are valid.}
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
- whisper.xeon.artifact_store_urls:
    releases: "{{ found.found }}"
    url_endpoint: http://store.example.org:9000
    endpoint: http://127.0.0.1:9000
    access_key: "{{ artifact_store_reader_access_key }}"
    secret_key: "{{ artifact_store_reader_secret_key }}"
  no_log: true
"""

RETURN = r"""
urls: {type: dict, returned: success, description: "For each model: path of the file in its package -> URL."}
"""

from contextlib import suppress  # noqa: E402 - Ansible wants the documentation first

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.whisper.xeon.plugins.module_utils.artifact_store import STORE_ARGUMENTS, store_errors, store_of  # noqa: E402

with suppress(ImportError):  # store_errors reports it
    from whisper_store.store import Release


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "dict", "required": True},
            "url_endpoint": {"type": "str", "required": True},
            "url_seconds": {"type": "int", "default": 3600},
            **STORE_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    wanted = module.params
    with store_errors(module):
        store = store_of(module)
        urls = {
            model: store.signed_urls(Release(**release), wanted["url_seconds"], wanted["url_endpoint"])
            for model, release in wanted["releases"].items()
        }
    module.exit_json(changed=False, urls=urls)


if __name__ == "__main__":
    main()
