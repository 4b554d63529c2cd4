"""`python -m whisper_store`: keys, sign, publish, adopt, list, verify, promote, prune, download.

Settings come from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from whisper_package.errors import PackageError
from whisper_package.models import ALIASES, MODEL_CONFIGS, model_name, package_directory
from whisper_package.package import Package
from whisper_package.printable import printable
from whisper_package.signature import (
    Signature,
    Signer,
    SigningError,
    age_warning,
    key_of,
    new_private_key,
    new_serial,
    public_key,
    signer_of,
    trusted_keys_of,
)
from whisper_package.small_files import text_of
from whisper_store import adopt as adoption
from whisper_store import catalog
from whisper_store.adopt import OldPackage
from whisper_store.download import download
from whisper_store.errors import BadSetting, DigestMismatch, StoreError, Untrusted
from whisper_store.settings import StoreSettings
from whisper_store.store import DEFAULT_CHANNEL, Channel, Store, is_release_id, model_and_package

_EPILOG = """\
environment:
  MINIO_ENDPOINT         address of the store, for example https://minio.example.com:9000
  MINIO_ACCESS_KEY       credentials; each may be in a file instead, named by
  MINIO_SECRET_KEY         MINIO_ACCESS_KEY_FILE or MINIO_SECRET_KEY_FILE
  MINIO_BUCKET           bucket (whisper-artifacts)
  MINIO_REGION           region of the store (us-east-1)
  AWS_CA_BUNDLE          CA file for a store whose certificate the system does not trust
  WHISPER_TRUSTED_KEYS   public keys, of which one must have signed a release; or in a file
                           that WHISPER_TRUSTED_KEYS_FILE names
{more}
exit status: 0 done, or nothing to do; 1 failed; 2 usage or setting; 3 no such release; 4 a digest differs;
             5 store unreachable or access denied; 6 not signed by a trusted key; 130 interrupted
"""
_SIGN_ENVIRONMENT = """\
  WHISPER_SIGNING_KEY_FILE  file with the private key, or
  WHISPER_SIGNING_COMMAND   a command that takes a statement on standard input and returns its ed25519 signature
"""
_DOWNLOAD_ENVIRONMENT = """\
  WHISPER_MODEL_SIZE     model if none is given (small)
  WHISPER_ARTIFACTS_DIR  directory for the package if --dir is not given (the current one)
  WHISPER_SIGNED_DAYS    days after which a signature is old, which a warning says (90; 0: never)
"""


_ID_START = re.compile(r"[0-9a-f]{6,63}")
_MODELS = f"{', '.join((*MODEL_CONFIGS, *ALIASES))}, or a model of your own, by the name that it was built with"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error is one line on standard error."""
    options = _parser().parse_args(arguments)
    return _run(options)


def main_download(arguments: Sequence[str] | None = None) -> int:
    """The command `download` as a program of its own."""
    parser = _help(argparse.ArgumentParser(description=_download_options.__doc__), _DOWNLOAD_ENVIRONMENT)
    _download_options(parser)
    return _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    try:
        return options.run(options)
    except StoreError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return 130


def _complain(line: str) -> None:
    print(printable(line), file=sys.stderr)  # it may have words of a store in it


def _parser() -> argparse.ArgumentParser:
    parser = _help(argparse.ArgumentParser(prog="python -m whisper_store", description="The artifact store."), "")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    further = {"download": _DOWNLOAD_ENVIRONMENT, "sign": _SIGN_ENVIRONMENT, "adopt": _SIGN_ENVIRONMENT}
    for name, add_options in (
        ("keys", _keys_options),
        ("sign", _sign_options),
        ("download", _download_options),
        ("publish", _publish_options),
        ("adopt", _adopt_options),
        ("list", _list_options),
        ("verify", _verify_options),
        ("promote", _promote_options),
        ("prune", _prune_options),
    ):
        command = commands.add_parser(name, help=add_options.__doc__, description=add_options.__doc__)
        add_options(_help(command, further.get(name, "")))
    return parser


def _help(parser: argparse.ArgumentParser, more: str) -> argparse.ArgumentParser:
    parser.epilog = _EPILOG.format(more=more)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _store(log: Callable[[str], None] = lambda line: None, trusting: bool = True) -> Store:
    """Return the store of the environment; commands that use nothing of a release need no trusted keys."""
    try:
        trusted = trusted_keys_of(os.environ) if trusting else ()
    except SigningError as error:
        raise BadSetting(str(error)) from None
    return Store(StoreSettings.from_environment(), log, trusted)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _keys_options(parser: argparse.ArgumentParser) -> None:
    """Make a signing key unless the file has one, and print its public key, which hosts trust."""
    parser.add_argument(
        "file", nargs="?", default="signing-key.pem", metavar="FILE", help="the private key (signing-key.pem)"
    )
    parser.set_defaults(run=_keys)


def _keys(options: argparse.Namespace) -> int:
    path = Path(options.file)
    try:
        if not path.exists():
            if _would_be_committed(path):
                raise BadSetting(
                    f"{path} is in a git work tree that does not ignore it: name a file outside of it, or *-key.pem"
                )
            private = new_private_key()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as stream:
                stream.write(private)
            _say(
                f"{path} is the private key, which signs: put it into your vault as artifact_build_signing_key, keep a "
                "copy where no bucket is, and remove the file. Its public key, for whisper_service_trusted_keys and "
                "for WHISPER_TRUSTED_KEYS of containers, is:"
            )
        print(public_key(text_of(path)))
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror}") from None
    except SigningError as error:
        raise BadSetting(f"{path}: {error}") from None
    return 0


def _would_be_committed(path: Path) -> bool:
    """Whether `git add .` would take a file. Where git is not installed, or knows no work tree, nothing would."""
    command = ["git", "-C", str(path.absolute().parent), "check-ignore", "--quiet", "--", path.name]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 1
    except FileNotFoundError:
        return False


def _sign_options(parser: argparse.ArgumentParser) -> None:
    """Sign packages in directories, or releases in the store: state that they are yours and current."""
    parser.add_argument(
        "target", nargs="*", metavar="DIRECTORY|RELEASE", help="directory with manifest.json, or all 64 digits of an id"
    )
    parser.add_argument(
        "--channel", metavar="NAME", help="what this channel names, signed and newest as it is, to renew its date"
    )
    parser.add_argument(
        "--all", action="store_true", help="every release in the store without a valid signature: look at them first"
    )
    _dry_run_option(parser)
    parser.set_defaults(run=_sign)


def _sign(options: argparse.Namespace) -> int:
    if not (options.target or options.channel or options.all):
        raise BadSetting("name what to sign: directories, releases, --channel NAME or --all")
    signer = None if options.dry_run else _signer()
    release_ids = [target for target in options.target if is_release_id(target)]
    directories = [target for target in options.target if target not in release_ids]
    for start in filter(_ID_START.fullmatch, directories):
        # Whoever writes to the bucket can make a release whose id begins as another's does.
        raise BadSetting(
            f"{start}: what is signed in a store is named by all 64 digits of its id, which "
            "`PYTHONPATH=app python -m whisper_store list` shows"
        )
    done = "would be signed" if options.dry_run else "signed"
    try:
        for directory in directories:
            package = Package(directory)
            package.verify()
            if signer:
                package.sign(signer, new_serial())
            print(f"{directory}: release {package.release_id} {done}")
    except PackageError as error:
        raise StoreError(str(error)) from None
    except OSError as error:
        raise StoreError(f"{error.filename} cannot be written: {error.strerror}") from None
    if release_ids or options.channel or options.all:
        store = _store(trusting=bool(options.channel or options.all))
        named = catalog.chosen(store, release_ids) if release_ids else []
        renewed = catalog.renewable(store, options.channel, release_ids) if options.channel else []
        unsigned = catalog.unsigned(store) if options.all else []
        adopted = [release for release in unsigned if release.release_id not in release_ids]
        if signer:
            catalog.sign(store, [*named, *(release for release, _ in renewed)], signer, as_of_publication=False)
            catalog.sign(store, adopted, signer, as_of_publication=True)
        for release, signature in renewed:
            print(f"{release.release_id} {release.package}, signed {signature.serial} before: {done}")
        for release in [*named, *adopted]:
            print(f"{release.release_id} {release.package} of {release.date:%Y-%m-%d}: {done}")
    return 0


def _signer() -> Signer:
    try:
        return signer_of(os.environ)
    except SigningError as error:
        raise BadSetting(str(error)) from None


def _download_options(parser: argparse.ArgumentParser) -> None:
    """Download a package, resuming an interrupted download, and verify every file."""
    parser.add_argument("model", nargs="?", metavar="MODEL", type=_model, help=_MODELS)
    parser.add_argument("--dir", metavar="DIR", help="directory for whisper_<model>_xeon/")
    _channel_option(parser)
    parser.add_argument(
        "--release", metavar="ID", help="release to download instead of the channel's; the first 8 digits are enough"
    )
    parser.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> int:
    done = download(
        _store(),
        options.model or _model_of_environment(),
        options.dir or os.environ.get("WHISPER_ARTIFACTS_DIR") or ".",
        channel=options.channel,
        release=options.release,
        output=sys.stderr,
    )
    if not options.release and (warning := _age_warning(done.signature)):
        _say(warning)
    print(f"{done.directory}: release {done.release_id}, {'downloaded' if done.fetched else 'already complete'}")
    return 0


def _age_warning(signature: Signature) -> str:
    try:
        return age_warning(signature, os.environ)
    except SigningError as error:
        raise BadSetting(str(error)) from None


def _model(text: str) -> str:
    try:
        return model_name(text)
    except PackageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _model_of_environment() -> str:
    try:
        return model_name(os.environ.get("WHISPER_MODEL_SIZE") or "small")
    except PackageError as error:
        raise BadSetting(f"WHISPER_MODEL_SIZE: {error}") from None


def _publish_options(parser: argparse.ArgumentParser) -> None:
    """Publish a package and make it a channel's release of its model."""
    parser.add_argument("package", metavar="DIRECTORY", help="directory with manifest.json")
    _channel_option(parser)
    _dry_run_option(parser)
    parser.set_defaults(run=_publish)


def _publish(options: argparse.Namespace) -> int:
    done = _store(_say).publish(options.package, options.channel, options.dry_run)
    print(
        f"{done.package} release {done.release_id}: "
        f"{len(done.uploaded)} files, {done.uploaded_bytes} bytes {'to upload' if options.dry_run else 'uploaded'}"
    )
    _print_change(done.channel_before, done.channel_after, options.dry_run)
    return 0


def _adopt_options(parser: argparse.ArgumentParser) -> None:
    """Make releases of packages in the old layout, at the top of the bucket or in directories, and sign them."""
    parser.add_argument(
        "target",
        nargs="*",
        metavar="MODEL|DIRECTORY",
        help="model at the top of the bucket, or directory whisper_<model>_xeon; all that is at the top without any",
    )
    _channel_option(parser)
    parser.add_argument(
        "--libraries",
        default="dist",
        metavar="DIR",
        help="package that was built here, or directory of some: its libraries are adopted, and no others (dist)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--weights-only", action="store_true", help="take all but the weights from there")
    which.add_argument(
        "--own-libraries",
        action="store_true",
        help="adopt a package's own libraries, whatever they are: hosts will run them, so only for builds of yours",
    )
    parser.add_argument("--output", metavar="DIR", help="put the signed packages there, and nothing into the store")
    _dry_run_option(parser)
    parser.set_defaults(run=_adopt)


def _adopt(options: argparse.Namespace) -> int:
    directories = [Path(target) for target in options.target if os.sep in target or Path(target).is_dir()]
    models = [model_and_package(target)[0] for target in options.target if Path(target) not in directories]
    old = [adoption.in_directory(directory) for directory in directories]
    store = None if options.output and directories and not models else _store(_say)
    if store and (models or not directories):
        old += adoption.in_bucket(store.bucket, models)
    signer = None if options.dry_run else _signer()
    if store and signer and not options.output and not _is_trusted(signer, store):
        raise BadSetting(
            "the key that signs is not one of WHISPER_TRUSTED_KEYS: nothing that it signs can be published"
        )
    status = 0
    for package in old:
        try:
            _adopt_one(package, store, signer, options)
        except StoreError as error:
            _complain(str(error))
            status = status or error.exit_status
    return status


def _is_trusted(signer: Signer, store: Store) -> bool:
    try:
        return key_of(signer, store.trusted) is not None
    except SigningError as error:
        raise StoreError(str(error)) from None


def _adopt_one(old: OldPackage, store: Store | None, signer: Signer | None, options: argparse.Namespace) -> None:
    output = Path(options.output) if options.output else None
    if output and (output / package_directory(old.model)).exists():
        print(f"{output / package_directory(old.model)} is there already: nothing was done")
        return
    if not output and store and old.model in store.read_channel(options.channel).models:
        release = store.resolve(old.model, options.channel)
        print(f"channel {options.channel} has release {release.release_id} of {old.model} already: nothing was done")
        return
    if not signer:
        how = "its weights"
        if old.has_manifest and not options.weights_only:
            how = (
                "whole"
                if options.own_libraries
                else f"whole if its libraries are those in {options.libraries}, else {how}"
            )
        print(f"{old.where}: {len(old.sizes)} files, {sum(old.sizes.values()) / 1e6:.1f} MB: would be adopted, {how}")
        return
    built = adoption.built_here(old.model, Path(options.libraries))
    with tempfile.TemporaryDirectory(prefix="whisper-xeon-adopt-") as scratch:
        done = adoption.adopt(
            old, built, Path(scratch), weights_only=options.weights_only, own_libraries=options.own_libraries
        )
        try:
            done.package.sign(signer, new_serial())
        except SigningError as error:
            raise StoreError(str(error)) from None
        if output:
            _move(done.package.directory, output)
        elif store:
            published = store.publish(done.package.directory, options.channel)
            _print_change(published.channel_before, published.channel_after, dry_run=False)
    print(f"{old.where}: release {done.package.release_id} of {old.model}: {'; '.join(done.notes)}")


def _move(package: Path, output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        shutil.move(package, output / package.name)
    except OSError as error:
        raise StoreError(f"{output} cannot be written: {error.strerror}") from None


def _list_options(parser: argparse.ArgumentParser) -> None:
    """List channels and releases, with sizes, dates, and the channels that name a release."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    store = _store(trusting=False)
    broken: list[str] = []
    channels = catalog.channels(store, broken.append)
    releases = catalog.releases(store, channels)
    for line in broken:
        _complain(line)
    if options.json:
        content = {
            "channels": {channel.name: channel.models for channel in channels},
            "releases": [
                {
                    "release_id": release.release_id,
                    "package": release.package,
                    "size": release.size,
                    "date": release.date.isoformat(),
                    "complete": release.complete,
                    "channels": release.channels,
                }
                for release in releases
            ],
        }
        print(json.dumps(content, indent=1))
        return StoreError.exit_status if broken else 0
    rows = [
        (channel.name, model, entry["release_id"]) for channel in channels for model, entry in channel.models.items()
    ]
    _print_table(("CHANNEL", "MODEL", "RELEASE"), rows)
    print()
    _print_table(
        ("RELEASE", "PACKAGE", "SIZE", "DATE", "CHANNELS"),
        [
            (
                release.release_id,
                release.package,
                f"{release.size / 1e6:.1f} MB",
                f"{release.date:%Y-%m-%d %H:%M}",
                ", ".join(release.channels) if release.complete else "(unfinished)",
            )
            for release in releases
        ],
    )
    return StoreError.exit_status if broken else 0


def _verify_options(parser: argparse.ArgumentParser) -> None:
    """Verify signatures and every byte of releases: of all of them, or of those that a channel names."""
    parser.add_argument("release", nargs="*", metavar="RELEASE", help="id of a release, or its first 8 digits")
    parser.add_argument("--channel", metavar="NAME", help="only what this channel names")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    store = _store()
    worst = 0
    for release in catalog.chosen(store, options.release, options.channel):
        try:
            lines = catalog.problems(store, store.resolve(release.model, release=release.release_id))
            status, verdict = (DigestMismatch.exit_status, "corrupt") if lines else (0, "intact")
        except (DigestMismatch, Untrusted) as error:
            lines, status = [str(error)], error.exit_status
            verdict = "corrupt" if isinstance(error, DigestMismatch) else "untrusted"
        print(f"{release.release_id} {release.package}: {verdict}")
        for line in lines:
            _say(f"  {line}")
        worst = max(worst, status)
    return worst


def _promote_options(parser: argparse.ArgumentParser) -> None:
    """Make a channel name what another one names, or one release."""
    parser.add_argument("source", metavar="FROM", help="channel to read, or all 64 digits of a release")
    parser.add_argument("target", metavar="TO", help="channel to write")
    parser.add_argument(
        "--model", action="append", metavar="MODEL", type=_model, help="only this model (may be repeated)"
    )
    _dry_run_option(parser)
    parser.set_defaults(run=_promote)


def _promote(options: argparse.Namespace) -> int:
    before, after = catalog.promote(_store(), options.source, options.target, options.model, options.dry_run)
    _print_change(before, after, options.dry_run)
    return 0


def _prune_options(parser: argparse.ArgumentParser) -> None:
    """List old releases that can be deleted, or delete them; never one that a channel names."""
    parser.add_argument("--keep", type=int, default=5, metavar="N", help="newest releases of each model to keep (5)")
    parser.add_argument("--delete", action="store_true", help="delete them; without it nothing is changed")
    parser.set_defaults(run=_prune)


def _prune(options: argparse.Namespace) -> int:
    pruned = catalog.prune(_store(trusting=False), options.keep, dry_run=not options.delete, log=_say)
    done = "deleted" if options.delete else "would be deleted"
    for release in pruned:
        print(f"{release.release_id} {release.package} {release.size / 1e6:.1f} MB of {release.date:%Y-%m-%d}: {done}")
    hint = "" if options.delete or not pruned else " (run with --delete to delete them)"
    print(f"{len(pruned)} releases, {sum(release.size for release in pruned) / 1e6:.1f} MB {done}{hint}")
    return 0


def _channel_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channel", default=DEFAULT_CHANNEL, metavar="NAME", help=f"channel ({DEFAULT_CHANNEL})")


def _dry_run_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")


def _print_change(before: Channel, after: Channel, dry_run: bool) -> None:
    changed = {model: entry for model, entry in after.models.items() if before.models.get(model) != entry}
    for model, entry in changed.items():
        old = before.models.get(model, {}).get("release_id", "none")
        verb = "would be" if dry_run else "is"
        print(f"channel {after.name}: {model} {verb} {entry['release_id']} (before: {old})")
    if not changed:
        print(f"channel {after.name}: unchanged")


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
