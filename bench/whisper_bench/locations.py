"""Where things are in this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP_DIR = ROOT / "app"
BENCH_DIR = ROOT / "bench"
WORK_DIR = ROOT / ".build" / "bench"  # builds, weights and the baselines' venv; made when needed, and kept
FIXTURE_MODELS = ROOT / "tests" / "fixtures" / "models"
RECORDINGS = ROOT / "tests" / "fixtures" / "recordings"
