"""What the actions of role `artifact_build` share: the packages of app/ on the path, and how they fail."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from ansible.errors import AnsibleActionFail

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "app"))

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
