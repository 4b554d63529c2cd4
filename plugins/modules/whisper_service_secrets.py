"""Ansible module: check the service's API keys and certificate, before any host is touched.

Runs on the control node with `PYTHONPATH` naming this project's `app/`. It is a module of its own because Ansible
blanks out a secret wherever its text occurs in a module's result: a key that is a short word would alter what else is
returned. No host is touched.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from whisper_xeon.web.key_file import parse_keys
from whisper_xeon.web.tls import CertificateError, server_context

DOCUMENTATION = r"""
module: whisper_service_secrets
short_description: Check the service's API keys and certificate
description:
  - Says what is wrong with the API keys and the certificate of a host, without any of them. Needs C(app/) of this
    project on PYTHONPATH.
options:
  api_keys: {type: str, default: "", description: "The service's API keys, to be checked."}
  tls_certificate: {type: str, default: "", description: "The service's certificate chain in PEM."}
  tls_key: {type: str, default: "", description: "The certificate's key in PEM."}
  settings: {type: dict, default: {}, description: The service's settings from the inventory.}
"""

RETURN = r"""
problems: {description: "What prevents the deployment and what to do about it; empty if nothing does", type: list}
"""

_SHORT = 16  # characters of a key; shorter ones work, since hosts have them


def key_problems(api_keys: str, settings: dict) -> list[str]:
    """Return what is wrong with the API keys, without any of them."""
    if not api_keys:
        return []
    try:
        parse_keys(api_keys.encode())
    except ValueError as error:
        return [f"whisper_service_api_keys: {error}"]
    if settings.get("WHISPER_API_KEY_FILE"):
        return ["whisper_service_api_keys and WHISPER_API_KEY_FILE are both set: leave one out"]
    return []


def key_warnings(api_keys: str) -> list[str]:
    """Return which of the API keys can be guessed, by their lines and without any of them."""
    lines = [line.split() for line in api_keys.splitlines()]
    short = [number for number, words in enumerate(lines, 1) if words and words[0] != "#" and len(words[0]) < _SHORT]
    return [
        f"whisper_service_api_keys: line {number}: a key of fewer than {_SHORT} characters can be guessed: replace it "
        "by one from `openssl rand -hex 32`"
        for number in short
    ]


def certificate_problems(certificate: str, key: str) -> list[str]:
    """Return what is wrong with the texts of a certificate and its key, without any of them."""
    if not certificate and not key:
        return []
    names = "whisper_service_tls_certificate and whisper_service_tls_key"
    if not certificate or not key:
        return [f"{names} must both be set, or neither"]
    # OpenSSL reads files only. Nobody else can enter the directory.
    with tempfile.TemporaryDirectory() as directory:
        chain_file, key_file = Path(directory, "certificate.pem"), Path(directory, "key.pem")
        chain_file.write_text(certificate, "utf-8")
        key_file.write_text(key, "utf-8")
        try:
            server_context(chain_file, key_file)
        except CertificateError as error:
            return [f"{names} cannot be used: {error}"]
    return []


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "api_keys": {"type": "str", "default": "", "no_log": True},
            "tls_certificate": {"type": "str", "default": ""},
            "tls_key": {"type": "str", "default": "", "no_log": True},
            "settings": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    problems = key_problems(given["api_keys"], given["settings"])
    problems += certificate_problems(given["tls_certificate"], given["tls_key"])
    for warning in key_warnings(given["api_keys"]):
        module.warn(warning)
    module.exit_json(changed=False, problems=problems)


if __name__ == "__main__":
    main()
