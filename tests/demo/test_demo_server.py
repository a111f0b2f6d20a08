"""The loopback server: what it answers, and that it starts and stops cleanly."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.server import serving
from shards.core.errors import UsageError


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    web = tmp_path_factory.mktemp("served")
    (web / "files/i").mkdir(parents=True)
    (web / "files/i/a.jpg").write_bytes(b"a picture")
    (web / "files/removed.png").write_bytes(b"placeholder")
    routes = {
        "/i/gone.jpg": {"file": "removed.png", "type": "image/png"},
        "/i/old.jpg": {"location": "/i/a.jpg"},
        "/i/no.jpg": {"file": "i/a.jpg", "headers": {"X-Robots-Tag": "noai"}},
    }
    (web / "routes.json").write_text(json.dumps(routes))
    (web / "secret").write_text("not to be served")
    with serving(web, 0) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


def get(address: tuple[str, int], path: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(*address, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_a_file_with_and_without_a_query(address: tuple[str, int]) -> None:
    for path in ("/i/a.jpg", "/i/a.jpg?imgmax=800"):
        status, body, headers = get(address, path)
        assert (status, body, headers["Content-Type"]) == (200, b"a picture", "image/jpeg")


def test_dead_links_and_paths_that_lead_out_are_404(address: tuple[str, int]) -> None:
    assert get(address, "/i/b.jpg")[0] == 404
    assert get(address, "/../secret")[0] == 404
    assert get(address, "/%2e%2e/secret")[0] == 404


def test_placeholder_redirect_and_opt_out(address: tuple[str, int]) -> None:
    assert get(address, "/i/gone.jpg")[:2] == (200, b"placeholder")
    status, _, headers = get(address, "/i/old.jpg")
    assert (status, headers["Location"]) == (302, "/i/a.jpg")
    assert get(address, "/i/no.jpg")[2]["X-Robots-Tag"] == "noai"


def test_a_taken_port_says_so_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text("{}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}") as error, serving(tmp_path, port):
            pass
        assert "--port" in error.value.advice


def test_it_stops_and_frees_its_port(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text("{}")
    before = set(threading.enumerate())
    for _ in range(2):
        with serving(tmp_path, 0) as url:
            port = int(url.rpartition(":")[2])
        with serving(tmp_path, port):
            pass
    assert set(threading.enumerate()) <= before


def test_a_folder_without_a_web_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no toy web"), serving(tmp_path, 0):
        pass
