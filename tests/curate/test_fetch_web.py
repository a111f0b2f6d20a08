"""One download: what is refused, what ends in time, what is cut short; the server's log is the oracle."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch_server import Server, photo

from curate.fetch.addresses import is_public
from curate.fetch.web import MAX_REDIRECTS, Limits, download

LOCAL = Limits(timeout=10, max_bytes=1 << 20, allow_private_hosts=True)
HASTY = Limits(timeout=1.0, max_bytes=1 << 20, allow_private_hosts=True)


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_an_image_arrives_byte_for_byte(server: Server) -> None:
    assert download(server.url + "/img/3.jpg", LOCAL) == (photo(3), "")
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert server.headers[0]["Host"] == f"127.0.0.1:{server.port}"


def test_a_redirect_to_the_removed_picture_is_no_image(server: Server) -> None:
    """Imgur answers 200 there, with a picture: RedCaps' own downloader knows it by its name too."""
    target = f"{server.url}/odd/removed.png"
    assert download(f"{server.url}/to/{target}", LOCAL) == (None, f"removed: redirected to {target}")
    assert download(target, LOCAL) == (photo(0), "")


def test_redirects_are_followed_to_a_limit(server: Server) -> None:
    assert download(f"{server.url}/hops/{MAX_REDIRECTS}", LOCAL) == (photo(0), "")
    assert len(server.log) == MAX_REDIRECTS + 1
    assert download(f"{server.url}/hops/{MAX_REDIRECTS + 1}", LOCAL) == (None, f"more than {MAX_REDIRECTS} redirects")


@pytest.mark.parametrize(
    "url", ["ftp://example.com/a.jpg", "file:///etc/passwd", "/a.jpg", "", "data:image/png;base64,AA", "http://", "//host/a"]
)
def test_only_http_urls_are_fetched(url: str, server: Server) -> None:
    content, why = download(url, LOCAL)
    assert content is None
    assert why.startswith("refused: ")


def test_a_redirect_cannot_leave_http(server: Server) -> None:
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        assert download(f"{server.url}/to/{target}", LOCAL)[1] == f"refused: {target.split(':')[0]}, only http and https are fetched"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "user:word@127.0.0.1", "127.0.0.1.", "LOCALHOST"],
)  # fmt: skip
def test_every_spelling_of_loopback_is_refused(host: str, server: Server) -> None:
    content, why = download(f"http://{host}:{server.port}/img/0.jpg", Limits(timeout=10))
    assert content is None
    assert why.startswith("no public address: ") or "cannot be resolved" in why
    assert server.log == []


def test_public_addresses_are_told_from_the_others() -> None:
    public = ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
    private = [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.8.8.8", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1",
        "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
        "2002:7f00:1::1", "2001:0:808:808::1", "2001:db8::1", "100::1",
    ]  # fmt: skip
    assert [a for a in public if not is_public(a)] == []
    assert [a for a in private if is_public(a)] == []


IN_A_NETWORK_OF_ITS_OWN = """
    import fcntl, socket, struct, sys
    sys.path.insert(0, sys.argv[1])
    from fetch_server import Server, photo
    from curate.fetch.web import Limits, download

    control = socket.socket()
    def interface(name, request, value):
        fcntl.ioctl(control, request, struct.pack("16s16s", name, value))
    address = lambda ip: struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ip))
    interface(b"lo", 0x8914, struct.pack("H14x", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
    interface(b"lo:1", 0x8916, address("8.8.8.8"))  # SIOCSIFADDR
    control.close()

    inside, outside = Server("127.0.0.1"), Server("8.8.8.8")
    strict = Limits(timeout=10)
    assert download(outside.url + "/img/1.jpg", strict) == (photo(1), ""), download(outside.url + "/img/1.jpg", strict)
    assert download(f"{outside.url}/to/{outside.url}/img/2.jpg", strict) == (photo(2), "")
    hidden = [inside.url, f"http://localhost:{inside.port}", f"http://2130706433:{inside.port}", f"//127.0.0.1:{inside.port}"]
    for target in hidden:
        content, why = download(f"{outside.url}/to/{target}/img/3.jpg", strict)
        assert content is None and why.startswith(("no public address: ", "localhost cannot")), why
    assert inside.log == [], inside.log
    assert len(outside.log) == 3 + len(hidden), outside.log
"""


def test_a_redirect_from_a_public_address_to_loopback_is_refused() -> None:
    command = ["unshare", "-rn"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine gives no network namespace (unshare -rn)")
    script = textwrap.dedent(IN_A_NETWORK_OF_ITS_OWN)
    done = subprocess.run([*command, sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["/silent", "/drip-head", "/drip-body", "/drip-hops/"])
def test_slow_servers_end_at_the_deadline(path: str, server: Server) -> None:
    started = time.monotonic()
    assert download(server.url + path, HASTY) == (None, "timed out after 1 s")
    assert time.monotonic() - started < 3


def test_a_server_that_never_accepts_ends_at_the_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        assert download(f"http://127.0.0.1:{deaf.getsockname()[1]}/", HASTY) == (None, "timed out after 1 s")
        tls = download(f"https://127.0.0.1:{deaf.getsockname()[1]}/", HASTY)
    assert tls[0] is None
    assert "timed out" in tls[1]


def test_large_bodies_are_cut_short(server: Server) -> None:
    assert download(server.url + "/endless", LOCAL) == (None, f"larger than {1 << 20} bytes")
    assert download(f"{server.url}/length/{10**12}/10", LOCAL) == (None, f"larger than {1 << 20} bytes")


def test_a_chunk_of_a_negative_size_is_refused_before_its_bytes_are_read(server: Server) -> None:
    """http.client reads a chunk of -1 bytes until the connection ends."""
    for size in (b"-1", b"-5", b"-7fffffff"):
        server.raw["chunk"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + bytes(1 << 16)
        content, why = download(server.url + "/raw/chunk", LOCAL)
        assert (content, why) == (None, f"broken answer: a chunk of {int(size, 16)} bytes")


@pytest.mark.parametrize(
    "head",
    [
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"X-Trailer: y\r\n" * 400_000,
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"e" * 60_000 + b"\r\nx\r\n") * 60,
        b"Content-Length: -5\r\n\r\n" + bytes(3 << 20),
    ],
)
def test_all_that_is_read_is_counted_whatever_it_is(head: bytes, server: Server) -> None:
    """Trailers, chunk extensions and a body of negative length: none is read beyond the limit and a mebibyte."""
    server.raw["much"] = b"HTTP/1.1 200 OK\r\n" + head
    assert download(server.url + "/raw/much", LOCAL) == (None, f"larger than {1 << 20} bytes")


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("\x1b[31mNot\x1b[0m Found", "Not Found"), ("\x1b]0;title\x07Gone", "Gone"), ("a\x00b\x08c\x9bd", "abcd"), ("x" * 300, "x" * 80),
        ("\x1b[2J", ""),
    ],
)  # fmt: skip
def test_a_reason_phrase_commands_no_terminal(reason: str, kept: str, server: Server) -> None:
    server.raw["odd"] = f"HTTP/1.1 404 {reason}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    assert download(server.url + "/raw/odd", LOCAL) == (None, f"HTTP 404 {kept}".rstrip())


def test_what_other_texts_of_a_server_say_commands_no_terminal(server: Server) -> None:
    server.raw["coded"] = b"HTTP/1.1 200 OK\r\nContent-Encoding: \x1b[31mgzip\r\nContent-Length: 1\r\n\r\nx"
    server.raw["line"] = b"\x1b[31mHELLO\x1b[0m\r\n\r\n"
    for name in server.raw:
        content, why = download(f"{server.url}/raw/{name}", LOCAL)
        assert content is None
        assert why.isprintable()


def test_a_wrong_length_is_noticed(server: Server) -> None:
    assert download(server.url + "/length/1000/10", LOCAL) == (None, "cut off: 990 bytes missing after 10")
    content, why = download(server.url + "/length/10/1000", LOCAL)
    assert (len(content or b""), why) == (10, "")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/status/404", "HTTP 404 Not Found"),
        ("/status/500", "HTTP 500 Internal Server Error"),
        ("/status/204", "HTTP 204 No Content"),
        ("/body/empty", "empty body"),
        ("/coded/gzip", "Content-Encoding gzip, which was not asked for"),
    ],
)
def test_what_is_no_image_says_why(path: str, why: str, server: Server) -> None:
    assert download(server.url + path, LOCAL) == (None, why)


def test_odd_characters_in_urls_reach_the_server_encoded(server: Server) -> None:
    for name in ("a b.jpg", "a,b\"'.jpg", "ü.jpg", "x%20y.jpg", "[1]|.jpg", "a\r\nX-Evil: 1.jpg"):
        assert download(f"{server.url}/odd/{name}", LOCAL) == (photo(0), "")
    assert server.log == [
        "/odd/a%20b.jpg", "/odd/a,b%22'.jpg", "/odd/%C3%BC.jpg", "/odd/x%20y.jpg", "/odd/[1]%7C.jpg", "/odd/aX-Evil:%201.jpg",
    ]  # fmt: skip
    assert not any("X-Evil" in headers for headers in server.headers)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a:99999/", "http://\udcff/", "http://" + "a" * 300 + ".com/", "http://a..b/", "http://\x00/"]
)
def test_broken_urls_are_answers_not_errors(url: str) -> None:
    content, why = download(url, Limits(timeout=5))
    assert content is None
    assert why


def test_tls_is_verified_for_the_name(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    port = server.port
    script = "import sys; from curate.fetch.web import *; print(download(sys.argv[1], Limits(10, 1 << 20, True))[1])"

    def ask(host: str, trusted: bool) -> str:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate) if trusted else str(tmp_path / "none.pem"))
        command = [sys.executable, "-c", script, f"https://{host}:{port}/img/0.jpg"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert ask("localhost", trusted=True) == ""
    assert "CERTIFICATE_VERIFY_FAILED" in ask("localhost", trusted=False)
    assert "IP address mismatch" in ask("127.0.0.1", trusted=True)
