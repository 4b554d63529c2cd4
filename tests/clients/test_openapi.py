"""Schemathesis sends what /openapi.json allows and does not allow, and compares the answers with what it promises."""

from __future__ import annotations

import re

from client_programs import CLIENTS, TOOLS, run

CASES = 2000
# For each operation; those that take no audio have far fewer.
EXAMPLES = 500


def test_the_document_is_true(service, tmp_path):
    found = run(
        TOOLS / "schemathesis",
        "run",
        f"{service.url}/openapi.json",
        f"--max-examples={EXAMPLES}",
        "--phases=examples,fuzzing",
        # An empty text, an empty list and null are the same in a form: nothing, as what is left out. So much of what
        # violates the document as JSON is valid as a form.
        "--exclude-checks=negative_data_rejection",
        "--request-timeout=60",
        "--seed=1",
        "--no-color",
        cwd=tmp_path,
        timeout=1200,
        SCHEMATHESIS_HOOKS="schemathesis_hooks",
        PYTHONPATH=str(CLIENTS),
    )
    assert int(re.search(r"(\d+) generated", found)[1]) >= CASES
