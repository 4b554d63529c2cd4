"""`audio_url`: what is fetched, from where, and that nothing else is connected to. Real servers on the loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time

import pytest

from file_server import CONTENT, FileServer, certificate, tls_server
from whisper_xeon.audio.fetch import FetchCancelled, FileTooLarge, HostFailed, HostRejected, HostTooSlow, fetch
from whisper_xeon.audio.url_policy import AllowList, Url, UrlInvalid, UrlNotAllowed

SECRET = "signature=do-not-tell"
PATIENCE = 60


@pytest.fixture
def server():
    with contextlib.closing(FileServer()) as running:
        yield running


@pytest.fixture
def other():
    with contextlib.closing(FileServer()) as running:
        yield running


def get(url: str, allowed: str, *, maximum: int = 10**6, seconds: float = PATIENCE, cancelled=lambda: False, ca=None):
    received = bytearray()
    fetch(
        url,
        AllowList.parse(allowed),
        received.extend,
        context=ssl.create_default_context(cafile=ca),
        maximum=maximum,
        deadline=time.monotonic() + seconds,
        cancelled=cancelled,
    )
    return bytes(received)


# What is fetched.


@pytest.mark.parametrize("path", ["clip", "clip?a=%20b&c", "clip#part", "chunked", "until-closed", "chain?3"])
def test_a_file_arrives_whole(server, path):
    assert get(f"{server.url}/{path}", server.url) == CONTENT


def test_the_request_carries_no_credential_and_asks_for_the_file_as_it_is(server):
    get(f"{server.url}/clip", server.url)
    ((_, headers),) = server.seen
    assert headers == {
        "Host": f"127.0.0.1:{server.port}",
        "User-Agent": headers["User-Agent"],
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def test_proxies_of_the_environment_are_not_used(server, other, monkeypatch):
    monkeypatch.setenv("http_proxy", other.url)
    monkeypatch.setenv("all_proxy", other.url)
    assert get(f"{server.url}/clip", server.url) == CONTENT
    assert other.connections == 0


def test_an_internal_name_is_fetched_from_when_its_network_is_given(server):
    url = f"http://localhost:{server.port}"
    assert get(f"{url}/clip", f"{url}=127.0.0.0/8") == CONTENT
    assert server.seen[0][1]["Host"] == f"localhost:{server.port}"


def test_tls_is_verified_against_the_name(localhost_pem):
    with contextlib.closing(tls_server(localhost_pem)) as server:
        origin = f"https://localhost:{server.port}"
        assert get(f"{origin}/clip", f"{origin}=127.0.0.1", ca=localhost_pem) == CONTENT


# What goes wrong, and how it is said.


def test_an_unknown_authority_is_refused(localhost_pem):
    with contextlib.closing(tls_server(localhost_pem)) as server:
        origin = f"https://localhost:{server.port}"
        with pytest.raises(HostFailed, match=r"^the certificate of localhost is not valid: self.signed certificate$"):
            get(f"{origin}/clip", f"{origin}=127.0.0.1")
        assert server.seen == []


def test_a_certificate_for_another_name_is_refused(tmp_path):
    pem = certificate(tmp_path, "media.example.com")
    with contextlib.closing(tls_server(pem)) as server:
        origin = f"https://localhost:{server.port}"
        with pytest.raises(HostFailed, match="the certificate of localhost is not valid: Hostname mismatch"):
            get(f"{origin}/clip", f"{origin}=127.0.0.1", ca=pem)
        assert server.seen == []


def test_tls_to_a_server_without_it_fails(server):
    origin = f"https://localhost:{server.port}"
    with pytest.raises(HostFailed, match=f"localhost does not speak TLS properly on port {server.port}"):
        get(f"{origin}/clip", f"{origin}=127.0.0.1")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (f"404?{SECRET}", HostRejected, "answered with status 404"),
        ("403", HostRejected, "answered with status 403"),
        ("500", HostFailed, "answered with status 500"),
        ("206", HostFailed, "answered with status 206"),
        ("304", HostFailed, "answered with status 304"),
        ("302", HostFailed, "answered with status 302"),
        ("short", HostFailed, "closed the connection in the middle of the file"),
        ("broken-chunk", HostFailed, "does not speak HTTP properly"),
        ("compressed", HostFailed, "sent the file compressed"),
        ("nonsense", HostFailed, "does not speak HTTP properly"),
        ("chain?4", HostFailed, "redirects more than 3 times"),
    ],
)
def test_a_failure_names_the_host_and_the_reason_and_nothing_else(server, path, error, message):
    with pytest.raises(error) as failure:
        get(f"{server.url}/{path}#{SECRET}", server.url)
    assert str(failure.value).startswith(f"127.0.0.1 {message}")
    assert not any(word in str(failure.value) for word in (SECRET, "the reason why", "secret-banner"))


def test_a_host_that_nobody_listens_on_is_named():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        origin = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(HostFailed, match=r"^the connection to 127\.0\.0\.1 failed: Connection refused$"):
        get(f"{origin}/x", origin)


def test_a_name_without_an_address_is_named():
    with pytest.raises(HostFailed, match=r"^the name media\.invalid cannot be resolved$"):
        get("https://media.invalid/x", "media.invalid")


@pytest.mark.parametrize("path", ["clip", "chunked", "until-closed", "endless"])
def test_a_file_over_the_limit_is_refused(server, path):
    with pytest.raises(FileTooLarge):
        get(f"{server.url}/{path}", server.url, maximum=len(CONTENT) - 1)


def test_a_file_of_just_the_limit_is_taken(server):
    assert get(f"{server.url}/chunked", server.url, maximum=len(CONTENT)) == CONTENT


@pytest.mark.parametrize("path", ["drip-head", "drip-body"])
def test_a_server_that_sends_a_byte_now_and_then_gains_no_time(server, path):
    with pytest.raises(HostTooSlow, match=r"^127\.0\.0\.1 did not send the file in time$"):
        get(f"{server.url}/{path}", server.url, seconds=1)


def test_a_server_that_accepts_and_never_answers_gains_no_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            origin = f"{scheme}://localhost:{silent.getsockname()[1]}"
            with pytest.raises(HostTooSlow):
                get(f"{origin}/x", f"{origin}=127.0.0.1", seconds=1)


@pytest.mark.parametrize("path", ["drip-head", "drip-body"])
def test_it_ends_when_nobody_waits_any_more(server, path):
    with pytest.raises(FetchCancelled):
        get(f"{server.url}/{path}", server.url, cancelled=server.dripping.is_set)


# From where.


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://media.example.com/a", "media.example.com"),
        ("HTTPS://Media.Example.COM:443/a", "media.example.com"),
        ("https://media.example.com?a", "https://media.example.com"),
        ("https://media.example.com:8443/a", "media.example.com:8443"),
        ("https://a.b.example.com/a", "*.example.com"),
        ("http://media.example.com/a", "http://media.example.com"),
        ("http://10.0.0.5:9000/a", "https://x.example,http://10.0.0.5:9000"),
        ("https://[2001:DB8::1]/a", "[2001:db8:0::1]"),
        ("https://[::ffff:10.0.0.5]/a", "10.0.0.5"),
    ],
)
def test_what_the_list_has_is_found(url, allowed):
    assert AllowList.parse(allowed).find(Url.parse(url))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://media.example.com/a", "media.example.com"),
        ("https://media.example.com:8443/a", "media.example.com"),
        ("http://media.example.com:443/a", "media.example.com"),
        ("https://example.com/a", "*.example.com"),
        ("https://evilexample.com/a", "*.example.com"),
        ("https://media.example.com.evil.net/a", "media.example.com"),
        ("https://evil.net/media.example.com", "media.example.com"),
        ("https://evil.net?media.example.com", "media.example.com"),
        ("https://10.0.0.6/a", "10.0.0.5"),
        ("https://sub.media.example.com/a", "media.example.com"),
    ],
)
def test_what_the_list_does_not_have_is_refused_saying_what_it_has(url, allowed):
    with pytest.raises(UrlNotAllowed, match="this server is not allowed to fetch from "):
        AllowList.parse(allowed).find(Url.parse(url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "media.example.com/a",
        "//media.example.com/a",
        "ftp://media.example.com/a",
        "file:///etc/passwd",
        "https:///a",
        "https://user@media.example.com/a",
        "https://user:word@media.example.com/a",
        "https://evil.net\\@media.example.com/a",
        "https://media.example.com\\.evil.net/a",
        "https://media.example.com:/a",
        "https://media.example.com:0/a",
        "https://media.example.com:99999/a",
        "https://media.example.com:8443x/a",
        "https://media.example.com./a",
        "https://media..example.com/a",
        "https://media.example.com/a b",
        "https://media.example.com/a\r\nX: y",
        "https://media.example.com/ä",
        "https://mediа.example.com/a",  # a Cyrillic letter
        "https://%6dedia.example.com/a",
        "https://2130706433/a",
        "https://0x7f000001/a",
        "https://0x7f.1/a",
        "https://127.1/a",
        "https://0177.0.0.1/a",
        "https://127.0.0.1.1/a",
        "https://[::1/a",
        "https://[::1%25lo]/a",
        "https://[localhost]/a",
        "https://media.example.com/" + "a" * 9000,
    ],
)
def test_what_could_be_read_in_two_ways_is_no_url(url):
    with pytest.raises(UrlInvalid):
        Url.parse(url)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        ",",
        "ftp://media.example.com",
        "https://media.example.com/path",
        "user@media.example.com",
        "*",
        "*.",
        "a.*.example.com",
        "*.10.0.0.5",
        "127.1",
        "media.example.com:0",
        "media.example.com=10.0.0.1/8",
        "media.example.com=internal",
        "10.0.0.5=10.0.0.0/8",
        "169.254.169.254",
        "http://[fe80::1]",
        "http://[::ffff:169.254.169.254]",
        "media.example.com=169.254.0.0/16",
        "media.example.com; other.example.com",
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(entry):
    with pytest.raises(ValueError, match=r"\w"):
        AllowList.parse(entry)


def test_a_list_says_what_it_read():
    text = " media.example.com, *.Example.com:8443,,http://10.0.0.5:9000,store.example.com=10.0.0.0/8"
    assert str(AllowList.parse(text)).split(",") == [
        "https://media.example.com",
        "https://*.example.com:8443",
        "http://10.0.0.5:9000",
        "https://store.example.com=10.0.0.0/8",
    ]


PRIVATE = (
    *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "192.0.0.8"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "240.0.0.1", "::1", "::127.0.0.1"),
    *("fc00::1", "fd12::1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1", "2001:db8::1", "100::1"),
)
NEVER = (
    *("169.254.169.254", "169.254.0.1", "0.0.0.0", "0.1.2.3", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("224.0.0.1", "239.255.255.250", "255.255.255.255", "::", "fe80::1", "fec0::1", "ff02::1", "fd00:ec2::254"),
    *("fd20:ce::254",),
)


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
def test_a_name_alone_may_not_have_an_internal_address(address):
    (entry,) = AllowList.parse("media.example.com").entries
    assert not entry.permits(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_a_name_alone_may_have_a_public_address(address):
    (entry,) = AllowList.parse("media.example.com").entries
    assert entry.permits(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_out_of_the_question_whatever_the_list_says(address):
    entries = AllowList.parse("media.example.com=0.0.0.0/0,media.example.com=::/0").entries
    assert not any(entry.permits(ipaddress.ip_address(address)) for entry in entries)


def test_a_network_behind_a_name_is_all_that_the_name_may_have():
    (entry,) = AllowList.parse("store.example.com=10.1.0.0/16").entries
    given = {address: entry.permits(ipaddress.ip_address(address)) for address in ("10.1.2.3", "10.2.0.1", "8.8.8.8")}
    assert given == {"10.1.2.3": True, "10.2.0.1": False, "8.8.8.8": False}


def test_a_name_with_an_internal_address_is_not_connected_to(server):
    origin = f"http://localhost:{server.port}"
    with pytest.raises(UrlNotAllowed, match="localhost has no address that may be connected to"):
        get(f"{origin}/clip", origin)
    assert server.connections == 0


def answers(*rounds: list[str]):
    """A resolver that gives other addresses each time it is asked, as a hostile name server does."""
    asked = []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        addresses = rounds[min(len(asked), len(rounds)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo, asked


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(server, monkeypatch):
    origin = f"http://rebound.example:{server.port}"
    getaddrinfo, asked = answers(["127.0.0.1"], ["127.0.0.2"])
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with contextlib.closing(FileServer(("127.0.0.2", server.port))) as second:
        assert get(f"{origin}/clip", f"{origin}=127.0.0.1") == CONTENT
        assert second.connections == 0
    assert asked == ["rebound.example"]


def test_a_redirect_to_the_same_name_is_checked_anew(server, monkeypatch):
    origin = f"http://rebound.example:{server.port}"
    getaddrinfo, asked = answers(["127.0.0.1"], ["127.0.0.2"])
    server.target = "/clip"
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(UrlNotAllowed, match=r"rebound\.example has no address"):
        get(f"{origin}/redirect", f"{origin}=127.0.0.1")
    assert [path for path, _ in server.seen] == ["/redirect"]
    assert asked == ["rebound.example"] * 2


def test_of_several_addresses_only_permitted_ones_are_tried(server, monkeypatch):
    origin = f"http://mixed.example:{server.port}"
    getaddrinfo, _ = answers(["169.254.169.254", "127.0.0.9", "127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    # Nobody listens on the second one; the third is its successor.
    assert get(f"{origin}/clip", f"{origin}=127.0.0.0/8") == CONTENT


@pytest.mark.parametrize(
    "target",
    [
        "{other}/clip?" + SECRET,
        "//127.0.0.1:{port}/clip",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:{port}/clip",
    ],
)
def test_a_redirect_out_of_the_list_is_not_followed(server, other, target):
    server.target = target.format(other=other.url, port=other.port)
    with pytest.raises(UrlNotAllowed) as refusal:
        get(f"{server.url}/redirect", server.url)
    assert str(refusal.value) == "127.0.0.1 redirects to a URL that this server is not allowed to fetch"
    assert other.connections == 0


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://[::1", "gopher://127.0.0.1/", "http://a@127.0.0.1/"])
def test_a_redirect_to_no_url_is_not_followed(server, target):
    server.target = target
    with pytest.raises(HostFailed, match=r"^127\.0\.0\.1 redirects to something that is not a URL$"):
        get(f"{server.url}/redirect", server.url)


def test_a_redirect_to_another_place_of_the_list_is_followed(server, other):
    server.target = f"{other.url}/clip"
    assert get(f"{server.url}/redirect", f"{server.url},{other.url}") == CONTENT
