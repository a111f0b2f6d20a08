"""The toy web's server: files by URL path, redirects, headers, pages for pictures, and 404 for what is not there.

`python -m demo.server serve WEB [--port N]` serves until interrupted; the driver runs it in a thread of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from shards.core.cli import Command, main
from shards.core.config import option
from shards.core.console import say
from shards.core.errors import UsageError

HOST, PORT = "127.0.0.1", 8970
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".html": "text/html"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # a fetch opens many connections at once
    allow_reuse_address = True

    def __init__(self, port: int, web: Path) -> None:
        super().__init__((HOST, port), _Handler)
        self.files = web / "files"
        self.routes: dict[str, dict[str, Any]] = json.loads((web / "routes.json").read_text(encoding="utf-8"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        route = self.server.routes.get(path, {})
        if "location" in route:
            self._answer(302, b"", {"Location": route["location"]})
            return
        file = (self.server.files / route.get("file", path[1:])).resolve()
        if not file.is_relative_to(self.server.files.resolve()) or not file.is_file():
            self._answer(404, b"not here", {"Content-Type": "text/plain"})
            return
        kind = route.get("type") or TYPES.get(file.suffix, "application/octet-stream")
        self._answer(200, file.read_bytes(), {"Content-Type": kind, **route.get("headers", {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line per picture would hide the rest."""


@contextmanager
def serving(web: str | Path, port: int = PORT) -> Iterator[str]:
    """Serve a web in a background thread; yields its address, such as `http://127.0.0.1:8970`. Port 0 takes a free one.

    Raises:
        UsageError: the port is taken, or the folder holds no web.
    """
    server = _open(Path(web), port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def check_free(port: int) -> None:
    """Refuse a port that cannot be served on.

    Raises:
        UsageError: it is taken, or no port.
    """
    with _refusing(port), ThreadingHTTPServer((HOST, port), BaseHTTPRequestHandler):
        pass


def _open(web: Path, port: int) -> _Server:
    if not (web / "routes.json").is_file():
        raise UsageError(f"no toy web in {web}", "a folder that demo.toyweb drew")
    with _refusing(port):
        return _Server(port, web)


@contextmanager
def _refusing(port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {HOST}:{port}: {error}", "a free port", "choose another with --port N or DEMO_PORT=N") from None


@dataclass(frozen=True)
class ServeConfig:
    """`serve`: which web, and on which port."""

    web: str = option(help="a folder that demo.toyweb drew", positional=True)
    port: int = option(PORT, "port on 127.0.0.1")


def serve(config: ServeConfig) -> None:
    """Serve a web until interrupted."""
    server = _open(Path(config.web), config.port)
    say(f"serving {config.web} on http://{HOST}:{server.server_port} until interrupted")
    with server:
        server.serve_forever()


if __name__ == "__main__":
    raise SystemExit(main("demo.server", "Serve a toy web.", {"serve": Command(ServeConfig, "demo.server:serve", "serve a folder")}))
