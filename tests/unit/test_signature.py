"""Signatures of releases: what is signed, and everything that is not accepted as a signature."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from datetime import datetime, timedelta, timezone

import pytest

from sealed_packages import hollow_package
from signing import PRIVATE, PUBLIC, SERIAL, SIGNER, TRUSTED, sign
from whisper_package.errors import PackageError
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME, encode_manifest
from whisper_package.package import Package
from whisper_package.signature import (
    SigningError,
    UntrustedError,
    age_warning,
    command_signer,
    key_signer,
    new_private_key,
    new_serial,
    public_key,
    signed,
    signer_of,
    trusted_keys,
    trusted_keys_of,
    verified,
)

OTHER = new_private_key()


@pytest.fixture
def package(tmp_path) -> Package:
    return hollow_package(tmp_path)


def change(package: Package, before: bytes, after: bytes) -> None:
    path = package.path(SIGNATURE_NAME)
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))


def test_a_trusted_key_states_model_release_manifest_and_serial(package):
    found = Package(package.directory, TRUSTED).signature
    assert (found.model, found.release_id, found.manifest_sha256, found.serial, found.key) == (
        "small",
        package.release_id,
        package.manifest_digest,
        SERIAL,
        PUBLIC,
    )


def test_one_of_two_trusted_keys_is_enough(package):
    assert Package(package.directory, (public_key(OTHER), PUBLIC)).signature.key == PUBLIC


def test_a_signature_is_the_same_bytes_for_the_same_statement(package):
    before = package.path(SIGNATURE_NAME).read_bytes()
    sign(package.directory)
    assert package.path(SIGNATURE_NAME).read_bytes() == before


def test_an_unsigned_package_is_answered_with_the_command_that_signs(package):
    package.path(SIGNATURE_NAME).unlink()
    with pytest.raises(UntrustedError, match=rf"is not signed: .* -m whisper_store sign {package.directory}`"):
        Package(package.directory, TRUSTED)


def test_another_key_is_not_trusted(package):
    sign(package.directory, private=OTHER)
    with pytest.raises(UntrustedError, match="signed by none of the trusted keys"):
        Package(package.directory, TRUSTED)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"model small", b"model medium"), (SERIAL.encode(), b"20990101000000"), (b"release 1\n", b"release 2\n")],
)
def test_an_edited_statement_is_not_accepted(package, before, after):
    change(package, before, after)
    with pytest.raises(UntrustedError):
        Package(package.directory, TRUSTED)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 300, b"x" * 3_000_000, b"whisper-xeon release 1\n", b"signature " + base64.b64encode(bytes(64))],
)
def test_what_is_no_signature_is_not_parsed_further(package, content):
    package.path(SIGNATURE_NAME).write_bytes(content)
    with pytest.raises(UntrustedError, match=r"is not one|is no signature: larger than"):
        Package(package.directory, TRUSTED)


def test_more_after_a_signature_is_not_accepted(package):
    with open(package.path(SIGNATURE_NAME), "ab") as stream:
        stream.write(b"serial 20990101000000\n")
    with pytest.raises(UntrustedError):
        Package(package.directory, TRUSTED)


def test_the_signature_of_another_package_is_not_accepted(package, tmp_path):
    other = hollow_package(tmp_path / "other", "medium")
    package.path(SIGNATURE_NAME).write_bytes(other.path(SIGNATURE_NAME).read_bytes())
    with pytest.raises(UntrustedError, match="differs from what was signed"):
        Package(package.directory, TRUSTED)


def test_a_statement_whose_release_is_not_the_manifests_is_not_accepted(package):
    path = package.path(SIGNATURE_NAME)
    path.write_bytes(signed(SIGNER, "small", "0" * 64, package.manifest_digest, SERIAL))
    with pytest.raises(UntrustedError, match="is for another release than its manifest says"):
        Package(package.directory, TRUSTED)


def test_the_manifest_is_not_parsed_before_its_signature_is_verified(package):
    package.path(MANIFEST_NAME).write_bytes(b"[" * 100_000)
    with pytest.raises(UntrustedError):
        Package(package.directory, TRUSTED)


def test_an_endless_manifest_is_not_read(package):
    path = package.path(MANIFEST_NAME)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(PackageError, match="not a regular file"):
        Package(package.directory, TRUSTED)


def test_a_manifest_with_other_bytes_for_the_same_content_is_not_accepted(package):
    path = package.path(MANIFEST_NAME)
    path.write_bytes(encode_manifest(package.manifest).replace(b"\n ", b"\n  "))
    with pytest.raises(UntrustedError):
        Package(package.directory, TRUSTED)


@pytest.mark.parametrize("form", ["{line}", "# ours\n{line}\n", "{pem}", "{pem}{other}", "{line},{other_line}"])
def test_keys_are_lines_or_pem(form):
    def pem(line):
        return f"-----BEGIN PUBLIC KEY-----\n{line}\n-----END PUBLIC KEY-----\n"

    other = public_key(OTHER)
    text = form.format(line=PUBLIC, pem=pem(PUBLIC), other=pem(other), other_line=other)
    assert trusted_keys(text, "KEYS")[0] == PUBLIC


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "KEYS names no trusted key, .* whisper_store keys"),
        (PRIVATE, "not a public ed25519 key"),
        (PUBLIC[:-2], "not a public ed25519 key"),
        ("\n".join(public_key(new_private_key()) for _ in range(3)), "KEYS has 3 keys: at most 2"),
    ],
)
def test_what_cannot_be_trusted_is_named_without_being_shown(text, said):
    with pytest.raises(SigningError, match=said) as raised:
        trusted_keys(text, "KEYS")
    assert not text or text.strip() not in str(raised.value)


@pytest.mark.parametrize("path", ["/nonexistent", "/dev/zero", "/", "x" * 5000])
def test_a_file_of_keys_that_is_none_is_one_line(path):
    with pytest.raises(SigningError, match="WHISPER_TRUSTED_KEYS_FILE"):
        trusted_keys_of({"WHISPER_TRUSTED_KEYS_FILE": path})


def test_a_fifo_as_file_of_keys_blocks_nothing(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SigningError, match="not a regular file"):
        trusted_keys_of({"WHISPER_TRUSTED_KEYS_FILE": str(tmp_path / "fifo")})


def test_a_command_signs_and_gets_the_statement_on_standard_input(package, tmp_path):
    key = tmp_path / "key.pem"
    key.write_text(PRIVATE)
    command = (
        f"tee {tmp_path}/text >/dev/null; openssl pkeyutl -sign -rawin -inkey {key} -in {tmp_path}/text | base64 -w0"
    )
    package.sign(command_signer(["sh", "-c", command]), SERIAL)
    assert Package(package.directory, TRUSTED).signature.serial == SERIAL


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nonexistent"], "cannot be run"),
        (["sh", "-c", "echo no token >&2; exit 3"], "ended with 3: no token"),
        (["echo", "c2hvcnQ="], "64 bytes"),
    ],
)
def test_a_command_that_does_not_sign_is_named(package, command, said):
    with pytest.raises(SigningError, match=said):
        package.sign(command_signer(command), SERIAL)


def test_a_private_key_is_in_no_argument_list(package, tmp_path, monkeypatch):
    spy = tmp_path / "bin" / "openssl"
    spy.parent.mkdir()
    program = shutil.which("openssl")
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/arguments\nexec {program} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    package.sign(key_signer(PRIVATE), SERIAL)
    arguments = (tmp_path / "arguments").read_text()
    assert "-sign" in arguments
    assert PRIVATE.splitlines()[1] not in arguments


def test_what_signs_must_be_said_once(tmp_path):
    for environment in ({}, {"WHISPER_SIGNING_KEY_FILE": "key", "WHISPER_SIGNING_COMMAND": sys.executable}):
        with pytest.raises(SigningError, match="WHISPER_SIGNING_KEY_FILE and WHISPER_SIGNING_COMMAND"):
            signer_of(environment)


def test_a_valid_signature_says_nothing_of_another_manifest():
    data = signed(SIGNER, "small", "0" * 64, "1" * 64, SERIAL)
    with pytest.raises(UntrustedError):
        verified(data, TRUSTED, manifest=b"{}", where="it", target="it")


@pytest.mark.parametrize(
    ("days", "limit", "warns"), [(91, "", True), (89, "", False), (10, "9", True), (999, "0", False)]
)
def test_a_signature_grows_old(package, days, limit, warns):
    sign(package.directory, new_serial(datetime.now(timezone.utc) - timedelta(days=days, hours=1)))
    found = Package(package.directory, TRUSTED).signature
    said = f"release {package.release_id[:12]} of small was signed {days} days ago"
    assert (said in age_warning(found, {"WHISPER_SIGNED_DAYS": limit})) == warns


def test_an_age_that_is_no_number_is_named(package):
    with pytest.raises(SigningError, match="WHISPER_SIGNED_DAYS='soon' is not a number of days"):
        age_warning(Package(package.directory, TRUSTED).signature, {"WHISPER_SIGNED_DAYS": "soon"})
