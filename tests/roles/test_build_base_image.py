"""The base image: taken when it is there, made from Debian packages where nothing can be pulled."""

from __future__ import annotations

import re

import pytest
import yaml

from docker_client import docker
from playbook import run_playbook

# A name under .invalid never resolves, whatever network the tests have.
WANTED = "registry.invalid/debian:bookworm-slim"
BOOTSTRAPPED = "whisper-xeon-test/base:bookworm"


@pytest.fixture(scope="module")
def choose(tmp_path_factory):
    """Run the role and return its output, which ends with the reference that it chose."""
    playbook = tmp_path_factory.mktemp("base_image") / "choose.yml"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "roles": ["whisper.xeon.base_image"],
        "post_tasks": [{"ansible.builtin.debug": {"msg": "chosen={{ base_image_reference }}="}}],
    }
    playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")

    def run(name: str, *arguments: str, tag: str = BOOTSTRAPPED):
        variables = ["-e", f"base_image_name={name}", "-e", f"base_image_bootstrap_tag={tag}"]
        return run_playbook(str(playbook), *variables, *arguments)

    return run


def chosen(result) -> str:
    return re.search(r"chosen=(.*)=", result.output).group(1)


@pytest.fixture(scope="module")
def bootstrapped(choose):
    """The run that made an image, because none was there and none could be pulled."""
    docker("image", "rm", BOOTSTRAPPED, check=False)
    yield choose(WANTED)
    docker("image", "rm", BOOTSTRAPPED)


def test_image_is_made_when_nothing_can_be_pulled(bootstrapped):
    assert chosen(bootstrapped) == BOOTSTRAPPED


def test_making_an_image_is_announced(bootstrapped):
    announced = f"{WANTED} does not exist here and cannot be pulled: creating {BOOTSTRAPPED} from packages"
    assert announced in bootstrapped.said


def test_made_image_is_the_debian_release_asked_for(bootstrapped):
    assert "VERSION_CODENAME=bookworm" in docker("run", "--rm", BOOTSTRAPPED, "cat", "/etc/os-release").stdout


def test_made_image_lacks_no_update_and_takes_later_ones_from_the_security_suite(bootstrapped):
    pending = "apt-get update --quiet --error-on=any && apt-get --simulate dist-upgrade"
    said = docker("run", "--rm", BOOTSTRAPPED, "sh", "-c", pending).stdout
    assert "bookworm-security" in said
    assert "bookworm-updates" in said
    assert "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded" in said


def test_made_image_keeps_nothing_of_its_making(bootstrapped):
    left = "find /var/log /var/cache/apt/archives /var/lib/apt/lists -type f ! -name lock; ls /etc/resolv.conf"
    assert docker("run", "--rm", "--entrypoint", "sh", BOOTSTRAPPED, "-c", left).stdout.split() == ["/etc/resolv.conf"]


@pytest.mark.parametrize(("oldest", "said"), [("0.00001", True), ("30", False), ("0", False)])
def test_an_image_older_than_the_setting_is_named(bootstrapped, choose, oldest, said):
    text = f"WARNING: {BOOTSTRAPPED} is 0 days old, more than base_image_oldest_days"
    assert (text in choose(WANTED, "-e", f"base_image_oldest_days={oldest}").said) == said


def test_made_image_carries_no_manuals(bootstrapped):
    assert docker("run", "--rm", BOOTSTRAPPED, "find", "/usr/share/man", "/usr/share/info", "-type", "f").stdout == ""


def test_made_image_is_taken_by_the_next_run(bootstrapped, choose):
    again = choose(WANTED)
    assert chosen(again) == BOOTSTRAPPED
    assert again.changed == 0


@pytest.mark.parametrize("name", ["whisper-xeon-test/wanted:1", "whisper-xeon-test/wanted"])
def test_image_wanted_is_preferred_when_it_is_present(bootstrapped, choose, name):
    docker("tag", BOOTSTRAPPED, name)
    try:
        assert chosen(choose(name)) == name
    finally:
        docker("image", "rm", name)


def test_check_mode_makes_no_image(choose):
    choose(WANTED, "--check", tag="whisper-xeon-test/never:1")
    assert docker("image", "ls", "--quiet", "whisper-xeon-test/never:1").stdout == ""
