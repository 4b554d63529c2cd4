"""What a download makes of a staging directory that somebody else had been in."""

from __future__ import annotations

import pytest

from whisper_store import download

FILES = [
    download._File(path, f"releases/{path}", 1, False, "0" * 64) for path in ("weights.bin", "cpu/icelake/library.so")
]


@pytest.fixture
def staging(tmp_path):
    """A staging directory in which one file is complete and one has begun."""
    path = tmp_path / ".whisper_small_xeon.part"
    (path / "cpu" / "icelake").mkdir(parents=True)
    (path / "cpu" / "icelake" / "library.so").write_bytes(b"1")
    (path / "weights.bin.part").write_bytes(b"1")
    return path


def present(staging) -> set[str]:
    return {path.relative_to(staging).as_posix() for path in staging.rglob("*") if not path.is_dir()}


def test_what_an_earlier_run_left_is_gone_on_with(staging):
    download._open_staging(staging)
    assert present(staging) == {"cpu/icelake/library.so", "weights.bin.part"}


@pytest.mark.parametrize("name", ["cpu", "cpu/glibc-hwcaps", "weights.bin"])
def test_where_there_is_a_link_nothing_is_gone_on_with(staging, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    if (staging / name).exists():
        (staging / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (staging / name).symlink_to(elsewhere)
    download._open_staging(staging)
    assert list(staging.iterdir()) == []
    assert elsewhere.exists()


def test_a_link_in_place_of_the_staging_directory_is_removed(staging, tmp_path):
    staging.rename(tmp_path / "elsewhere")
    staging.symlink_to(tmp_path / "elsewhere")
    download._open_staging(staging)
    assert not staging.is_symlink()
    assert list(staging.iterdir()) == []
    assert present(tmp_path / "elsewhere") == {"cpu/icelake/library.so", "weights.bin.part"}


def test_what_no_file_of_the_release_needs_is_removed(staging):
    (staging / "glibc-hwcaps" / "x86-64-v3").mkdir(parents=True)
    (staging / "cpu" / "glibc-hwcaps").mkdir()
    (staging / "cpu" / "glibc-hwcaps" / "libc.so.6").write_bytes(b"evil")
    download._remove_leftovers(staging, FILES)
    assert {path.relative_to(staging).as_posix() for path in staging.rglob("*")} == {
        "cpu",
        "cpu/icelake",
        "cpu/icelake/library.so",
    }
