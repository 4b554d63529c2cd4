"""Filter that tells which model a variable means."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.whisper.xeon.plugins.plugin_utils import app_path  # noqa: F401 - for the packages of app/

from whisper_package import models
from whisper_package.errors import PackageError


def model_name(value: Any) -> str:
    """Return the model that a value means, whatever its case, aliases resolved; what cannot be a name is an error."""
    try:
        return models.model_name(str(value))
    except PackageError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filter, by its name in templates."""

    def filters(self) -> dict[str, Any]:
        """Return name -> function."""
        return {"model_name": model_name}
