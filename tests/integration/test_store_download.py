"""The download command against the real store: what it leaves, what it resumes, what it refuses, and how it exits."""

from __future__ import annotations

import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from minio_server import account_environment
from paths import ROOT
from sealed_packages import variant
from signing import sign
from tcp_proxy import TcpProxy
from whisper_package.package import Package
from whisper_package.signature import new_serial
from whisper_store.client import s3_client
from whisper_store.download import PARALLEL, RANGE_SIZE
from whisper_store.store import release_key

COMMAND = [sys.executable, str(ROOT / "scripts" / "download_whisper_artifacts.py")]
LARGE = 40 * RANGE_SIZE


@pytest.fixture
def channel():
    """A channel that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def environment(minio):
    """What the command needs to reach the store, and nothing else of ours."""
    return account_environment(minio.settings("reader"))


@pytest.fixture
def run(environment, tmp_path):
    """Run the command with arguments and more environment, in an empty folder; its output is text."""

    def run(*arguments, **more):
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def root_client(minio):
    """The bucket's administrator, for damage."""
    return s3_client(minio.settings("root"))


@pytest.fixture
def published(minio, small_package, channel):
    """The small package, named by the channel."""
    minio.store("publisher").publish(small_package.directory, channel)
    return small_package


@pytest.fixture
def published_large(minio, small_package, channel, tmp_path_factory):
    """A package with a large file, named by the channel."""
    extra = {"large.bin": os.urandom(LARGE), "cpu/skylakex/libggml-cpu.so.0": os.urandom(1000)}
    package = variant(small_package, tmp_path_factory.mktemp("large"), extra)
    minio.store("publisher").publish(package.directory, channel)
    return package


@pytest.fixture
def proxy(minio):
    """A proxy before the store."""
    with TcpProxy(int(minio.endpoint.rsplit(":", 1)[1])) as proxy:
        yield proxy


def whole(folder: Path) -> Package:
    package = Package(folder)
    package.verify()
    return package


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_download_gives_a_whole_package(run, published, channel, tmp_path):
    result = run("small", "--channel", channel)
    assert result.returncode == 0, result.stderr
    assert whole(tmp_path / "whisper_small_xeon").release_id == published.release_id


def test_only_what_the_manifest_says_is_executable(run, published, channel, tmp_path):
    run("small", "--channel", channel)
    for entry in published.manifest["files"]:
        mode = (tmp_path / "whisper_small_xeon" / entry["path"]).stat().st_mode
        assert stat.S_IMODE(mode) == (0o755 if entry["executable"] else 0o644)


def test_nothing_else_is_left_but_the_lock_and_the_serial(run, published, channel, tmp_path):
    run("small", "--channel", channel)
    assert names(tmp_path) == {
        "whisper_small_xeon",
        ".whisper_small_xeon.lock",
        ".whisper_small_xeon.serials",
    }


def test_second_run_has_nothing_to_do(run, published, channel, proxy):
    run("small", "--channel", channel)
    result = run("small", "--channel", channel, MINIO_ENDPOINT=proxy.endpoint)
    assert (result.returncode, "already complete" in result.stdout) == (0, True)
    assert proxy.answered_bytes < 100_000


def test_folder_of_another_release_is_replaced(run, minio, published, channel, tmp_path, small_package):
    run("small", "--channel", channel)
    newer = variant(small_package, tmp_path / "newer", {"NEW": uuid.uuid4().bytes})
    # Now, since a build of another test may have signed the first one in this store a moment ago.
    minio.store("publisher").publish(sign(newer.directory, new_serial()).directory, channel)
    result = run("small", "--channel", channel, "--dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert whole(tmp_path / "whisper_small_xeon").release_id == newer.release_id
    assert not list(tmp_path.glob(".*.part"))


def test_damaged_folder_is_repaired(run, published, channel, tmp_path):
    run("small", "--channel", channel)
    (tmp_path / "whisper_small_xeon" / "libwhisper.so").write_bytes(b"damaged")
    assert run("small", "--channel", channel).returncode == 0
    whole(tmp_path / "whisper_small_xeon")


def test_links_and_directories_that_were_planted_do_not_become_part_of_the_package(run, published, channel, tmp_path):
    staging = tmp_path / f".whisper_small_xeon.{published.release_id}.part"
    (staging / "glibc-hwcaps").mkdir(parents=True)
    run("small", "--channel", channel, "--dir", str(tmp_path / "other"))
    (staging / "cpu").symlink_to(tmp_path / "other" / "whisper_small_xeon" / "cpu")
    result = run("small", "--channel", channel, "--dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    whole(tmp_path / "whisper_small_xeon")
    planted = tmp_path / "whisper_small_xeon" / "glibc-hwcaps"
    planted.symlink_to(tmp_path)
    assert run("small", "--channel", channel, "--dir", str(tmp_path)).returncode == 0
    assert not planted.is_symlink()


def test_release_is_chosen_by_the_first_digits_of_its_id(run, published, tmp_path):
    assert run("small", "--release", published.release_id[:12]).returncode == 0
    assert whole(tmp_path / "whisper_small_xeon").release_id == published.release_id


def test_model_and_folder_come_from_the_environment(run, minio, medium_package, channel, tmp_path):
    minio.store("publisher").publish(medium_package.directory, channel)
    folder = tmp_path / "elsewhere"
    result = run("--channel", channel, WHISPER_MODEL_SIZE="medium", WHISPER_ARTIFACTS_DIR=str(folder))
    assert result.returncode == 0, result.stderr
    assert whole(folder / "whisper_medium_xeon").model == "medium"


def test_credentials_come_from_files(run, minio, published, channel, tmp_path):
    settings = minio.settings("reader")
    (tmp_path / "user").write_text(settings.access_key + "\n")
    (tmp_path / "secret").write_text(settings.secret_key + "\n")
    result = run(
        "small",
        "--channel",
        channel,
        MINIO_ACCESS_KEY="",
        MINIO_SECRET_KEY="",
        MINIO_ACCESS_KEY_FILE=str(tmp_path / "user"),
        MINIO_SECRET_KEY_FILE=str(tmp_path / "secret"),
    )
    assert result.returncode == 0, result.stderr


def test_killed_download_goes_on_where_it_was(environment, run, published_large, channel, proxy, tmp_path):
    proxy.bytes_per_second = 2e7
    process = subprocess.Popen(
        [*COMMAND, "small", "--channel", channel],
        cwd=tmp_path,
        env={**environment, "MINIO_ENDPOINT": proxy.endpoint},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while proxy.answered_bytes < LARGE / 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "whisper_small_xeon").exists()
    proxy.bytes_per_second = None
    before = proxy.answered_bytes
    result = run("small", "--channel", channel, MINIO_ENDPOINT=proxy.endpoint)
    assert result.returncode == 0, result.stderr
    whole(tmp_path / "whisper_small_xeon")
    total = sum(entry["size"] for entry in published_large.manifest["files"])
    assert proxy.answered_bytes - before < total - LARGE / 2 + (PARALLEL + 1) * RANGE_SIZE


def test_two_at_once_download_once(environment, published_large, channel, proxy, tmp_path):
    proxy.bytes_per_second = 5e7
    processes = [
        subprocess.Popen(
            [*COMMAND, "small", "--channel", channel],
            cwd=tmp_path,
            env={**environment, "MINIO_ENDPOINT": proxy.endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("already complete" in stdout for stdout, _ in results) == [False, True]
    assert sorted("waiting for it" in stderr for _, stderr in results) == [False, True]
    total = sum(entry["size"] for entry in published_large.manifest["files"])
    assert proxy.answered_bytes < total * 1.1


def test_connections_that_break_are_made_again(run, published_large, channel, proxy, tmp_path):
    proxy.cut_each = 5 * RANGE_SIZE // 2
    result = run("small", "--channel", channel, MINIO_ENDPOINT=proxy.endpoint)
    assert result.returncode == 0, result.stderr
    whole(tmp_path / "whisper_small_xeon")


def test_byte_spoilt_on_the_way_is_fetched_again(run, published, channel, proxy, tmp_path):
    sample = published.path("libwhisper.so").read_bytes()[200_000:200_032]
    proxy.spoil = (sample, bytes(reversed(sample)))
    result = run("small", "--channel", channel, MINIO_ENDPOINT=proxy.endpoint)
    assert proxy.spoil is None
    assert result.returncode == 0, result.stderr
    assert "fetching it again" in result.stderr
    whole(tmp_path / "whisper_small_xeon")


def test_altered_object_ends_with_status_4_and_nothing_in_place(
    run, minio, root_client, small_package, channel, tmp_path
):
    package = variant(small_package, tmp_path / "package", {"NEW": uuid.uuid4().bytes})
    minio.store("publisher").publish(package.directory, channel)
    key = release_key(package.release_id, package.name, "NEW")
    root_client.put_object(Bucket=minio.settings().bucket, Key=key, Body=b"sixteen other by")
    result = run("small", "--channel", channel)
    assert result.returncode == 4
    assert key in result.stderr
    assert minio.endpoint in result.stderr
    assert not (tmp_path / "whisper_small_xeon").exists()


def test_object_that_is_gone_ends_with_status_3(run, minio, root_client, small_package, channel, tmp_path):
    package = variant(small_package, tmp_path / "package", {"NEW": uuid.uuid4().bytes})
    minio.store("publisher").publish(package.directory, channel)
    key = release_key(package.release_id, package.name, "NEW")
    root_client.delete_object(Bucket=minio.settings().bucket, Key=key)
    result = run("small", "--channel", channel)
    assert result.returncode == 3
    assert key in result.stderr


@pytest.mark.parametrize(
    ("arguments", "more", "status", "message"),
    [
        (["../small"], {}, 2, "'../small' is not a model's name"),
        ([], {"WHISPER_MODEL_SIZE": "latest"}, 2, "WHISPER_MODEL_SIZE: 'latest' is reserved"),
        (["small"], {"MINIO_ENDPOINT": ""}, 2, "MINIO_ENDPOINT must be set"),
        (["small"], {"MINIO_SECRET_KEY": ""}, 2, "MINIO_SECRET_KEY must be set"),
        (["small"], {"MINIO_SECRET_KEY_FILE": "/nowhere"}, 2, "both set"),
        (
            ["small"],
            {"MINIO_SECRET_KEY": "", "MINIO_SECRET_KEY_FILE": "/nowhere"},
            2,
            "'/nowhere', which cannot be read",
        ),
        (["small"], {"MINIO_ENDPOINT": "minio:9000"}, 2, "must be http://HOST:PORT"),
        (["small", "--unknown"], {}, 2, "unrecognized arguments"),
        (["small", "--channel", "absent"], {}, 3, "channels/absent.json"),
        (["small", "--release", "0" * 64], {}, 3, "was never completed or has been deleted"),
        (["small", "--release", "00000000"], {}, 3, "no release begins with 00000000"),
        (["small"], {"MINIO_ENDPOINT": "http://127.0.0.1:9"}, 5, "http://127.0.0.1:9 does not answer"),
        (["small"], {"MINIO_SECRET_KEY": "wrong-secret"}, 5, "rejects the credentials"),
        (["small"], {"MINIO_BUCKET": "absent-bucket"}, 5, "absent-bucket"),
    ],
)
def test_failure_has_its_status_and_one_line(run, arguments, more, status, message):
    result = run(*arguments, **more)
    assert result.returncode == status
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_folder_that_cannot_be_written_ends_with_status_1(run, published, channel, tmp_path):
    (tmp_path / "file").touch()
    result = run("small", "--channel", channel, "--dir", "file")
    assert result.returncode == 1
    assert result.stderr.startswith("file")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_full_disk_is_told_before_anything_is_fetched(environment, published, channel, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=4m none {small} && exec "$@"', "sh"]
    result = subprocess.run(
        [*mount, *COMMAND, "small", "--channel", channel, "--dir", str(small)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"{small} has 4 MB of free space" in result.stderr


def test_a_package_at_the_top_of_the_bucket_is_named_and_not_used(run, minio, root_client, small_package, tmp_path):
    bucket = f"flat-{uuid.uuid4().hex[:12]}"
    root_client.create_bucket(Bucket=bucket)
    for entry in small_package.files:
        body = small_package.path(entry["path"]).read_bytes()
        root_client.put_object(Bucket=bucket, Key=f"whisper_small_xeon/{entry['path']}", Body=body)
    settings = minio.settings("root")
    account = {"MINIO_ACCESS_KEY": settings.access_key, "MINIO_SECRET_KEY": settings.secret_key}
    result = run("small", MINIO_BUCKET=bucket, **account)
    assert result.returncode == 3
    assert "whisper_small_xeon/ at the top of the bucket, in the old layout, is not used because" in result.stderr
    assert not (tmp_path / "whisper_small_xeon").exists()


def test_without_a_terminal_each_file_is_a_line_and_each_tenth_of_a_large_one(run, published_large, channel):
    lines = run("small", "--channel", channel).stderr.splitlines()
    assert [line for line in lines if re.fullmatch(r"libwhisper\.so \(0\.\d MB\)", line)]
    assert [line for line in lines if line.startswith("large.bin ") and "%" in line] == [
        f"large.bin {tenth}0 %" for tenth in range(1, 11)
    ]


def test_on_a_terminal_a_bar_is_drawn(environment, published, channel, tmp_path):
    primary, secondary = pty.openpty()
    subprocess.run([*COMMAND, "small", "--channel", channel], cwd=tmp_path, env=environment, stderr=secondary)
    os.close(secondary)
    assert b"100%" in os.read(primary, 1 << 16)
    os.close(primary)


def test_help_says_every_exit_status(run):
    text = " ".join(run("--help").stdout.split())
    for words in (
        "0 done",
        "1 failed",
        "2 usage",
        "3 no such release",
        "4 a digest",
        "5 store unreachable",
        "6 not signed",
    ):
        assert words in text


def test_no_output_shows_the_secret(run, minio, published, channel):
    result = run("small", "--channel", channel)
    assert minio.settings("reader").secret_key not in result.stdout + result.stderr
