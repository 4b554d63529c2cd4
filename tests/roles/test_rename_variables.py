"""scripts/rename_variables.py on old inventories: what Ansible reads in them afterwards, and what stays as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from paths import FIXTURES, ROOT

# inventory/example before variables were renamed.
OLD = FIXTURES / "old_inventory"
# What the example got since: no old name becomes one of these.
SIGNING = {"artifact_build_signing_key", "whisper_service_trusted_keys"}


def rename(inventory: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / "rename_variables.py", *arguments, inventory]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def renamed(inventory: Path) -> str:
    """Rename and return the report of a run with nothing left to do by hand."""
    result = rename(inventory)
    assert result.returncode == 0, result.stdout
    return result.stdout


def host_variables(inventory: Path) -> dict[str, dict]:
    """Return what Ansible reads: host -> variables, expressions as they are written."""
    command = ["ansible-inventory", "-i", inventory, "--list"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return json.loads(listed)["_meta"]["hostvars"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dedent(text).encode("utf-8"))
    return folder


@pytest.fixture
def example(tmp_path) -> Path:
    """A copy of the old example."""
    return shutil.copytree(OLD, tmp_path / "local")


class TestExample:
    def test_it_becomes_the_example_of_today(self, example):
        renamed(example)
        today = ROOT / "inventory" / "example"
        found, wanted = host_variables(example), host_variables(today)
        for host in wanted:
            for name in ("minio_bucket", "minio_region", "minio_publisher_access_key", "minio_publisher_secret_key"):
                if host == "localhost":  # here the fallbacks of the old playbook are kept
                    assert wanted[host][name].removesuffix(" }}") in found[host][name]
                    found[host][name] = wanted[host][name]
            wanted[host] = {name: value for name, value in wanted[host].items() if name not in SIGNING}
        assert found == wanted

    def test_template_of_the_vault_has_the_new_names(self, example):
        renamed(example)
        name = "group_vars/all/vault.yml.example"
        old, new = (folder.joinpath(name).read_text("utf-8") for folder in (OLD, example))
        today = yaml.safe_load((ROOT / "inventory/example" / name).read_text("utf-8"))
        assert list(yaml.safe_load(new)) == [variable for variable in today if variable not in SIGNING]
        assert [line for line in new.splitlines() if "_key:" not in line] == [
            line for line in old.splitlines() if "_key:" not in line
        ]

    def test_second_run_changes_nothing(self, example):
        renamed(example)
        before = contents(example)
        assert renamed(example) == "0 file(s) changed\n"
        assert contents(example) == before

    def test_dry_run_says_the_same_and_changes_nothing(self, example):
        said = rename(example, "--dry-run").stdout
        assert contents(example) == contents(OLD)
        assert renamed(example) == said.replace("would be changed", "changed")

    def test_a_store_that_exists_already_gets_no_accounts(self, example):
        file = example / "group_vars" / "whisper_store.yml"
        file.write_text(file.read_text("utf-8").replace("whisper_store_managed: true", "whisper_store_managed: false"))
        renamed(example)
        assert host_variables(example)["localhost"]["minio_managed"] is False
        assert "minio_publisher_access_key" not in host_variables(example)["localhost"]


NASTY = """\
    # whisper_model: a comment stays
    whisper_store_endpoint:   'http://127.0.0.1:9000'   # whisper_store_endpoint stays here
    whisper_store_host_endpoint: "{{ whisper_store_endpoint | replace('127.0.0.1', \\"store\\") }}"
    "whisper_store_bucket": &bucket "speech"
    other_bucket: *bucket
    whisper_store_secret_key: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      whisper_model
    verbatim: !unsafe "{{ whisper_model }}"
    path: /srv/artifact_dir/whisper_model
    mine:
      artifact_dir: nested, so it is not that variable
      model: "{{ whisper_model }}"
      list: ["{{ mine.artifact_dir }}", '{{ hostvars[''a''].whisper_model }}']
      named: "{{ hostvars.a['whisper_model'] }}"
      call: "{{ dict(artifact_dir=artifact_dir) }}"
      words: "{{ ['whisper_model', \\"artifact_dir\\"] }}"
      several: >-
        {% set artifact_dir = 'x' %}
        {{ artifact_dir ~ lookup('ansible.builtin.vars', 'whisper_model') }}
      extract: "{{ groups.all | map('extract', hostvars) | map(attribute='whisper_model') }}"
      first: "{{ hostvars[groups['whisper_hosts'][0]].whisper_model }}"
      another: "{{ hostvars[hosts[ids[0]]].artifact_dir }}"
      environment: "{{ hostvars.a.whisper_model | default(lookup('env', 'HOME', 'whisper_model')) }}"
    artifact_dir: "{{ whisper_model }}"
"""

NASTY_RENAMED = """\
    # whisper_model: a comment stays
    artifact_store_endpoint:   'http://127.0.0.1:9000'   # whisper_store_endpoint stays here
    artifact_store_host_endpoint: "{{ artifact_store_endpoint | replace('127.0.0.1', \\"store\\") }}"
    "artifact_store_bucket": &bucket "speech"
    other_bucket: *bucket
    artifact_store_secret_key: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      whisper_model
    verbatim: !unsafe "{{ whisper_model }}"
    path: /srv/artifact_dir/whisper_model
    mine:
      artifact_dir: nested, so it is not that variable
      model: "{{ whisper_service_model }}"
      list: ["{{ mine.artifact_dir }}", '{{ hostvars[''a''].whisper_service_model }}']
      named: "{{ hostvars.a['whisper_service_model'] }}"
      call: "{{ dict(artifact_dir=whisper_service_artifact_dir) }}"
      words: "{{ ['whisper_model', \\"artifact_dir\\"] }}"
      several: >-
        {% set whisper_service_artifact_dir = 'x' %}
        {{ whisper_service_artifact_dir ~ lookup('ansible.builtin.vars', 'whisper_service_model') }}
      extract: "{{ groups.all | map('extract', hostvars) | map(attribute='whisper_service_model') }}"
      first: "{{ hostvars[groups['whisper_hosts'][0]].whisper_service_model }}"
      another: "{{ hostvars[hosts[ids[0]]].whisper_service_artifact_dir }}"
      environment: "{{ hostvars.a.whisper_service_model | default(lookup('env', 'HOME', 'whisper_model')) }}"
    whisper_service_artifact_dir: "{{ whisper_service_model }}"
"""


@pytest.mark.parametrize(
    "name", ["group_vars/all", "group_vars/all.yml", "group_vars/all/10-store.yaml", "host_vars/a.yml"]
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_variables_are_renamed_where_they_are_meant(tmp_path, name, ends):
    hosts = "whisper_hosts: {hosts: {a: {}}}\n"
    write(tmp_path, {"hosts.yml": hosts, name: NASTY.replace("\n", ends)})
    renamed(tmp_path)
    assert (tmp_path / name).read_bytes().decode() == dedent(NASTY_RENAMED.replace("\n", ends))


def test_variables_in_a_yaml_inventory(tmp_path):
    inventory = """\
        all:
          vars: {whisper_store_channel: stable, "whisper_blas": none}
          children:
            whisper_hosts:
              hosts:
                a: {whisper_model: small}
                artifact_dir:  # a host of that name
                  whisper_model: "medium"
              children:
                artifact_transport:
                  vars:
                    artifact_transport: copy
        """
    write(tmp_path, {"hosts.yml": inventory})
    renamed(tmp_path / "hosts.yml")
    assert (tmp_path / "hosts.yml").read_text("utf-8") == dedent("""\
        all:
          vars: {artifact_store_channel: stable, "artifact_build_blas": none}
          children:
            whisper_hosts:
              hosts:
                a: {whisper_service_model: small}
                artifact_dir:  # a host of that name
                  whisper_service_model: "medium"
              children:
                artifact_transport:
                  vars:
                    whisper_service_transport: copy
        """)


def test_variables_that_a_merge_key_takes_from_elsewhere(tmp_path):
    inventory = """\
        all:
          vars:
            small: &small {whisper_model: small}
            copied: &copied {artifact_transport: copy}
        whisper_hosts:
          hosts:
            a: {<<: *small, whisper_blas: none}
            b:
              <<: [*small, *copied]
            c: &c
              <<: {artifact_dir: dist}
          children:
            more: &more
              vars: {whisper_blas: none}
            most:
              <<: {vars: {whisper_quantization: q5_1}}
        """
    write(tmp_path, {"hosts.yml": inventory, "group_vars/all.yml": "x: &x {whisper_store_channel: beta}\n<<: *x\n"})
    renamed(tmp_path)
    found = host_variables(tmp_path)
    assert found["a"]["whisper_service_model"] == found["b"]["whisper_service_model"] == "small"
    assert found["a"]["artifact_build_blas"] == "none"
    assert found["b"]["whisper_service_transport"] == "copy"
    assert found["c"]["whisper_service_artifact_dir"] == "dist"
    assert found["a"]["artifact_store_channel"] == "beta"
    assert "artifact_build_quantization" in (tmp_path / "hosts.yml").read_text()


@pytest.mark.parametrize("name", ["hosts", "hosts.yml"])
def test_a_yaml_inventory_needs_no_ending(tmp_path, name):
    write(tmp_path, {name: "whisper_hosts:\n  hosts:\n    a: {whisper_model: small}\n"})
    renamed(tmp_path / name)
    assert host_variables(tmp_path / name)["a"]["whisper_service_model"] == "small"


@pytest.mark.parametrize("name", ["vars.yml", "vars.json", "vars"])
def test_a_file_of_variables_alone(tmp_path, name):
    text = '{"whisper_model": "small", "demo": {"hosts": "{{ whisper_blas }}"}}\n'
    write(tmp_path, {name: text})
    renamed(tmp_path / name)
    assert yaml.safe_load((tmp_path / name).read_text()) == {
        "whisper_service_model": "small",
        "demo": {"hosts": "{{ artifact_build_blas }}"},
    }


class TestLinks:
    def test_directories_behind_links_are_read_as_ansible_does(self, tmp_path):
        common = {"all/a.yml": "whisper_model: small\n", "all/deep/b.yml": "artifact_dir: dist\n"}
        write(tmp_path / "common", common)
        inventory = write(tmp_path / "inventory", {"hosts.yml": "whisper_hosts: {hosts: {a: {}}}\n"})
        (inventory / "group_vars").symlink_to(tmp_path / "common")
        renamed(inventory)
        found = host_variables(inventory)["a"]
        assert (found["whisper_service_model"], found["whisper_service_artifact_dir"]) == ("small", "dist")

    def test_what_group_vars_leads_to_is_variables_wherever_it_lies(self, tmp_path):
        write(tmp_path, {"common/x.yml": "demo: {hosts: '{{ whisper_model }}'}\n", "group_vars/y.yml": "a: 1\n"})
        (tmp_path / "group_vars" / "all").symlink_to("../common")
        assert f"{tmp_path}/group_vars/all/x.yml: whisper_model -> whisper_service_model" in renamed(tmp_path)

    def test_a_link_that_leads_back_is_entered_once(self, tmp_path):
        write(tmp_path, {"group_vars/all/a.yml": "whisper_model: small\n"})
        (tmp_path / "group_vars" / "all" / "again").symlink_to("..")
        assert renamed(tmp_path).count("whisper_model ->") == 1


def test_variables_in_an_ini_inventory_and_beside_it(tmp_path):
    inventory = """\
        ; whisper_model=small
        [whisper_hosts]
        a whisper_model=small note="artifact_dir=x" # whisper_model=a
        b artifact_dir={{whisper_store_bucket}} whisper_model=small
        artifact_transport whisper_model='medium'
        [whisper_hosts:vars]
        artifact_transport = copy
        address={{ whisper_store_endpoint }}
        [whisper_store]
        localhost
        """
    write(tmp_path, {"hosts": inventory, "group_vars/all.json": '{"whisper_store_bucket": "speech"}\n'})
    renamed(tmp_path / "hosts")
    assert (tmp_path / "hosts").read_text("utf-8") == dedent("""\
        ; whisper_model=small
        [whisper_hosts]
        a whisper_service_model=small note="artifact_dir=x" # whisper_model=a
        b whisper_service_artifact_dir={{artifact_store_bucket}} whisper_service_model=small
        artifact_transport whisper_service_model='medium'
        [whisper_hosts:vars]
        whisper_service_transport = copy
        address={{ artifact_store_endpoint }}
        [whisper_store]
        localhost
        """)
    listed = host_variables(tmp_path / "hosts")
    assert listed["artifact_transport"]["whisper_service_model"] == "medium"
    assert listed["localhost"]["artifact_store_bucket"] == "speech"
    assert listed["localhost"]["minio_bucket"] == "{{ artifact_store_bucket | default('whisper-artifacts') }}"


STORE = "whisper_store: {hosts: {localhost: {}}}\n"
ADDED = {
    "minio_bucket",
    "minio_region",
    *(f"minio_{who}_{key}_key" for who in ("publisher", "reader") for key in ("access", "secret")),
}


@pytest.mark.parametrize(
    ("files", "written"),
    [
        ({}, "group_vars/whisper_store.yml"),
        ({"group_vars/whisper_store.yaml": "minio_port: 9002"}, "group_vars/whisper_store.yaml"),
        ({"group_vars/whisper_store/ports.yml": "minio_port: 9002\n"}, "group_vars/whisper_store/minio.yml"),
    ],
    ids=["no file", "a file", "a directory"],
)
def test_group_of_the_store_gets_what_a_playbook_gave_minio(tmp_path, files, written):
    write(tmp_path, {"hosts.yml": STORE, **files})
    assert f"{tmp_path / written}: added minio_bucket, minio_region" in renamed(tmp_path)
    found = set(host_variables(tmp_path)["localhost"])
    assert found >= ADDED | ({"minio_port"} if files else set())
    assert renamed(tmp_path) == "0 file(s) changed\n"


def test_what_minio_has_already_is_kept(tmp_path):
    write(tmp_path, {"hosts.yml": STORE, "host_vars/localhost.yml": "minio_bucket: mine\n"})
    renamed(tmp_path)
    assert host_variables(tmp_path)["localhost"]["minio_bucket"] == "mine"


class TestByHand:
    def test_an_encrypted_file_is_left_alone_and_named(self, example):
        vault = example / "group_vars" / "all" / "vault.yml"
        vault.write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
        report = renamed(example)
        assert f"{vault} is encrypted: run `ansible-vault edit {vault}`" in report
        assert "whisper_store_reader_secret_key -> artifact_store_reader_secret_key" in report
        assert "artifact_publish_secret_key -> artifact_store_secret_key" in report
        assert vault.read_text() == "$ANSIBLE_VAULT;1.1;AES256\n6162\n"

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            (
                {"group_vars/all.yml": "whisper_blas: none\nartifact_build_blas: none\n"},
                "all.yml, line 1: whisper_blas and",
            ),
            ({"group_vars/all.yml": "whisper_blas: {none\n"}, "all.yml is not valid YAML"),
            ({"aws.yml": "plugin: x\ncompose: {whisper_model: a}\n"}, "whisper_model -> whisper_service_model in it"),
            ({"list.py": "#!/usr/bin/python3\nprint('whisper_model')\n"}, "list.py is not an inventory of hosts"),
            ({"hosts.yml": STORE, "group_vars/whisper_store.yml": "{minio_port: 1}"}, "must have these lines too"),
            ({"hosts.yml": STORE, "group_vars/whisper_store.yml": "a: 1\n...\n"}, "must have these lines too"),
            ({"play.yml": "- vars: {whisper_model: a}\n"}, "play.yml is not an inventory of hosts and variables"),
            (
                {"group_vars/all.yml": '"whisper\\u005fmodel": a\nx: whisper_model\n'},
                "line 1: whisper_model, written with escapes, is now whisper_service_model",
            ),
            (
                {"group_vars/all.yml": "a: |\n  {% for h in hostvars.values() %}\n  {{ h.whisper_model }}{% endfor %}"},
                "all.yml, line 3: whisper_model is now whisper_service_model, if that variable is meant",
            ),
            (
                {"hosts": "[a]\nb x='{{ hostvars.get(c).whisper_model }}'\n"},
                "hosts, line 2: whisper_model is now whisper_service_model, if that variable is meant",
            ),
            (
                {"group_vars/all.yml": "whisper_service_model_of: {a: small}\n"},
                "line 1: whisper_service_model_of is gone: set whisper_service_model on each host",
            ),
        ],
        ids=[
            "two names",
            "broken",
            "plugin",
            "program",
            "one line",
            "after the end",
            "playbook",
            "escapes",
            "loop",
            "call",
            "gone",
        ],
    )
    def test_what_cannot_be_renamed_is_named_and_left_as_it_is(self, tmp_path, files, reason):
        write(tmp_path, files)
        before = contents(tmp_path)
        result = rename(tmp_path)
        assert result.returncode == 1
        assert reason in result.stdout
        assert contents(tmp_path) == before

    @pytest.mark.parametrize(("patches", "status"), [("[]", 0), ("[0001-gemm]", 1)])
    def test_patches_are_left_to_be_named_as_kernels(self, tmp_path, patches, status):
        write(tmp_path, {"group_vars/all.yml": f"whisper_patches: {patches}\n"})
        result = rename(tmp_path)
        assert result.returncode == status
        assert ("all.yml, line 1: kernels have other names now" in result.stdout) == bool(status)
        assert (tmp_path / "group_vars/all.yml").read_text() == f"artifact_build_kernels: {patches}\n"

    def test_a_file_of_nothing_but_comments_is_no_work(self, tmp_path):
        write(tmp_path, {"group_vars/all.yml": "# whisper_model: small\n"})
        assert renamed(tmp_path) == "0 file(s) changed\n"

    def test_a_path_that_does_not_exist_is_named(self, tmp_path):
        result = rename(tmp_path / "gone")
        assert (result.returncode, result.stdout) == (
            2,
            f"rename_variables.py: {tmp_path}/gone: no such file or directory\n",
        )
