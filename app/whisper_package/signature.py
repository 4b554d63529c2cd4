"""`manifest.json.sig`: who stands for a release. The one place that knows its form, signs it and verifies it.

A signature is a statement in five lines of text, and ed25519 over exactly these lines:

    whisper-xeon release 1
    model small
    release <release id>
    manifest_sha256 <SHA-256 of manifest.json>
    serial 20261127214500
    signature <base64>

The manifest lists every file with its digest, so a statement covers all of a release, `provenance.json` and
`sbom.cdx.json` included. The serial is the time of signing, in UTC to the second: it orders the releases of a model,
and says how old the newest statement is.

`openssl pkeyutl` computes. Keys and messages reach it in memory: a private key is on no disk and in no argument list.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from whisper_package.errors import PackageError
from whisper_package.small_files import text_of

# One in use, and its successor or predecessor while keys are exchanged.
MAX_TRUSTED_KEYS = 2
# A statement has about 320 bytes; nothing longer is read.
MAX_SIGNATURE_SIZE = 1024
SERIAL_FORM = "%Y%m%d%H%M%S"
# Days after which a signature is old.
SIGNED_DAYS = 90
SIGN_COMMAND = "WHISPER_SIGNING_KEY_FILE=… PYTHONPATH=app python -m whisper_store sign"
ADOPT_COMMAND = "WHISPER_SIGNING_KEY_FILE=… PYTHONPATH=app python -m whisper_store adopt"
KEYS_COMMAND = "PYTHONPATH=app python -m whisper_store keys"

_SIGNATURE = re.compile(
    rb"(?P<text>whisper-xeon release 1\n"
    rb"model (?P<model>[a-z][a-z0-9._-]{0,62})\n"
    rb"release (?P<release_id>[0-9a-f]{64})\n"
    rb"manifest_sha256 (?P<manifest_sha256>[0-9a-f]{64})\n"
    rb"serial (?P<serial>[0-9]{14})\n)"
    rb"signature (?P<signature>[A-Za-z0-9+/]{86}==)\n"
)
# The only line in an ed25519 key's PEM file that says anything (RFC 8410).
_PUBLIC = re.compile(r"MCowBQYDK2VwAyEA[A-Za-z0-9+/]{43}=")
_PRIVATE = re.compile(r"MC4CAQAwBQYDK2VwBCIEI[A-Za-z0-9+/]{43}")
_OPENSSL_SECONDS = 30
_COMMAND_SECONDS = 300

# No statement has this text: a signature of it stands for nothing.
_TRIAL = b"whisper-xeon trial\n"

# Takes the text of a statement, returns the 64 bytes of its signature.
Signer = Callable[[bytes], bytes]


class UntrustedError(PackageError):
    """A release is not signed, or not by a trusted key, or its signature is for another one."""


class SigningError(PackageError):
    """Keys cannot be used or made, or signing failed."""


@dataclass(frozen=True)
class Signature:
    """What a trusted key states of a release; `key` is that public key."""

    model: str
    release_id: str
    manifest_sha256: str
    serial: str
    key: str


def age_warning(signature: Signature, environ: Mapping[str, str]) -> str:
    """Return a warning if a signature is older than WHISPER_SIGNED_DAYS (90; 0 never warns), else an empty string.

    Whoever holds a channel back cannot sign, so what it names grows old. Raises `SigningError`.
    """
    limit = environ.get("WHISPER_SIGNED_DAYS") or str(SIGNED_DAYS)
    if not re.fullmatch(r"[0-9]{1,5}", limit):
        raise SigningError(f"WHISPER_SIGNED_DAYS={limit[:20]!r} is not a number of days")
    try:
        moment = datetime.strptime(signature.serial, SERIAL_FORM).replace(tzinfo=timezone.utc)
    except ValueError:
        raise SigningError(f"the serial {signature.serial} of release {signature.release_id} is not a time") from None
    days = (datetime.now(timezone.utc) - moment).days
    if not 0 < int(limit) < days:
        return ""
    return (
        f"warning: release {signature.release_id[:12]} of {signature.model} was signed {days} days ago: if a newer one "
        "was published since, somebody holds its channel back (docs/signing.md)"
    )


def new_serial(moment: datetime | None = None) -> str:
    """Return the serial of a moment, or of now."""
    return (moment or datetime.now(timezone.utc)).astimezone(timezone.utc).strftime(SERIAL_FORM)


def trusted_keys(text: str, setting: str) -> tuple[str, ...]:
    """Return the public keys in a text: PEM, or the line of base64 in it, one or more of either.

    `setting` names where the text is from. Raises `SigningError` for none, for too many, and for anything else.
    """
    keys = dict.fromkeys(_words(text))
    for key in keys:
        if not _PUBLIC.fullmatch(key):
            raise SigningError(
                f"{setting} has something that is not a public ed25519 key: it takes the line that `{KEYS_COMMAND}` "
                "prints, which begins with MCowBQYDK2VwAyEA"
            )
    if not keys:
        raise SigningError(
            f"{setting} names no trusted key, and nothing is used that none has signed: `{KEYS_COMMAND}` makes a pair "
            "and prints its public key (docs/signing.md)"
        )
    if len(keys) > MAX_TRUSTED_KEYS:
        raise SigningError(f"{setting} has {len(keys)} keys: at most {MAX_TRUSTED_KEYS} are trusted at a time")
    return tuple(keys)


def trusted_keys_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the public keys that WHISPER_TRUSTED_KEYS has, or the file named by WHISPER_TRUSTED_KEYS_FILE.

    Raises `SigningError`.
    """
    text, path = environ.get("WHISPER_TRUSTED_KEYS", ""), environ.get("WHISPER_TRUSTED_KEYS_FILE", "")
    if text and path:
        raise SigningError("WHISPER_TRUSTED_KEYS and WHISPER_TRUSTED_KEYS_FILE are both set: set only one")
    if not path:
        return trusted_keys(text, "WHISPER_TRUSTED_KEYS (or the file that WHISPER_TRUSTED_KEYS_FILE names)")
    return trusted_keys(_key_file("WHISPER_TRUSTED_KEYS_FILE", path), f"WHISPER_TRUSTED_KEYS_FILE ({path})")


def signer_of(environ: Mapping[str, str]) -> Signer:
    """Return the signer that WHISPER_SIGNING_KEY_FILE or WHISPER_SIGNING_COMMAND names. Raises `SigningError`."""
    path, command = environ.get("WHISPER_SIGNING_KEY_FILE", ""), environ.get("WHISPER_SIGNING_COMMAND", "")
    if bool(path) == bool(command):
        what = "are both set: set only one" if path else "are not set: one of them must say what signs"
        raise SigningError(
            f"WHISPER_SIGNING_KEY_FILE and WHISPER_SIGNING_COMMAND {what} (`{KEYS_COMMAND}` makes a key)"
        )
    if path:
        return key_signer(_key_file("WHISPER_SIGNING_KEY_FILE", path))
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SigningError(f"WHISPER_SIGNING_COMMAND is not a command: {error}") from None
    if not words:
        raise SigningError("WHISPER_SIGNING_COMMAND is not a command: there is no word in it")
    return command_signer(words)


def new_private_key() -> str:
    """Return a new private key, as PEM."""
    return _openssl(["genpkey", "-algorithm", "ed25519"]).decode("ascii")


def public_key(private: str) -> str:
    """Return the line of the public key of a private key (PEM, or its line). Raises `SigningError`."""
    with _in_memory(_private_pem(private)) as (key,):
        return next(_words(_openssl(["pkey", "-pubout", "-in", _path(key)], key).decode("ascii")))


def key_signer(private: str) -> Signer:
    """Return a signer with a private key (PEM, or its line). Raises `SigningError`."""
    pem = _private_pem(private)

    def sign(text: bytes) -> bytes:
        with _in_memory(pem, text) as (key, message):
            return _openssl(
                ["pkeyutl", "-sign", "-rawin", "-inkey", _path(key), "-in", _path(message)],
                key,
                message,
            )

    return sign


def command_signer(command: Sequence[str]) -> Signer:
    """Return a signer that runs a command: the statement on standard input, its signature on standard output.

    The signature is its 64 bytes, or their base64. So the key may be where no file is: a KMS, a token.
    """

    def sign(text: bytes) -> bytes:
        try:
            result = subprocess.run(
                list(command), input=text, capture_output=True, timeout=_COMMAND_SECONDS, check=False
            )
        except OSError as error:
            raise SigningError(f"the command that signs, {command[0]}, cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SigningError(f"the command that signs, {command[0]}, took more than {_COMMAND_SECONDS} s") from None
        if result.returncode:
            said = result.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise SigningError(
                f"the command that signs, {command[0]}, ended with {result.returncode}: {' '.join(said)}"
            )
        if len(result.stdout) == 64:
            return result.stdout
        try:
            return base64.b64decode(result.stdout.strip(), validate=True)
        except ValueError:
            return b""

    return sign


def key_of(signer: Signer, keys: Sequence[str]) -> str | None:
    """Return the one of these public keys that belongs to what signs, found by trying it. Raises `SigningError`."""
    signature = _checked_signature(signer(_TRIAL))
    return next((key for key in keys if _is_signed_by(key, _TRIAL, signature)), None)


def signed(signer: Signer, model: str, release_id: str, manifest_sha256: str, serial: str) -> bytes:
    """Return the content of `manifest.json.sig` for a release. Raises `SigningError`."""
    text = (
        f"whisper-xeon release 1\nmodel {model}\nrelease {release_id}\n"
        f"manifest_sha256 {manifest_sha256}\nserial {serial}\n"
    ).encode("ascii")
    signature = _checked_signature(signer(text))
    return text + b"signature " + base64.b64encode(signature) + b"\n"


def verified(data: bytes, keys: Sequence[str], *, manifest: bytes, where: str, target: str) -> Signature:
    """Return what a trusted key states in `data` of the manifest with these bytes. Raises `UntrustedError`.

    Nothing of the manifest is parsed: the caller compares model and release id with it afterwards. `where` names the
    release in messages; `target` is it as an argument of `whisper_store sign`.
    """
    found = _SIGNATURE.fullmatch(data) if len(data) <= MAX_SIGNATURE_SIZE else None
    if not found:
        raise UntrustedError(f"the signature of {where} is not one: sign it again with `{SIGN_COMMAND} {target}`")
    key = next((key for key in keys if _is_signed_by(key, found["text"], base64.b64decode(found["signature"]))), None)
    if key is None:
        raise UntrustedError(
            f"{where} is signed by none of the trusted keys: if it is yours, sign it with `{SIGN_COMMAND} {target}`; "
            "if you did not publish it, somebody else did"
        )
    stated = {name: found[name].decode("ascii") for name in ("model", "release_id", "manifest_sha256", "serial")}
    if stated["manifest_sha256"] != hashlib.sha256(manifest).hexdigest():
        raise UntrustedError(
            f"{where} differs from what was signed (release {stated['release_id'][:12]} of {stated['model']}): it was "
            "altered or exchanged; publish the release again, or fetch it again"
        )
    return Signature(**stated, key=key)


def is_about(data: bytes, manifest: bytes) -> bool:
    """Return whether `data` has the form of a signature of the manifest with these bytes, whoever may have signed."""
    found = _SIGNATURE.fullmatch(data)
    return bool(found and found["manifest_sha256"].decode("ascii") == hashlib.sha256(manifest).hexdigest())


def unsigned(where: str, target: str) -> UntrustedError:
    """Return the error for a release without a signature."""
    return UntrustedError(f"{where} is not signed: if it is yours, sign it with `{SIGN_COMMAND} {target}`")


def _checked_signature(signature: bytes) -> bytes:
    if len(signature) != 64:
        raise SigningError("what signs did not return an ed25519 signature, which has 64 bytes (or their base64)")
    return signature


def _key_file(setting: str, path: str) -> str:
    try:
        return text_of(path)
    except OSError as error:
        reason = error.strerror
        raise SigningError(f"{setting} names {path[:200]}, which cannot be read: {reason}") from None


def _words(text: str) -> Iterator[str]:
    """Yield what is in lines that are neither PEM's frame nor a comment."""
    for line in text.splitlines():
        if not line.lstrip().startswith(("-----", "#")):
            yield from line.replace(",", " ").split()


def _private_pem(private: str) -> bytes:
    words = list(_words(private))
    if len(words) != 1 or not _PRIVATE.fullmatch(words[0]):
        raise SigningError(
            f"the signing key is not a private ed25519 key without a passphrase: `{KEYS_COMMAND}` makes one"
        )
    return f"-----BEGIN PRIVATE KEY-----\n{words[0]}\n-----END PRIVATE KEY-----\n".encode("ascii")


def _is_signed_by(key: str, text: bytes, signature: bytes) -> bool:
    pem = f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n".encode("ascii")
    with _in_memory(pem, text, signature) as (public, message, sealed):
        command = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", _path(public), "-in", _path(message)]
        return _run([*command, "-sigfile", _path(sealed)], public, message, sealed).returncode == 0


@contextmanager
def _in_memory(*contents: bytes) -> Iterator[tuple[int, ...]]:
    """Give a descriptor of a file in memory for each content."""
    with ExitStack() as stack:
        descriptors = []
        for content in contents:
            descriptor = os.memfd_create("whisper-xeon")
            stack.callback(os.close, descriptor)
            os.write(descriptor, content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            descriptors.append(descriptor)
        yield tuple(descriptors)


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _openssl(arguments: list[str], *descriptors: int) -> bytes:
    result = _run(arguments, *descriptors)
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
        raise SigningError(f"openssl {arguments[0]} failed: {' '.join(said)}")
    return result.stdout


def _run(arguments: list[str], *descriptors: int) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["openssl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=descriptors,
            # Neither a configuration nor an engine that a variable names.
            env={"PATH": os.environ.get("PATH", os.defpath)},
            timeout=_OPENSSL_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise SigningError("openssl is not installed, and signatures need it: apt-get install openssl") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SigningError(f"openssl cannot be run: {error}") from None
