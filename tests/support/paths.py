"""Where things are in this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"
FIXTURES = ROOT / "tests" / "fixtures"
RECORDINGS = FIXTURES / "recordings"
