"""Lets what runs on the control node import the packages of app/, as soon as it has imported this."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "app"))
