"""One image over HTTP, safely: no private address at any hop, a wall-clock deadline, a size cap, opt-outs honoured.

The connection goes to exactly the address that was checked, so a name that resolves differently the second time
gains nothing; over TLS the certificate is still verified for the name. Proxies of the environment are not used.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from curate.fetch.addresses import is_public

MAX_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)
REMOVED = "/removed.png"  # where Imgur, with 200, sends who asks for an image that is gone
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex")
AGENT = "provender"  # the name under which X-Robots-Tag may address us
HEADERS = {
    "User-Agent": f"Mozilla/5.0 (compatible; {AGENT})",
    "Accept": "image/*,*/*;q=0.8",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_PIECE = 1 << 16


class NoImage(Exception):
    """The URL gives no image, and why."""


@dataclass(frozen=True)
class Limits:
    """What one download may take: seconds of wall clock over all hops, bytes of body, and whose addresses."""

    timeout: float = 20.0
    max_bytes: int = 32 * 2**20
    allow_private_hosts: bool = False


def download(url: str, limits: Limits) -> tuple[bytes | None, str]:
    """Return the bytes behind a URL and an empty text, or None and why there are none. Raises nothing."""
    clock = _Clock(limits.timeout)
    try:
        return _follow(url, limits, clock), ""
    except NoImage as error:
        return None, str(error)
    except TimeoutError:
        return None, f"timed out after {limits.timeout:g} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, f"{type(error).__name__}: {error}"[:300]


class _Clock:
    """The deadline of one download."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left; none left is a TimeoutError."""
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


def _follow(url: str, limits: Limits, clock: _Clock) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        with _response(url, limits, clock) as response:
            if directive := opted_out(response.headers):
                raise NoImage(f"opted out: X-Robots-Tag: {directive}")
            location = response.headers.get("Location")
            if response.status in REDIRECTS and location:
                # Header bytes arrive as Latin-1; what is beyond ASCII is UTF-8 nearly everywhere.
                url = urljoin(url, location.encode("latin-1", "replace").decode("utf-8", "replace"))
                if urlsplit(url).path.endswith(REMOVED):
                    raise NoImage(f"removed: redirected to {url[:80]}")
            elif response.status == 200:
                return _body(response, limits)
            else:
                raise NoImage(f"HTTP {response.status} {response.reason[:80]}".rstrip())
    raise NoImage(f"more than {MAX_REDIRECTS} redirects")


@contextmanager
def _response(url: str, limits: Limits, clock: _Clock) -> Iterator[http.client.HTTPResponse]:
    scheme, host, port, target = _parts(url)
    with closing(_connect(host, port, limits, clock)) as plain:
        plain.settimeout(clock.left())
        wire = _tls().wrap_socket(plain, server_hostname=host) if scheme == "https" else plain
        with closing(wire):
            connection = _Connection(host, port, _Wire(wire, clock), 443 if scheme == "https" else 80)
            connection.request("GET", target, headers=HEADERS)
            with connection.getresponse() as response:
                yield response


def _parts(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and request target of a URL; what may not stand in a request is percent-encoded."""
    split = urlsplit(url.strip())
    if split.scheme not in ("http", "https"):
        raise NoImage(f"refused: {split.scheme or 'no scheme'}, only http and https are fetched")
    host = split.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    if not host:
        raise NoImage("refused: no host in the URL")
    target = quote(split.path or "/", safe="/%:@!$&'()*+,;=~[]")
    if split.query:
        target += "?" + quote(split.query, safe="/%:@!$&'()*+,;=~[]?")
    return split.scheme, host, split.port or (443 if split.scheme == "https" else 80), target


def _connect(host: str, port: int, limits: Limits, clock: _Clock) -> socket.socket:
    """Connect to the first address of a host that is allowed and answers."""
    found = _resolve(host, port, clock)
    allowed = [one for one in found if limits.allow_private_hosts or is_public(str(one[4][0]))]
    if not allowed:
        addresses = ", ".join(sorted({str(one[4][0]) for one in found}))
        raise NoImage(f"refused: {host} is {addresses or 'nowhere'}, no public address")
    for position, (family, kind, protocol, _, address) in enumerate(allowed):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(clock.left() / (len(allowed) - position))
            sock.connect(address)
        except OSError:
            sock.close()
            if position == len(allowed) - 1:
                raise
        else:
            return sock
    raise AssertionError("unreachable")


def _resolve(host: str, port: int, clock: _Clock) -> list[Any]:
    """Return getaddrinfo's answer, waiting for it no longer than the deadline (it knows none itself)."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(clock.left())
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], Exception):
        raise NoImage(f"{host} cannot be resolved: {answer[0]}"[:300])
    return list(answer[0])


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def opted_out(headers: http.client.HTTPMessage) -> str:
    """Return the X-Robots-Tag directive that forbids use, or an empty text; img2dataset's rule.

    A header is `directives` for everyone or `agent: directives` for one agent; only our own agent's counts.
    """
    for value in map(str, headers.get_all("X-Robots-Tag", [])):
        agent, colon, rest = value.partition(":")
        if not colon or "," in agent:  # a later colon belongs to a directive's value
            agent, rest = AGENT, value
        found = [directive.strip().lower() for directive in rest.split(",")]
        if agent.strip().lower() == AGENT and (forbidding := [d for d in found if d in OPT_OUTS]):
            return forbidding[0]
    return ""


def _body(response: http.client.HTTPResponse, limits: Limits) -> bytes:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise NoImage(f"Content-Encoding {coding[:40]}, which was not asked for")
    too_large = NoImage(f"larger than {limits.max_bytes} bytes")
    if (response.length or 0) > limits.max_bytes:
        raise too_large
    content = bytearray()
    while piece := response.read(_PIECE):
        content += piece
        if len(content) > limits.max_bytes:
            raise too_large
    if response.length:
        raise NoImage(f"cut off: {response.length} bytes missing after {len(content)}")
    if not content:
        raise NoImage("empty body")
    if bytes(content[:256]).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{"):
        # No raster format begins so; with original bytes kept, nobody else looks before the build.
        raise NoImage(f"no image but text: {response.headers.get('Content-Type', '')[:80]}")
    return bytes(content)


class _Connection(http.client.HTTPConnection):
    """A connection over a socket that is already there; it never opens another."""

    auto_open = 0

    def __init__(self, host: str, port: int, wire: _Wire, default_port: int) -> None:
        super().__init__(host, port)
        self.default_port = default_port
        self.sock = wire


class _Wire:
    """A socket on which every single read and write respects the deadline of the whole download."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self.sock, self.clock = sock, clock

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(self.clock.left())
        self.sock.sendall(data)

    def makefile(self, mode: str, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.sock, self.clock), _PIECE)

    def close(self) -> None:
        """Do nothing: http.client closes early, while the body is still to be read; the owner closes the socket."""


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self.sock, self.clock = sock, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(self.clock.left())
        return self.sock.recv_into(buffer)
