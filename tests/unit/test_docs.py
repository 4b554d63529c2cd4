"""The documentation agrees with the repository: generated pages, links, and the names of files and targets in it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from generate_docs import pages
from paths import ROOT

KNOWN = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split("\0")[:-1]
DOCUMENTS = sorted(path for path in KNOWN if path.endswith(".md") and (ROOT / path).exists())
# Every file and directory of the repository.
PATHS = {str(path) for name in KNOWN if (ROOT / name).exists() for path in (Path(name), *Path(name).parents)}
DIRECTORIES = "app|bench|docker|docs|kernels|molecule|playbooks|plugins|roles|scripts|tests"


def without_blocks(text: str) -> str:
    """Return Markdown without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> list[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


def dead_links(document: str, text: str) -> list[str]:
    """Return the targets of links in a document's text that are neither in the repository nor a heading of the page."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_blocks(text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        exists = os.path.relpath(file, ROOT) in PATHS
        if not exists or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            dead.append(target)
    return dead


@pytest.mark.parametrize(("path", "content"), pages().items(), ids=pages())
def test_a_generated_page_is_current(path, content):
    assert (ROOT / path).read_text("utf-8") == content, f"{path} is stale: run make docs"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    assert dead_links(document, (ROOT / document).read_text("utf-8")) == []


def test_a_link_to_no_file_or_no_heading_is_dead():
    text = "[a](README.md) [b](#try-it) [c](docs/api.md#fields) [d](gone.md) [e](#gone) [f](docs/api.md#gone) [g](../x)"
    assert dead_links("README.md", text) == ["gone.md", "#gone", "docs/api.md#gone", "../x"]


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path != "CHANGELOG.md"])
def test_every_path_in_code_exists(document):
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(rf"`((?:{DIRECTORIES})/[\w./-]+)`", text)
    assert [path for path in named if path.rstrip("/") not in PATHS] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_of_make_exists(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = (ROOT / document).read_text("utf-8")
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) - targets == set()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
