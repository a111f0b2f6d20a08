"""X-Robots-Tag in the spellings that servers send, over a loopback server and in headers made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPMessage
from urllib.parse import quote

import pytest
from fetch_server import Server, photo

from curate.fetch.robots import opted_out
from curate.fetch.web import Limits, download

LOCAL = Limits(timeout=10, allow_private_hosts=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


FORBIDDING = {
    "noai": "noai", "NoIndex": "noindex", "nofollow, noimageai": "noimageai", "noimageindex,": "noimageindex", "none": "none",
    "noindex; noimageai": "noindex", "noai noimageai": "noai", "NOAI": "noai", " noai ": "noai", '"noai"': "noai",
    "max-image-preview:large, noai": "noai", "max-image-preview: large; noai": "noai", "max-snippet: -1, noindex": "noindex",
    "*: noai": "noai", "provender: noai": "noai", "Provender : NoAI": "noai", "img2dataset: noai": "noai", "robots: noindex": "noindex",
    "googlebot: nofollow, provender: noai": "noai", "provender: all, otherbot: noindex, *: none": "none", "noai: ": "noai",
    "noai, unavailable_after: 25 Jun 2030 15:00:00 PST": "noai", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai": "noai",
    "unavailable_after: 2030-06-25T15:00:00Z, noai": "noai", "noarchive,noai,otherbot:all": "noai",
}  # fmt: skip
HARMLESS = [
    "all", "nofollow", "", "noarchive", "otherbot: noai", "otherbot: nofollow, noai", "max-image-preview:none", "max-snippet: 0",
    "unavailable_after: 25 Jun 2030 15:00:00 PST", "notnoai", "noainoimageai", "nonesuch", "provender: all, otherbot: none",
]  # fmt: skip


@pytest.mark.parametrize(("value", "directive"), FORBIDDING.items())
def test_each_spelling_of_an_opt_out_is_honoured(value: str, directive: str, server: Server) -> None:
    for path in ("robots", "robots-twice"):
        assert download(f"{server.url}/{path}/{quote(value)}", LOCAL) == (None, f"opted out: X-Robots-Tag: {directive}")


@pytest.mark.parametrize("value", HARMLESS)
def test_what_forbids_nothing_or_somebody_else_is_fetched(value: str, server: Server) -> None:
    assert download(f"{server.url}/robots/{quote(value)}", LOCAL) == (photo(0), "")


def test_whatever_img2dataset_honours_is_honoured() -> None:
    """Its rule, written down again: without an agent's token, any of four directives in a list without a colon."""
    forbidding = {"noai", "noimageai", "noindex", "noimageindex"}
    for value in (*FORBIDDING, *HARMLESS):
        theirs = ":" not in value and bool({word.strip().lower() for word in value.split(",")} & forbidding)
        headers = HTTPMessage()
        headers["X-Robots-Tag"] = value
        assert bool(opted_out(headers)) >= theirs


def test_the_header_of_an_error_says_nothing_of_the_picture(server: Server) -> None:
    server.raw["gone"] = b"HTTP/1.1 404 Not Found\r\nX-Robots-Tag: noindex\r\nContent-Length: 0\r\n\r\n"
    assert download(server.url + "/raw/gone", LOCAL) == (None, "HTTP 404 Not Found")


def test_a_redirect_that_opts_out_is_not_followed(server: Server) -> None:
    server.raw["to"] = b"HTTP/1.1 302 Found\r\nX-Robots-Tag: noai\r\nLocation: /img/0.jpg\r\nContent-Length: 0\r\n\r\n"
    asked = len(server.log)
    assert download(server.url + "/raw/to", LOCAL)[1] == "opted out: X-Robots-Tag: noai"
    assert server.log[asked:] == ["/raw/to"]
