"""A build backend that builds nothing: pip asks one for metadata before it hands out a source distribution.

It answers with the PKG-INFO that every source distribution carries, so neither code of the package runs nor does pip
fetch the packages that building it would take. See https://peps.python.org/pep-0517/.
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
    folder = Path(metadata_directory) / f"{re.sub(r'[-_.]+', '_', headers['Name'])}-{headers['Version']}.dist-info"
    folder.mkdir()
    shutil.copyfile("PKG-INFO", folder / "METADATA")
    return folder.name
