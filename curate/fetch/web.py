"""One image over HTTP, safely: no private address at any hop, a wall-clock deadline, a size cap, opt-outs honoured.

The connection goes to exactly the address that was checked, so a name that resolves differently the second time
gains nothing; over TLS the certificate is still verified for the name. Proxies of the environment are not used.
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from curate.fetch.addresses import is_public
from curate.fetch.hosts import Hosts
from curate.fetch.robots import AGENT, opted_out
from curate.fetch.wire import PIECE, Clock, Connection, NoImage, Wire

MAX_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)
REMOVED = "/removed.png"  # where Imgur, with 200, sends who asks for an image that is gone
ASKED_TO_WAIT = (429, 503)  # those that may say for how long, and mean the whole host
PASSING = (408, 502, 504)  # a timeout on the server's side, and gateways without their server
_CUT = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)?")  # ANSI's: colours, titles, moves
HEADERS = {"Accept": "image/*,*/*;q=0.8", "Accept-Encoding": "identity", "Connection": "close"}
OPTED_OUT = "opted out: "
PRIVATE = "no public address"  # the kind of failure that `allow_private_hosts` lifts


class Later(NoImage):
    """The URL gives no image now; the same request may do better after some seconds."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass(frozen=True)
class Limits:
    """What one download may take: seconds of wall clock over all hops, bytes of body, and whose addresses; and how it behaves.

    `retries` is how often a URL is asked again after a reset, or an answer that means “later”; waiting for that is bounded
    by `longest_wait` seconds, and none of the timeout. `contact` stands in the user agent.
    """

    timeout: float = 20.0
    max_bytes: int = 32 * 2**20
    allow_private_hosts: bool = False
    per_host: int = 4
    retries: int = 2
    longest_wait: float = 30.0
    contact: str = ""

    @property
    def user_agent(self) -> str:
        """Who we say we are."""
        return f"Mozilla/5.0 (compatible; {AGENT}{'; +' if self.contact else ''}{self.contact})"


def download(url: str, limits: Limits, hosts: Hosts | None = None, refused: Callable[[str], str] | None = None) -> tuple[bytes | None, str]:
    """Return the bytes behind a URL and an empty text, or None and why there are none. Raises nothing.

    Args:
        hosts: the connections that are open already; without it, none is.
        refused: says of a URL, at each hop, why it may not be asked for, or nothing.
    """
    hosts = hosts or Hosts(limits.per_host)
    why = ""
    for attempt in range(limits.retries + 1):
        try:
            return _follow(url, limits, hosts, refused or _nothing), ""
        except Later as later:
            why = str(later)
            seconds = later.seconds
            if seconds is not None and seconds > limits.longest_wait:
                why += f", to be asked again after {seconds:.0f} s"
                break
        except NoImage as error:
            return None, clean(str(error))
        except TimeoutError:
            return None, f"timed out after {limits.timeout:g} s"
        except _CUT as error:
            why, seconds = f"{type(error).__name__}: {error}", None
        except (OSError, http.client.HTTPException, ValueError) as error:
            return None, clean(f"{type(error).__name__}: {error}")
        if seconds is None and attempt < limits.retries:
            time.sleep(min(2**attempt * random.uniform(0.5, 1.5), limits.longest_wait))
    return None, clean(why)


def _nothing(_: str) -> str:
    return ""


def clean(text: str) -> str:
    """Return a text that a server had a part in as one short line which commands no terminal."""
    return "".join(c for c in _ESCAPES.sub("", text) if c.isprintable())[:300].rstrip()


def _follow(url: str, limits: Limits, hosts: Hosts, refused: Callable[[str], str]) -> bytes:
    clock = Clock(limits.timeout)
    for _ in range(MAX_REDIRECTS + 1):
        if why := refused(url):
            raise NoImage(why)
        with _response(url, limits, clock, hosts) as (host, response):
            if response.status in ASKED_TO_WAIT or response.status in PASSING:
                raise _later(response, host, hosts, limits)
            hosts.answered(host)
            # What an error's page says of itself is not said of the picture.
            if response.status in (200, *REDIRECTS) and (directive := opted_out(response.headers)):
                raise NoImage(f"{OPTED_OUT}X-Robots-Tag: {directive}")
            location = response.headers.get("Location")
            if response.status in REDIRECTS and location:
                # Header bytes arrive as Latin-1; what is beyond ASCII is UTF-8 nearly everywhere.
                url = urljoin(url, location.encode("latin-1", "replace").decode("utf-8", "replace"))
                if urlsplit(url).path.endswith(REMOVED):
                    raise NoImage(f"removed: redirected to {url[:80]}")
            elif response.status == 200:
                return _body(response, limits)
            else:
                raise NoImage(_status(response))
    raise NoImage(f"more than {MAX_REDIRECTS} redirects")


def _status(response: http.client.HTTPResponse) -> str:
    return f"HTTP {response.status} {clean(response.reason)[:80]}".rstrip()


def _later(response: http.client.HTTPResponse, host: str, hosts: Hosts, limits: Limits) -> Later:
    """Return what an answer that means “later” asks for; where it means the host, no other request goes there meanwhile."""
    seconds = _retry_after(response.headers.get("Retry-After", ""))
    if response.status not in ASKED_TO_WAIT and seconds is None:
        return Later(_status(response))
    if seconds is None:
        seconds = min(random.uniform(1.0, 2.0), limits.longest_wait)
    hosts.refused(host)
    hosts.pause(host, min(seconds, limits.longest_wait))
    return Later(_status(response), seconds)


def _retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header states, as a number or as a date; None where it states neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


@contextmanager
def _response(url: str, limits: Limits, clock: Clock, hosts: Hosts) -> Iterator[tuple[str, http.client.HTTPResponse]]:
    """Ask for a URL as soon as it is our turn at its host; yield the host and the answer, whose body is still to be read."""
    scheme, host, port, target = _parts(url)
    name = host.lower().rstrip(".")
    started = time.monotonic()
    with hosts.connection(name):
        clock.extend(time.monotonic() - started)
        with closing(_connect(host, port, limits, clock)) as plain:
            plain.settimeout(clock.left())
            wire = _tls().wrap_socket(plain, server_hostname=host) if scheme == "https" else plain
            with closing(wire):
                connection = Connection(host, port, Wire(wire, clock, limits.max_bytes), 443 if scheme == "https" else 80)
                connection.request("GET", target, headers=HEADERS | {"User-Agent": limits.user_agent})
                with connection.getresponse() as response:
                    yield name, response


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


def _connect(host: str, port: int, limits: Limits, clock: Clock) -> socket.socket:
    """Connect to the first address of a host that is allowed and answers."""
    infos = _resolve(host, port, clock)
    allowed = [info for info in infos if limits.allow_private_hosts or is_public(str(info[4][0]))]
    if not allowed:
        addresses = ", ".join(sorted({str(info[4][0]) for info in infos}))
        raise NoImage(f"{PRIVATE}: {host} is {addresses}" if addresses else f"refused: {host} has no address")
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


def _resolve(host: str, port: int, clock: Clock) -> list[Any]:
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
        raise NoImage(f"no address: {host} cannot be resolved: {answer[0]}")
    return list(answer[0])


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _body(response: http.client.HTTPResponse, limits: Limits) -> bytes:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise NoImage(f"Content-Encoding {coding[:40]}, which was not asked for")
    too_large = NoImage(f"larger than {limits.max_bytes} bytes")
    if (response.length or 0) > limits.max_bytes:
        raise too_large
    content = bytearray()
    while piece := response.read(PIECE):
        content += piece
        if len(content) > limits.max_bytes:
            raise too_large
    if response.length:
        raise NoImage(f"cut off: {response.length} bytes missing after {len(content)}")
    if not content:
        raise NoImage("empty body")
    return bytes(content)
