"""A build backend that builds nothing: pip asks one for metadata before it saves a source distribution.

It answers with the PKG-INFO that every source distribution contains, so no code of the package runs, and pip does not
fetch the packages that a build would need. See https://peps.python.org/pep-0517/.
"""

from __future__ import annotations

import re
import shutil
from email.parser import HeaderParser
from pathlib import Path


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Write `<name>-<version>.dist-info` for the unpacked distribution in the working directory; returns its name."""
    with open("PKG-INFO", encoding="utf-8") as stream:
        headers = HeaderParser().parse(stream, headersonly=True)
    directory = Path(metadata_directory) / f"{re.sub(r'[-_.]+', '_', headers['Name'])}-{headers['Version']}.dist-info"
    directory.mkdir()
    shutil.copyfile("PKG-INFO", directory / "METADATA")
    return directory.name
