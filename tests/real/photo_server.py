"""A loopback server of the real photos, for native metadata whose URLs lead to it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def is_dead(number: int) -> bool:
    return number % 10 == 1


class Photos:
    """A loopback server of `/N.jpg`: photo N modulo their number, or 404 for a dead one; logs what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.photos = [p.read_bytes() for p in sorted((folder / "pairs").glob("flickr*/**/*.jpg"))]
        self.log: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.strip("/").removesuffix(".jpg"))
                outer.log.append(number)
                content = b"" if is_dead(number) else outer.photo(number)
                self.send_response(404 if is_dead(number) else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Backlog(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 256

        self.http = Backlog(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def photo(self, number: int) -> bytes:
        return self.photos[number % len(self.photos)]

    def url_of(self, number: int) -> str:
        return f"{self.url}/{number}.jpg"
