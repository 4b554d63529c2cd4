"""What the modules of the artifact store have in common: their arguments, the store they make, and how they fail."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from whisper_package.signature import SigningError, trusted_keys
    from whisper_store.errors import StoreError
    from whisper_store.settings import StoreSettings, ca_bundle
    from whisper_store.store import Store

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

# The access key is a name and not a secret: hiding it would blot out every package whose name contains it.
STORE_ARGUMENTS = {
    "endpoint": {"type": "str", "required": True},
    "bucket": {"type": "str", "default": "whisper-artifacts"},
    "region": {"type": "str", "default": "us-east-1"},
    "access_key": {"type": "str", "required": True, "no_log": False},
    "secret_key": {"type": "str", "required": True, "no_log": True},
}
TRUSTED_KEYS = {"trusted_keys": {"type": "list", "elements": "str", "default": [], "no_log": False}}


def store_of(module: AnsibleModule, trusting: bool = False) -> Store:
    """Return the `Store` that a module's arguments name; raises `StoreError` for arguments that name none.

    `trusting` takes the module's `trusted_keys`, without which nothing can be resolved or published.
    """
    settings = {name: module.params[name] for name in STORE_ARGUMENTS}
    try:
        given = "\n".join(module.params["trusted_keys"]) if trusting else ""
        trusted = trusted_keys(given, "whisper_service_trusted_keys") if trusting else ()
    except SigningError as error:
        raise StoreError(str(error)) from None
    return Store(StoreSettings(**settings, ca_bundle=ca_bundle()), trusted=trusted)


@contextmanager
def store_errors(module: AnsibleModule) -> Iterator[None]:
    """End the module with one line when the store, or the package, does not allow what is asked."""
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("botocore"), exception=IMPORT_ERROR)
    try:
        yield
    except StoreError as error:
        module.fail_json(msg=str(error), store_error=type(error).__name__)
