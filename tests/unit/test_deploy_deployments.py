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
