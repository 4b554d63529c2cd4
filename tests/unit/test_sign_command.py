"""`whisper_store sign` and `keys`, as far as no store is needed: what they take, and what they refuse in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from paths import ROOT
from sealed_packages import hollow_package
from signing import KEY_FILE, TRUSTED
from whisper_package.manifest import SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import public_key
from whisper_store.__main__ import main


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """A key, and neither a store nor trusted keys."""
    for name in ("WHISPER_SIGNING_COMMAND", "WHISPER_TRUSTED_KEYS", "WHISPER_TRUSTED_KEYS_FILE", "MINIO_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WHISPER_SIGNING_KEY_FILE", str(KEY_FILE))


@pytest.fixture
def package(tmp_path) -> Package:
    made = hollow_package(tmp_path)
    made.path(SIGNATURE_NAME).unlink()
    return made


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("6cb04b80", 2, "6cb04b80: what is signed in a store is named by all 64 digits of its id"),
        ("f" * 63, 2, "named by all 64 digits"),
        ("dist/whisper_smal_xeon", 1, "dist/whisper_smal_xeon does not exist"),
        ("x" * 5000, 1, "cannot be read: File name too long"),
        ("/dev/null", 1, "cannot be read: Not a directory"),
    ],
    ids=["8 digits", "63 digits", "mistyped", "long", "no directory"],
)
def test_a_target_that_is_neither_a_package_nor_a_whole_id_is_one_line(capsys, target, status, said):
    assert main(["sign", target]) == status
    output = capsys.readouterr()
    assert said in output.err
    assert (output.out, len(output.err.splitlines())) == ("", 1)


def test_a_package_is_signed_once_it_is_known_to_be_whole(package, capsys):
    assert main(["sign", str(package.directory)]) == 0
    assert Package(package.directory, TRUSTED).signature.release_id == package.release_id
    package.path(SIGNATURE_NAME).unlink()
    package.path("extra").touch()
    assert main(["sign", str(package.directory)]) == 1
    assert "extra is not in the manifest" in capsys.readouterr().err
    assert not package.path(SIGNATURE_NAME).exists()


def test_a_dry_run_needs_no_key_and_signs_nothing(package, capsys, monkeypatch):
    monkeypatch.delenv("WHISPER_SIGNING_KEY_FILE")
    assert main(["sign", "--dry-run", str(package.directory)]) == 0
    assert f"release {package.release_id} would be signed" in capsys.readouterr().out
    assert not package.path(SIGNATURE_NAME).exists()


def test_a_renewal_without_trusted_keys_is_refused_before_the_store_is_asked(capsys):
    assert main(["sign", "--channel", "stable"]) == 2
    assert "names no trusted key" in capsys.readouterr().err


def test_a_command_without_a_word_is_named(package, capsys, monkeypatch):
    monkeypatch.delenv("WHISPER_SIGNING_KEY_FILE")
    monkeypatch.setenv("WHISPER_SIGNING_COMMAND", " ")
    assert main(["sign", str(package.directory)]) == 2
    assert capsys.readouterr().err == "WHISPER_SIGNING_COMMAND is not a command: there is no word in it\n"


def test_a_private_key_is_not_written_where_git_would_take_it(tmp_path, capsys, monkeypatch):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "own.pem"]) == 2
    assert "own.pem is in a git work tree that does not ignore it" in capsys.readouterr().err
    assert not Path("own.pem").exists()
    for name in ("signing-key.pem", "new-key.pem"):  # as the documents name them
        assert main(["keys", name]) == 0
        assert capsys.readouterr().out == f"{public_key(Path(name).read_text())}\n"
