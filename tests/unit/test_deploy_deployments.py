"""Module `whisper_service_deployment` on a folder of its own: staging, verifying, switching, confirming, pruning."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from collection_module import load_module

PACKAGE_FILE = "package/whisper_small_xeon/model.bin"


whisper_deployment = load_module("whisper_service_deployment")


class Root:
    """A root folder, and the module run on it as Ansible would."""

    def __init__(self, path: Path):
        self.path = path

    def run(self, state: str, digest: str = "", *, check_mode: bool = False, **parameters) -> dict:
        """Return the result of one state."""
        defaults = {"record": None, "bundle": None, "keep": 3, "channel": "", "signature": {}}
        wanted = {"state": state, "digest": digest, **defaults, **parameters}
        return whisper_deployment.run(whisper_deployment.Deployments(self.path), wanted, check_mode)

    def stage(self, name: str, *, check_mode: bool = False, model: bytes = b"weights") -> tuple[str, dict]:
        """Stage deployment `name`, whose settings hold its name; return its digest and the module's result."""
        small = {"settings.env": name.encode(), "units/whisper-xeon.socket": b"ListenStream=8000\n"}
        listed = {**small, PACKAGE_FILE: model}
        record = {
            "model": "small",
            "release_id": "0" * 64,
            "url": "http://127.0.0.1:8000",
            "files": [
                {
                    "path": path,
                    "size": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "executable": path == PACKAGE_FILE,
                }
                for path, data in sorted(listed.items())
            ],
        }
        text = json.dumps(record)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return digest, self.run("staged", digest, record=text, bundle=bundle(small), check_mode=check_mode)

    def deploy(self, name: str, model: bytes = b"weights") -> str:
        """Stage, bring, complete, switch and confirm a deployment; return its digest."""
        digest, result = self.stage(name, model=model)
        for entry in result["missing"]:
            Path(result["staging"], entry["path"]).write_bytes(model)
        self.run("complete", digest)
        self.run("current", digest)
        self.run("confirmed")
        return digest

    def file(self, digest: str, path: str = PACKAGE_FILE) -> Path:
        return self.path / "deployments" / digest / path

    def link(self, name: str) -> str:
        return (self.path / name).readlink().name


def bundle(files: dict[str, bytes]) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def root(tmp_path):
    made = Root(tmp_path / "whisper-xeon")
    yield made
    for folder, _, _ in os.walk(made.path):
        Path(folder).chmod(0o755)


def test_staging_names_the_files_that_have_to_be_brought(root):
    _, result = root.stage("one")
    assert [entry["path"] for entry in result["missing"]] == [PACKAGE_FILE]


def test_staging_in_check_mode_writes_nothing(root):
    _, result = root.stage("one", check_mode=True)
    assert result["changed"]
    assert not root.path.exists()


def test_a_complete_deployment_is_staged_without_a_change(root):
    root.deploy("one")
    _, result = root.stage("one")
    assert (result["changed"], result["missing"]) == (False, [])


def test_a_file_that_another_deployment_has_is_a_hard_link(root):
    one, two = root.deploy("one"), root.deploy("two")
    assert root.file(one).samefile(root.file(two))


def test_an_altered_file_of_another_deployment_is_not_linked(root):
    one = root.deploy("one")
    root.file(one).chmod(0o644)
    root.file(one).write_bytes(b"WEIGHTS")
    _, result = root.stage("two")
    assert [entry["path"] for entry in result["missing"]] == [PACKAGE_FILE]


def test_staging_again_keeps_what_already_arrived(root):
    _, result = root.stage("one")
    Path(result["staging"], PACKAGE_FILE).write_bytes(b"weights")
    _, again = root.stage("one")
    assert again["missing"] == []


def test_an_incomplete_deployment_is_not_completed(root):
    digest, _ = root.stage("one")
    with pytest.raises(
        whisper_deployment.DeploymentError, match=r"model\.bin is missing or differs from its manifest \(SHA-256\)"
    ):
        root.run("complete", digest)


def test_a_file_that_nobody_listed_is_refused(root):
    digest, result = root.stage("one")
    Path(result["staging"], PACKAGE_FILE).write_bytes(b"weights")
    Path(result["staging"], "extra").write_bytes(b"")
    with pytest.raises(whisper_deployment.DeploymentError, match="extra does not belong there"):
        root.run("complete", digest)


@pytest.mark.parametrize("parent", ["", "package/whisper_small_xeon"])
@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.parent)], ids=["directory", "link"])
def test_a_directory_in_which_nothing_is_listed_is_refused(root, parent, make):
    digest, result = root.stage("one")
    Path(result["staging"], PACKAGE_FILE).write_bytes(b"weights")
    make(Path(result["staging"], parent, "glibc-hwcaps"))
    with pytest.raises(whisper_deployment.DeploymentError, match="glibc-hwcaps does not belong there"):
        root.run("complete", digest)


def test_a_link_in_place_of_a_directory_is_refused(root, tmp_path):
    digest, result = root.stage("one")
    directory = Path(result["staging"], PACKAGE_FILE).parent
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.bin").write_bytes(b"weights")
    directory.rmdir()
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(whisper_deployment.DeploymentError, match="whisper_small_xeon does not belong there"):
        root.run("complete", digest)


def test_a_complete_deployment_is_read_only(root):
    digest = root.deploy("one")
    modes = {
        path.name: oct(path.stat().st_mode & 0o777) for path in (root.file(digest), root.file(digest, "settings.env"))
    }
    assert modes == {"model.bin": "0o555", "settings.env": "0o444"}


def test_an_altered_deployment_is_replaced_by_a_sound_one(root):
    digest = root.deploy("one")
    root.file(digest).chmod(0o644)
    root.file(digest).write_bytes(b"WEIGHTS")
    assert root.deploy("one") == digest
    assert root.file(digest).read_bytes() == b"weights"


def test_replacing_what_was_confirmed_asks_for_a_restart(root):
    digest = root.deploy("one")
    root.file(digest).chmod(0o644)
    root.file(digest).write_bytes(b"WEIGHTS")
    _, result = root.stage("one")
    Path(result["staging"], PACKAGE_FILE).write_bytes(b"weights")
    root.run("complete", digest)
    assert root.run("current", digest)["restart"]


def test_switching_leaves_what_was_confirmed_until_it_is_confirmed(root):
    one = root.deploy("one")
    two, _ = root.stage("two")
    root.run("complete", two)
    root.run("current", two)
    assert (root.link("current"), root.link("confirmed")) == (two, one)


def test_confirming_makes_the_one_before_the_previous(root):
    one, two = root.deploy("one"), root.deploy("two")
    assert (root.link("confirmed"), root.link("previous")) == (two, one)


def test_a_rollback_goes_to_the_deployment_before(root):
    one, two = root.deploy("one"), root.deploy("two")
    assert whisper_deployment.Deployments(root.path).rollback() == one
    root.run("current", one)
    root.run("confirmed")
    assert whisper_deployment.Deployments(root.path).rollback() == two


def test_a_rollback_of_an_unfinished_switch_goes_to_what_was_confirmed(root):
    root.deploy("one")
    two = root.deploy("two")
    three, _ = root.stage("three")
    root.run("complete", three)
    root.run("current", three)
    assert whisper_deployment.Deployments(root.path).rollback() == two


@pytest.mark.parametrize("names", [[], ["one"]], ids=["nothing deployed", "first deployment"])
def test_without_a_deployment_before_there_is_nothing_to_roll_back_to(root, names):
    for name in names:
        root.deploy(name)
    assert whisper_deployment.Deployments(root.path).rollback() == ""


def test_an_altered_record_is_nothing_to_roll_back_to(root):
    one, _ = root.deploy("one"), root.deploy("two")
    record = root.file(one, "deployment.json")
    record.chmod(0o644)
    record.write_text("{}")
    assert whisper_deployment.Deployments(root.path).rollback() == ""


def test_the_same_deployment_needs_no_restart(root):
    digest = root.deploy("one")
    result = root.run("current", digest)
    assert (result["changed"], result["restart"]) == (False, False)


def test_an_unconfirmed_switch_needs_a_restart_when_it_is_repeated(root):
    root.deploy("one")
    two, _ = root.stage("two")
    root.run("complete", two)
    root.run("current", two)
    result = root.run("current", two)
    assert (result["changed"], result["restart"]) == (False, True)


def test_switching_to_a_deployment_that_is_not_there_is_refused(root):
    root.deploy("one")
    with pytest.raises(whisper_deployment.DeploymentError, match="deploy it first"):
        root.run("current", "f" * 64)


def test_what_a_link_names_is_not_removed(root):
    digest = root.deploy("one")
    assert root.run("absent", digest)["changed"] is False


def test_pruning_keeps_what_is_in_use_and_the_newest(root):
    digests = [root.deploy(name) for name in ("one", "two", "three", "four")]
    for age, digest in enumerate(reversed(digests)):
        os.utime(root.path / "deployments" / digest, (1000 - age, 1000 - age))
    root.run("current", digests[0])
    root.run("pruned", keep=3)
    assert {path.name for path in (root.path / "deployments").iterdir()} == {digests[0], digests[2], digests[3]}


def test_pruning_removes_what_an_interrupted_run_left(root):
    root.deploy("one")
    root.stage("two")
    root.run("pruned")
    assert len(list((root.path / "deployments").iterdir())) == 1


@pytest.mark.parametrize("path", ["../outside", "package/../../outside", "/outside"])
def test_a_record_cannot_place_a_file_outside_its_folder(tmp_path, path):
    digest = hashlib.sha256(b"")
    record = {"files": [{"path": path, "size": 0, "sha256": digest.hexdigest(), "executable": False}]}
    deployments = whisper_deployment.Deployments(tmp_path / "root")
    with pytest.raises(whisper_deployment.DeploymentError, match="outside the deployment"):
        deployments.stage("0" * 64, json.dumps(record), "", dry_run=False)


def noted(root: Root) -> dict:
    return json.loads((root.path / "serials.json").read_text("utf-8"))


def test_confirming_notes_the_signature_by_channel_and_model(root):
    root.deploy("one")
    assert root.run("confirmed", channel="stable", signature={"serial": "20260101000000", "key": "A"})["changed"]
    entry = {"serial": "20260101000000", "key": "A", "release_id": "0" * 64}
    assert noted(root) == {"stable": {"small": entry}}
    assert not root.run("confirmed", channel="stable", signature={"serial": "20260101000000", "key": "A"})["changed"]


@pytest.mark.parametrize(
    ("signature", "kept"),
    [
        ({"serial": "20250101000000", "key": "A"}, "20260101000000"),
        ({"serial": "20270101000000", "key": "A"}, "20270101000000"),
        # Another key: that of a thief counts no more, whatever serial it stated.
        ({"serial": "20250101000000", "key": "B"}, "20250101000000"),
    ],
)
def test_the_newest_serial_of_a_key_stays(root, signature, kept):
    root.deploy("one")
    root.run("confirmed", channel="stable", signature={"serial": "20260101000000", "key": "A"})
    root.run("confirmed", channel="stable", signature=signature)
    assert noted(root)["stable"]["small"]["serial"] == kept


def test_a_release_that_was_named_is_noted_apart_from_its_channel(root):
    root.deploy("one")
    root.run("confirmed", channel="stable", signature={"serial": "20260101000000", "key": "A"})
    root.run("confirmed", channel="", signature={"serial": "20250101000000", "key": "A"})
    assert [noted(root)[channel]["small"]["serial"] for channel in ("stable", "")] == [
        "20260101000000",
        "20250101000000",
    ]


def test_a_rollback_notes_nothing_and_check_mode_neither(root):
    root.deploy("one")
    root.run("confirmed")
    signature = {"serial": "20260101000000", "key": "A"}
    assert root.run("confirmed", channel="stable", signature=signature, check_mode=True)["changed"]
    assert not (root.path / "serials.json").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"stable": {"small": {"serial": 1}}}', "null"])
def test_altered_serials_are_an_error_that_names_the_file(root, content):
    root.deploy("one")
    (root.path / "serials.json").write_text(content)
    with pytest.raises(ValueError, match=r"serials\.json was altered: compare"):
        root.run("confirmed", channel="stable", signature={"serial": "20260101000000", "key": "A"})


def tree(folder: Path) -> set[str]:
    """Return every path below a folder; links are not followed."""
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


def test_uninstalling_removes_what_deployments_made(tmp_path, root):
    (tmp_path / "neighbour").touch()
    root.run("created")
    root.deploy("one")
    root.deploy("two")
    root.stage("three")
    assert root.run("uninstalled") == {"changed": True, "left": []}
    assert tree(tmp_path) == {"neighbour"}
    assert root.run("uninstalled") == {"changed": False, "left": []}


def test_uninstalling_forgets_the_serials_and_keeps_a_file_that_is_not_them(tmp_path, root):
    root.run("created")
    root.deploy("one")
    root.run("confirmed", channel="stable", signature={"serial": "20260101000000", "key": "A"})
    root.run("uninstalled")
    assert tree(tmp_path) == set()
    other = Root(tmp_path / "other")
    other.run("created")
    other.deploy("one")
    (other.path / "serials.json").write_text("[1, 2]")
    assert other.run("uninstalled")["left"] == ["serials.json"]


def test_uninstalling_in_check_mode_removes_nothing(root):
    root.run("created")
    root.deploy("one")
    before = tree(root.path)
    assert root.run("uninstalled", check_mode=True)["changed"]
    assert tree(root.path) == before


def test_uninstalling_leaves_and_names_what_others_put_beside_the_deployments(tmp_path):
    root = Root(tmp_path / "precious")
    theirs = {
        "photos/a.jpg",
        "deployments/alpha/deployment.json",
        f"deployments/{'a' * 64}/deployment.json",  # named like one, with a record that is not its own
        f"deployments/{'b' * 64}/notes",
        "deployments/.staging-mine/x",
        "deployments/.old-site/x",
        "confirmed/x",
        ".hidden",
    }
    for path in theirs:
        (root.path / path).parent.mkdir(parents=True, exist_ok=True)
        (root.path / path).write_text("{}")
    (root.path / "deployments" / ("c" * 64)).symlink_to(root.path / "photos")
    (root.path / "previous").symlink_to("photos")
    before = tree(root.path)
    root.run("created")
    digest, result = root.stage("one")
    Path(result["staging"], PACKAGE_FILE).write_bytes(b"weights")
    root.run("complete", digest)
    root.run("current", digest)
    root.run("pruned", keep=1)
    result = root.run("uninstalled")
    # What has the name of a deployment, and is in use by no link, is the role's to prune.
    gone = {path for path in before if path.split("/")[1:2] in (["a" * 64], ["b" * 64])}
    assert tree(root.path) == before - gone
    assert result["left"] == sorted([".hidden", "confirmed", "photos", "previous"]) + sorted(
        f"deployments/{name}" for name in ("alpha", ".staging-mine", ".old-site", "c" * 64)
    )


def test_uninstalling_leaves_directories_that_were_there_before(tmp_path):
    root = Root(tmp_path / "srv" / "app")
    root.path.parent.mkdir()
    (root.path / "deployments").mkdir(parents=True)
    root.run("created")
    root.deploy("one")
    root.run("uninstalled")
    assert tree(tmp_path) == {"srv", "srv/app", "srv/app/deployments"}


def test_uninstalling_removes_the_parents_that_were_made_for_the_root(tmp_path):
    root = Root(tmp_path / "new" / "app")
    root.run("created")
    root.deploy("one")
    root.run("uninstalled")
    assert tree(tmp_path) == set()


def test_uninstalling_keeps_the_link_by_which_the_root_is_reached(tmp_path):
    (tmp_path / "disk").mkdir()
    root = Root(tmp_path / "link")
    root.path.symlink_to("disk")
    root.run("created")
    root.deploy("one")
    root.run("uninstalled")
    assert tree(tmp_path) == {"disk", "link"}


def test_uninstalling_follows_no_link_out_of_a_deployment_and_keeps_what_is_not_listed(tmp_path, root):
    outside = tmp_path / "outside"
    (outside / "whisper_small_xeon").mkdir(parents=True)
    (outside / "whisper_small_xeon" / "model.bin").write_bytes(b"weights")
    root.run("created")
    digest = root.deploy("one")
    package = root.file(digest).parents[1]
    for folder in (package.parent, package, root.file(digest).parent):
        folder.chmod(0o755)
    package.rename(tmp_path / "moved")
    package.symlink_to(outside)
    (package.parent / "note").touch()
    result = root.run("uninstalled")
    assert (outside / "whisper_small_xeon" / "model.bin").read_bytes() == b"weights"
    assert tree(root.path / "deployments" / digest) == {"note", "package"}
    assert result["left"] == [f"deployments/{digest}"]


def test_uninstalling_a_root_that_is_no_directory_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert Root(tmp_path / "file").run("uninstalled") == {"changed": False, "left": []}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_deployment_from_before_the_note_leaves_nothing_in_its_usual_directory(tmp_path, root):
    root.deploy("one")
    (root.path / "created-directories").unlink(missing_ok=True)
    root.run("uninstalled")
    assert tree(tmp_path) == set()
