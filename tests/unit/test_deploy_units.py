"""Module `whisper_service_units`: from which root systemd takes the units, whatever the root is called."""

from __future__ import annotations

import pytest

from collection_module import load_module

module = load_module("whisper_service_units")


@pytest.mark.parametrize(
    ("target", "root"),
    [
        ("/opt/whisper-xeon/current/units/whisper-xeon.service", "/opt/whisper-xeon"),
        ("/current/units/whisper-xeon.service", "/"),
        ("/lib/systemd/system/whisper-xeon.service", None),
        ("../whisper-xeon.service", None),
        (None, None),
    ],
)
def test_the_root_of_a_unit_is_told_by_its_link(target, root):
    found = module.root_of(target)
    assert (str(found) if found else None) == root


def test_a_root_is_the_same_under_each_of_its_names(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "name").symlink_to("disk")
    link = tmp_path / "whisper-xeon.service"
    link.symlink_to(tmp_path / "disk" / "current" / "units" / "whisper-xeon.service")
    assert module.leads_to(link, str(tmp_path / "name" / "current" / "units" / "whisper-xeon.service"))
    assert not module.leads_to(link, str(tmp_path / "other" / "current" / "units" / "whisper-xeon.service"))
    assert not module.leads_to(tmp_path / "disk", "/anything")
