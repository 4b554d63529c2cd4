"""Adopting packages in the old layout, with the real store: what is taken, what is refused, what stays as it was."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from minio_server import account_environment
from paths import APP, ROOT
from sealed_packages import rewrite
from service_container import OLD_LIBRARIES
from signing import KEY_FILE, TRUSTED
from whisper_package.digests import file_digest
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME
from whisper_package.package import Package
from whisper_package.signature import new_private_key
from whisper_store.client import s3_client
from whisper_store.store import Store

WEIGHTS = "ggml-small-q5_1.bin"


@pytest.fixture
def owner(minio):
    """Settings of the administrator on an empty bucket."""
    settings = minio.settings("root", bucket=f"adopt-{uuid.uuid4().hex[:12]}")
    s3_client(settings).create_bucket(Bucket=settings.bucket)
    return settings


@pytest.fixture
def client(owner):
    return s3_client(owner)


@pytest.fixture
def environment(owner, artifacts_dir, tmp_path):
    """The operator's, in a directory with packages that were built here, in `dist`."""
    (tmp_path / "dist").symlink_to(artifacts_dir)
    return {
        **account_environment(owner),
        "PYTHONPATH": str(APP),
        "MINIO_BUCKET": owner.bucket,
        "WHISPER_SIGNING_KEY_FILE": str(KEY_FILE),
    }


@pytest.fixture
def run(environment, tmp_path):
    """Run `python -m whisper_store` in `tmp_path`, with more environment."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "whisper_store", *arguments],
            cwd=tmp_path,
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def put(owner, client):
    """Copy files of a directory to the top of the bucket, as `mc cp -r` does: `put(directory, names)`."""

    def put(directory: Path, names: list[str] | None = None) -> None:
        for path in sorted(directory.rglob("*")):
            relative = path.relative_to(directory).as_posix()
            if path.is_file() and (names is None or relative in names):
                client.put_object(Bucket=owner.bucket, Key=f"{directory.name}/{relative}", Body=path.read_bytes())

    return put


@pytest.fixture
def contents(owner, client):
    """Return key -> (ETag, time of the last write) of every object."""

    def contents(prefix: str = "") -> dict[str, tuple]:
        found = client.list_objects_v2(Bucket=owner.bucket, Prefix=prefix).get("Contents", [])
        return {item["Key"]: (item["ETag"], item["LastModified"]) for item in found}

    return contents


@pytest.fixture
def old_bucket(small_package, put):
    """A bucket as the first documents leave it: libraries and weights of `small`, and nothing about them."""
    put(small_package.directory, [*OLD_LIBRARIES, WEIGHTS])


def commands(message: str) -> list[list[str]]:
    """Return the commands that a message names, each as the arguments of whisper_store."""
    named = re.findall(r"`([^`]*whisper_store [^`]*)`", message)
    return [shlex.split(command.partition("whisper_store ")[2]) for command in named]


def test_the_old_bucket_is_refused_with_the_command_that_adopts_it(
    run, old_bucket, contents, owner, small_package, tmp_path
):
    before = contents()
    refused = run("download", "small")
    assert refused.returncode == 3
    [command] = commands(refused.stderr)
    assert command == ["adopt", "small"]

    adopted = run(*command)
    assert adopted.returncode == 0, adopted.stderr
    assert f"self-test heard '{small_package.selftest_text}'" in adopted.stdout
    after = contents()
    assert {key: after[key] for key in before} == before

    assert run("download", "small").returncode == 0
    package = Package(tmp_path / "whisper_small_xeon", TRUSTED)
    package.verify()
    assert package.path(WEIGHTS).read_bytes() == small_package.path(WEIGHTS).read_bytes()
    assert run("verify").returncode == 0

    again = run("adopt")
    assert (again.returncode, "nothing was done" in again.stdout) == (0, True)
    assert contents() == after


def test_a_dry_run_needs_no_key_and_changes_nothing(run, old_bucket, contents):
    before = contents()
    result = run("adopt", "--dry-run", WHISPER_SIGNING_KEY_FILE="")
    assert result.returncode == 0, result.stderr
    assert "5 files" in result.stdout
    assert "would be adopted, its weights" in result.stdout
    assert contents() == before


def test_what_a_channel_has_is_never_replaced(run, old_bucket, owner, medium_package, small_package):
    store = Store(owner, trusted=TRUSTED)
    store.publish(small_package.directory)
    result = run("adopt")
    assert f"channel stable has release {small_package.release_id} of small already" in result.stdout
    assert run("adopt", "--channel", "before").returncode == 0
    assert store.resolve("small").release_id == small_package.release_id
    assert store.resolve("small", "before").manifest["model"]["source_sha256"]


def test_a_package_from_before_voice_detection_is_adopted_whole(run, package_copy, put, owner):
    def as_before(manifest):
        manifest["files"] = [
            entry
            for entry in manifest["files"]
            if entry["path"] not in (manifest["vad"]["file"], "provenance.json", "sbom.cdx.json")
        ]
        del manifest["vad"]

    rewrite(package_copy, as_before)
    (package_copy / SIGNATURE_NAME).unlink()
    put(package_copy)
    result = run("adopt", "small")
    assert result.returncode == 0, result.stderr
    assert "self-test heard" in result.stdout
    assert "from before voice detection, provenance" in result.stdout
    assert Store(owner, trusted=TRUSTED).resolve("small").release_id == Package(package_copy).release_id
    assert run("verify").returncode == 0


def another_library(manifest, entry):
    """Take the place of a library."""
    [library] = [file for file in manifest["files"] if file["path"] == "libwhisper.so.1"]
    library.update(size=entry["size"], sha256=entry["sha256"])
    return library["path"]


def a_library_that_looks_like_data(manifest, entry):
    """Be the library for this processor, by a name that no library has."""
    manifest["files"].append({**entry, "path": "data"})
    manifest["variants"].insert(0, {"name": "any", "path": "data", "cpu_flags": []})
    return "data"


@pytest.mark.parametrize("attack", [another_library, a_library_that_looks_like_data])
def test_code_that_nobody_signed_is_neither_adopted_nor_run_beside_the_key(
    run, package_copy, put, owner, small_package, tmp_path, attack
):
    library = tmp_path / "library"
    library.write_bytes(b"no library: to load it would have failed the self-test")
    entry = {"size": library.stat().st_size, "sha256": file_digest(library), "executable": False}
    paths = []
    rewrite(package_copy, lambda manifest: paths.append(attack(manifest, entry)))
    shutil.copyfile(library, package_copy / paths[0])
    put(package_copy)
    assert "whole if its libraries are those in dist, else its weights" in run("adopt", "--dry-run").stdout
    adopted = run("adopt")
    assert "self-test heard" in adopted.stdout, adopted.stderr
    store = Store(owner, trusted=TRUSTED)
    files = {each["path"]: each["sha256"] for each in store.resolve("small").manifest["files"]}
    assert files["libwhisper.so.1"] == file_digest(small_package.path("libwhisper.so.1"))
    assert entry["sha256"] not in files.values()
    wanted = run("adopt", "--own-libraries", "--channel", "own")
    assert "which were not run here" in wanted.stdout, wanted.stderr
    assert store.resolve("small", "own").release_id == Package(package_copy).release_id


def garbage(package: Path) -> None:
    with open(package / WEIGHTS, "r+b") as stream:
        stream.seek(12)
        stream.write(b"\xff" * 64)


def without_manifest(package: Path) -> None:
    garbage(package)
    (package / MANIFEST_NAME).unlink()
    (package / SIGNATURE_NAME).unlink()


@pytest.mark.parametrize(
    ("spoil", "status", "said"),
    [
        (garbage, 4, f"{WEIGHTS} differs from its manifest"),
        (without_manifest, 4, "was not adopted"),
        (lambda package: (package / "libggml.so.0").unlink(), 4, "libggml.so.0 is missing"),
        (lambda package: (package / MANIFEST_NAME).write_bytes(b"{"), 4, "is not valid JSON"),
    ],
    ids=["altered", "unsafe weights", "incomplete", "no manifest of ours"],
)
def test_what_is_damaged_is_refused_and_nothing_is_written(run, package_copy, put, contents, spoil, status, said):
    spoil(package_copy)
    put(package_copy)
    before = contents()
    result = run("adopt")
    assert result.returncode == status
    assert said in result.stderr
    assert (len(result.stderr.splitlines()), "Traceback" in result.stderr) == (1, False)
    assert contents() == before


def test_weights_that_hear_other_words_are_refused(run, old_bucket, package_copy, contents):
    rewrite(package_copy, lambda manifest: manifest["selftest"].update(text="something else"))
    before = contents()
    result = run("adopt", "--libraries", str(package_copy))
    assert result.returncode == 1
    assert "instead of 'something else'" in result.stderr
    assert contents() == before


def test_without_a_package_that_was_built_here_the_build_is_named(run, old_bucket, tmp_path):
    result = run("adopt", "--libraries", str(tmp_path / "absent"))
    assert result.returncode == 1
    assert "its weights can be adopted and libraries must be built" in result.stderr
    assert "ansible-playbook build.yml --skip-tags publish" in result.stderr


def test_only_who_has_the_signing_key_adopts(run, old_bucket, contents, tmp_path):
    other = tmp_path / "other-key.pem"
    other.write_text(new_private_key(), "ascii")
    before = contents()
    for key, command, status, said in (
        ("", "", 2, "WHISPER_SIGNING_KEY_FILE"),
        (str(other), "", 2, "is not one of WHISPER_TRUSTED_KEYS"),
        ("", "false", 1, "the command that signs, false, ended with 1"),
    ):
        result = run("adopt", WHISPER_SIGNING_KEY_FILE=key, WHISPER_SIGNING_COMMAND=command)
        assert result.returncode == status
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    assert contents() == before


def test_an_empty_bucket_has_nothing_to_adopt(run):
    result = run("adopt")
    assert result.returncode == 3
    assert "there is nothing to adopt" in result.stderr


def test_an_old_directory_is_neither_used_nor_replaced(run, owner, small_package, package_copy, tmp_path):
    Store(owner, trusted=TRUSTED).publish(small_package.directory)
    for path in package_copy.rglob("*"):
        if path.is_file() and path.name not in (*OLD_LIBRARIES, WEIGHTS):
            path.unlink()
    refused = run("download", "small", "--dir", str(package_copy.parent))
    assert refused.returncode == 3
    [command] = commands(refused.stderr)
    assert command == ["adopt", str(package_copy)]
    assert (package_copy / WEIGHTS).exists()

    new = tmp_path / "new"
    done = run(*command, "--output", str(new), MINIO_ENDPOINT="")
    assert done.returncode == 0, done.stderr
    Package(new / "whisper_small_xeon", TRUSTED).verify()
    assert (package_copy / WEIGHTS).exists()


def test_after_a_push_the_download_names_the_one_command_in_between(run, environment, package_copy):
    script = package_copy / "push_to_minio.sh"
    shutil.copyfile(ROOT / "docker" / "builder" / "package" / "push_to_minio.sh", script)

    def as_built_today(manifest):
        [entry] = [entry for entry in manifest["files"] if entry["path"] == script.name]
        entry.update(size=script.stat().st_size, sha256=file_digest(script))

    rewrite(package_copy, as_built_today)
    unsigned = {name: value for name, value in environment.items() if name != "WHISPER_SIGNING_KEY_FILE"}
    pushed = subprocess.run(["bash", script], env=unsigned, capture_output=True, text=True, timeout=300)
    assert pushed.returncode == 0, pushed.stderr
    refused = run("download", "small")
    assert refused.returncode == 3
    [command] = commands(refused.stderr)
    assert command == ["promote", Package(package_copy).release_id, "stable"]
    assert shlex.join(command) in pushed.stdout
    assert run(*command, WHISPER_SIGNING_KEY_FILE="").returncode == 0
    assert run("download", "small").returncode == 0
