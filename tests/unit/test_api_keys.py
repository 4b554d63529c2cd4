"""API keys: what the file may say, when it is read again, who gets in, and who is slowed down for trying."""

from __future__ import annotations

import hashlib
import logging
import os

import pytest

from whisper_xeon.settings import SettingsError
from whisper_xeon.shares import Caller
from whisper_xeon.web import access, key_file
from whisper_xeon.web.access import Guessing, Keys
from whisper_xeon.web.errors import HttpError
from whisper_xeon.web.key_file import KeyFile, parse_keys

HERE, ELSEWHERE = "address 192.0.2.1", "address 192.0.2.2"


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def keys(content: str) -> Keys:
    callers = parse_keys(content.encode())
    return Keys(lambda: callers)


def test_a_line_is_a_key_and_what_its_caller_may_have():
    content = f"""
# made on Monday
first-key
sha256:{digest("second-key").hex()}  name=calls priority=high connections=20 uploads=4 decoders=1 queue=8 spool_mb=64
third-key name=batch priority=low
"""
    callers = parse_keys(content.encode())
    first, second, third = (callers[digest(f"{name}-key")] for name in ("first", "second", "third"))
    assert (first.id, first.limits, first.priority) == (f"key key-{digest('first-key').hex()[:8]}", {}, 0)
    assert (second.id, second.priority) == ("key calls", 1)
    assert second.limits == {"connections": 20, "uploads": 4, "decoders": 1, "queue": 8, "spool": 64 << 20}
    assert (third.id, third.priority) == ("key batch", -1)
    assert not any(caller.capped for caller in callers.values())


def test_two_keys_of_a_name_are_one_caller_while_one_replaces_the_other():
    old, new = parse_keys(b"old name=calls queue=8\nnew queue=8 name=calls\n").values()
    assert old == new


def test_a_key_that_is_listed_twice_counts_once():
    assert parse_keys(b"a queue=8\na queue=8\n") == parse_keys(b"a queue=8\n")
    assert len(parse_keys(f"a\nsha256:{digest('a').hex()}\n".encode())) == 1


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "it has no key"),
        ("\n \n# nothing\n", "it has no key"),
        ("two words\n", "line 1: after the key, a space and nothing but name="),
        ("a\n\nschlüssel\n", "line 3: it has characters that are not ASCII"),
        ("a\x07b\n", "line 1: it has unprintable characters"),
        ("#3f9a\n", "line 1: a comment begins with # and a space"),
        ("sha256:3f9a\n", "line 1: sha256: must be followed by 64"),
        ("a name=\n", "line 1: the value of name= is not allowed"),
        ("a queue=0\n", "line 1: the value of queue= is not allowed"),
        ("a priority=urgent\n", "line 1: the value of priority= is not allowed"),
        ("a queue=1 queue=2\n", "line 1: duplicate queue="),
        ("a\na name=x\n", "line 2: duplicate key of another name"),
        (f"sha256:{digest('a').hex()} name=x\na\n", "line 2: duplicate key of another name"),
        ("a queue=1\na\n", "line 2: limits or priority differ"),
        ("a name=x queue=1\nb name=x\n", "line 2: limits or priority differ from those of this name on line 1"),
    ],
)
def test_a_file_with_anything_else_is_refused_with_the_line_and_without_its_content(tmp_path, content, wrong):
    (tmp_path / "keys").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        KeyFile(tmp_path / "keys")
    assert str(caught.value).startswith(f"WHISPER_API_KEY_FILE='{tmp_path / 'keys'}' is not allowed: {wrong}")
    assert "3f9a" not in str(caught.value)


def pipe(path):
    os.mkfifo(path)
    return path


def large(path):
    path.write_bytes(b"a\n" * (1 << 20))
    return path


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (pipe, "not a regular file"),
        (lambda path: "/dev/zero", "not a regular file"),
        (large, "larger than 1 MiB"),
        (lambda path: path / ("a" * 5000), "cannot be read"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_in_one_line(tmp_path, make, wrong):
    with pytest.raises(SettingsError, match=wrong) as caught:
        KeyFile(make(tmp_path / "keys"))
    assert "\n" not in str(caught.value)


@pytest.fixture
def keys_file(tmp_path, monkeypatch):
    monkeypatch.setattr(key_file, "_LOOK_SECONDS", 0)
    (tmp_path / "keys").write_text("old\n", encoding="ascii")
    return tmp_path / "keys"


def test_a_changed_file_is_read_again(keys_file):
    read = KeyFile(keys_file)
    keys_file.with_name("next").write_text("new\n", encoding="ascii")
    keys_file.with_name("next").rename(keys_file)
    assert list(read.current()) == [digest("new")]


def test_a_change_that_cannot_be_used_is_told_once_and_the_old_keys_stay(keys_file, caplog):
    read = KeyFile(keys_file)
    keys_file.write_text("two words\n", encoding="ascii")
    with caplog.at_level(logging.INFO, "whisper_xeon"):
        for _ in range(3):
            assert list(read.current()) == [digest("old")]
        keys_file.unlink()
        assert list(read.current()) == [digest("old")]
    (line,) = caplog.records
    assert "line 1: after the key" in line.fields["reason"]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer key-2"},
        {"authorization": "bearer  key-2"},
        {"x-api-key": "key-1"},
        {"api-key": "key-2"},
        {"authorization": "Bearer wrong", "api-key": "key-1"},
    ],
)
def test_a_key_opens_in_each_of_its_headers(headers):
    caller = keys("key-1 name=a\nkey-2 name=a").caller(headers, HERE)
    assert caller == Caller("key a")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "key-1"},
        {"authorization": "Basic key-1"},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
        {"x-api-key": "key-"},
        {"api-key": "key-1x"},
        {"x-key": "key-1"},
        {"x-api-key": "\xe9"},
        {"x-api-key": f"sha256:{digest('key-1').hex()}"},
    ],
)
def test_without_a_key_it_stays_closed(headers):
    with pytest.raises(HttpError) as caught:
        keys("key-1\nkey-2").caller(headers, HERE)
    assert (caught.value.status, caught.value.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_without_keys_everybody_may():
    assert Keys(None).caller({}, HERE) is None


@pytest.fixture
def waits():
    return []


@pytest.fixture
def guessing(waits):
    return Guessing(waits.append)


def guess(guessing: Guessing, address: str, *texts: str) -> None:
    for text in texts:
        guessing.wait(address, digest(text))
        guessing.wrong(address, digest(text))


def test_who_tries_many_keys_waits_longer_each_time_whatever_the_key_is(guessing, waits):
    guess(guessing, HERE, *map(str, range(14)))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    guessing.wait(HERE, digest("a right one"))
    assert waits[-1] == 5.0


def test_other_addresses_and_keys_that_were_right_at_this_one_do_not_wait(guessing, waits):
    guessing.right(HERE, digest("right"))
    guess(guessing, HERE, *map(str, range(20)))
    waits.clear()
    guessing.wait(HERE, digest("right"))
    guessing.wait(ELSEWHERE, digest("another"))
    assert waits == []


def test_a_client_that_repeats_one_wrong_key_slows_down_itself_and_not_its_neighbours(guessing, waits):
    guess(guessing, HERE, *["an old one"] * 6)
    assert waits == [0.1]
    guessing.wait(HERE, digest("a neighbour's"))
    assert waits == [0.1]


def test_a_client_may_repeat_a_wrong_key_for_days(guessing, waits):
    guess(guessing, HERE, *["an old one"] * 2000)
    assert waits[-1] == 5.0


def test_more_than_four_at_a_time_are_turned_away_unread(guessing, waits):
    guess(guessing, HERE, *map(str, range(5)))
    nested = []

    def sleep(seconds: float) -> None:
        nested.append(seconds)
        guessing.wait(HERE, digest(f"right {len(nested)}"))

    guessing._sleep = sleep
    with pytest.raises(HttpError) as caught:
        guessing.wait(HERE, digest("right"))
    assert (caught.value.status, caught.value.code, len(nested)) == (429, "too_many_wrong_keys", 4)
    assert caught.value.headers["Retry-After"] == "5"


def test_after_ten_quiet_minutes_an_address_begins_anew(guessing, waits, monkeypatch):
    guess(guessing, HERE, *map(str, range(10)))
    waits.clear()
    monkeypatch.setattr(access, "_FORGET_S", 0)
    guess(guessing, HERE, *map(str, range(5)))
    assert waits == []


def test_no_more_than_so_many_addresses_are_remembered(guessing):
    for number in range(5000):
        guess(guessing, f"address {number}", "wrong")
        guessing.right(f"address {number}", digest("right"))
    assert (len(guessing._wrong), len(guessing._right)) == (4096, 4096)
