#!/usr/bin/env python3
"""Download whisper_<model>_xeon/ from the artifact store: `python -m whisper_store download` under its familiar name.

Needs Python 3.9 and botocore (package boto3, or Debian's python3-botocore).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "app"))

try:
    from whisper_store.__main__ import main_download
except ModuleNotFoundError as error:
    if error.name != "botocore":
        raise
    sys.exit("Python's botocore is not installed: apt-get install python3-botocore, or pip install boto3")

sys.exit(main_download())
