"""`audio_url`: what is fetched, from where, and that nothing else is connected to. Real servers on the loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paths import RECORDINGS
from running_service import EXACT, running_service, submit_json, wait_for
from whisper_xeon.audio.fetch import FetchCancelled, FileTooLarge, HostFailed, HostRejected, HostTooSlow, fetch
from whisper_xeon.audio.url_policy import AllowList, Url, UrlInvalid, UrlNotAllowed

CLIP = "en-00.wav"
CONTENT = (RECORDINGS / CLIP).read_bytes()
SECRET = "signature=do-not-tell"
PATIENCE = 60


class Files(BaseHTTPRequestHandler):
    """Serves one recording, and every way not to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        name = self.path.partition("?")[0].strip("/").replace("-", "_")
        if name.isdigit():
            self.answer(int(name), b"the reason why")
        else:
            getattr(self, name)()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def clip(self):
        self.answer(200, CONTENT)

    def chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(CONTENT), 7000):
            part = CONTENT[start : start + 7000]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def until_closed(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT)
        self.close_connection = True

    def endless(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def drip_head(self):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Filler: ")

    def drip_body(self):
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")

    def drip(self, head: bytes) -> None:
        self.server.dripping.set()
        self.wfile.write(head)
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)

    def short(self):
        self.answer(200, CONTENT, Content_Length=str(len(CONTENT) + 1))
        self.close_connection = True

    def broken_chunk(self):
        self.answer(200, b"zzz\r\n", Transfer_Encoding="chunked")
        self.close_connection = True

    def compressed(self):
        self.answer(200, CONTENT, Content_Encoding="gzip")

    def nonsense(self):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2 secret-banner\r\n")
        self.close_connection = True

    def redirect(self):
        self.answer(302, b"", Location=self.server.target)

    def chain(self):
        left = int(self.path.partition("?")[2])
        self.answer(307, b"", Location=f"/chain?{left - 1}" if left > 1 else "/clip")

    def page(self):
        self.answer(200, b"<!DOCTYPE html>")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """A file server on the loopback that remembers who asked for what, and who only connected."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0), context: ssl.SSLContext | None = None):
        super().__init__(address, Files)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.dripping = threading.Event()
        self.target = ""
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_):
        pass

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def server():
    with contextlib.closing(Server()) as running:
        yield running


@pytest.fixture
def other():
    with contextlib.closing(Server()) as running:
        yield running


def certificate(folder: Path, name: str, *, days: int = 2) -> Path:
    """Make a key and a certificate for a name, signed by itself, in one file."""
    pem = folder / f"{name}.pem"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", str(days)]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, *subject, "-keyout", str(pem), "-out", f"{pem}.crt"], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + Path(f"{pem}.crt").read_bytes())
    return pem


@pytest.fixture(scope="module")
def localhost_pem(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


def tls_server(pem: Path) -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return Server(context=context)


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
    with contextlib.closing(Server(("127.0.0.2", server.port))) as second:
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


# POST /transcribe.


@pytest.fixture(scope="module")
def files():
    with contextlib.closing(Server()) as running:
        yield running


@pytest.fixture(scope="module")
def service(artifacts_dir, files):
    settings = {"WHISPER_AUDIO_URL_ALLOW": files.url, "WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_ENGINES": "1"}
    with running_service(artifacts_dir, WHISPER_REQUEST_TIMEOUT="20", **settings) as running:
        yield running


def transcribe(service, body, content_type: str | None = "application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content_type": content_type} if content_type else {}
    return service.request("POST", "/transcribe", data, **headers)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", "text/plain", None])
def test_a_file_is_transcribed_from_its_url_under_any_content_type(service, files, content_type):
    answer = transcribe(service, {"audio_url": f"{files.url}/clip?{SECRET}"}, content_type)
    assert (answer.status, answer.json["text"]) == (200, EXACT[CLIP]["small"])
    line = service.request_line(answer.headers["x-request-id"])
    assert (line["fetched_bytes"], line["route"]) == (len(CONTENT), "/transcribe")
    assert SECRET not in service.log_text


def test_options_stand_beside_the_url(service, files):
    body = {"audio_url": f"{files.url}/clip", "language": "en", "temperature": 0, "model": "small", "prompt": None}
    assert transcribe(service, body).json["text"] == EXACT[CLIP]["small"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"audio_url=https://a/b", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b'["audio_url"]', "invalid_json", None),
        (b"[" * 60000, "invalid_json", None),
        (b'{"audio_url": "https://a/b", "temperature": NaN}', "invalid_json", None),
        (b'{"audio_url": "https://a/b", "prompt": "\\ud800"}', "invalid_json", None),
        ({}, "invalid_value", "audio_url"),
        ({"audiourl": "https://a/b"}, "unknown_field", "audiourl"),
        ({"audio_url": None}, "invalid_value", "audio_url"),
        ({"audio_url": ["https://a/b"]}, "invalid_value", "audio_url"),
        (b'{"audio_url": "https://a/b", "audio_url": "https://a/c"}', "invalid_value", "audio_url"),
        ({"audio_url": "https://a/b", "langauge": "en"}, "unknown_field", "langauge"),
        ({"audio_url": "https://a/b", "stream": True}, "invalid_value", "stream"),
        ({"audio_url": "no address"}, "invalid_value", "audio_url"),
        ({"audio_url": "https://user:word@127.0.0.1/"}, "invalid_value", "audio_url"),
        ({"audio_url": "http://169.254.169.254/latest/"}, "audio_url_not_allowed", "audio_url"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(service, body, code, param):
    answer = transcribe(service, body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)


def test_a_body_over_its_limit_is_413(service):
    answer = transcribe(service, {"audio_url": "https://a/b", "prompt": "a" * 70000})
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


def test_a_url_that_is_not_allowed_is_refused_by_its_origin(service):
    answer = transcribe(service, {"audio_url": f"https://elsewhere.example/clip?{SECRET}"})
    assert answer.error["code"] == "audio_url_not_allowed"
    assert answer.error["message"] == (
        "audio_url: this server is not allowed to fetch from https://elsewhere.example (WHISPER_AUDIO_URL_ALLOW)"
    )


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("404", 422, "audio_url_failed"),
        ("500", 502, "audio_url_failed"),
        ("nonsense", 502, "audio_url_failed"),
        ("endless", 413, "file_too_large"),
    ],
)
def test_a_file_that_cannot_be_had_is_told_why(service, files, path, status, code):
    answer = transcribe(service, {"audio_url": f"{files.url}/{path}?{SECRET}"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, "audio_url")
    assert not any(word in answer.text + service.log_text for word in (SECRET, "the reason why", "secret-banner"))


def test_a_file_without_sound_is_422_and_names_the_field(service, files):
    answer = transcribe(service, {"audio_url": f"{files.url}/page"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (422, "audio_unreadable", "audio_url")


def test_a_client_that_leaves_ends_the_fetching(service, files):
    with submit_json(service, "/transcribe", {"audio_url": f"{files.url}/drip-body"}):
        assert files.dripping.wait(PATIENCE)
    wait_for(lambda: [line for line in service.events("request") if line["status"] == 499])


def test_a_server_that_drips_is_504_at_the_requests_timeout(artifacts_dir, files):
    settings = {"WHISPER_AUDIO_URL_ALLOW": files.url, "WHISPER_REQUEST_TIMEOUT": "1"}
    with running_service(artifacts_dir, **settings) as service:
        answer = transcribe(service, {"audio_url": f"{files.url}/drip-body"})
    assert (answer.status, answer.error["code"]) == (504, "audio_url_failed")
    assert answer.error["message"] == "audio_url: 127.0.0.1 did not send the file in time"


def test_tls_of_a_private_authority_is_trusted_by_ssl_cert_file(artifacts_dir, localhost_pem):
    with contextlib.closing(tls_server(localhost_pem)) as files:
        origin = f"https://localhost:{files.port}"
        settings = {"WHISPER_AUDIO_URL_ALLOW": f"{origin}=127.0.0.1", "SSL_CERT_FILE": str(localhost_pem)}
        with running_service(artifacts_dir, **settings) as service:
            answer = transcribe(service, {"audio_url": f"{origin}/clip"})
    assert answer.json["text"] == EXACT[CLIP]["small"]
