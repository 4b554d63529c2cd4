"""What the actions of role `artifact_build` share: how they fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ansible.errors import AnsibleActionFail
from ansible_collections.whisper.xeon.plugins.plugin_utils import app_path  # noqa: F401 - for the packages of app/

from whisper_build.downloads import SourceError
from whisper_package.errors import PackageError


@contextlib.contextmanager
def action_errors() -> Iterator[None]:
    """End the action with one line where a source, a package or the disk does not allow what is asked."""
    try:
        yield
    except (SourceError, PackageError) as error:
        raise AnsibleActionFail(str(error)) from None
    except OSError as error:
        raise AnsibleActionFail(f"{error.filename}: {error.strerror}") from None
