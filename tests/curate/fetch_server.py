"""A loopback server that answers well and badly, and logs what it was asked; its log is the tests' oracle."""

from __future__ import annotations

import email.utils
import io
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Answer = Callable[[BaseHTTPRequestHandler], None]


def photo(number: int, kind: str = "JPEG") -> bytes:
    """Return a small picture that no other number gives."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (40 + number % 50, 30), (number % 256, number * 7 % 256, 90)).save(file, kind)
    return file.getvalue()


class Server:
    """A server in threads; `log` holds the path of each request, `answers` what single paths do."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.log: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.dead: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.raw: dict[str, bytes] = {}
        self.open = self.most_open = 0  # requests that wait for their answer, now and at most
        self.lock = threading.Lock()
        self.delay = 0.0
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with outer.lock:
                    outer.log.append(self.path)
                    outer.times.append(time.monotonic())
                    outer.open += 1
                    outer.most_open = max(outer.most_open, outer.open)
                outer.headers.append(dict(self.headers))
                time.sleep(outer.delay)
                with outer.lock:  # before the answer: a client that has it may be back before this thread goes on
                    outer.open -= 1
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads, block_on_close, request_queue_size = True, False, 256

            def handle_error(self, *_: Any) -> None:
                pass  # a client that hangs up early is what some tests are about

        self.http = Quiet((host, 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://{host}:{self.port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop serving and let the slow answers go."""
        self.stopping.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        """Answer by the first part of the path, with its rest as argument."""
        if to.path in self.dead:
            return send(to, b"gone", 404)
        _, name, *rest = to.path.split("/", 2)
        return getattr(self, "do_" + name.replace("-", "_"))(to, unquote(rest[0]) if rest else "")

    def do_img(self, to: BaseHTTPRequestHandler, name: str) -> None:
        """/img/7.jpg, /img/7.png: a picture."""
        number, _, ext = name.partition("?")[0].partition(".")
        send(to, photo(int(number), {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ext]))

    def do_odd(self, to: BaseHTTPRequestHandler, name: str) -> None:
        """Any name: picture 0."""
        send(to, photo(0))

    def do_status(self, to: BaseHTTPRequestHandler, code: str) -> None:
        send(to, b"sorry", int(code))

    def do_file(self, to: BaseHTTPRequestHandler, name: str) -> None:
        """/file/NAME: the bytes in `files`."""
        send(to, self.files[name])

    def do_raw(self, to: BaseHTTPRequestHandler, name: str) -> None:
        """/raw/NAME: the whole answer, status line and all, in `raw`."""
        to.wfile.write(self.raw[name])

    def do_busy(self, to: BaseHTTPRequestHandler, spec: str) -> None:
        """/busy/CODE/TIMES/RETRY_AFTER/NUMBER: an error the first TIMES times, then the picture. RETRY_AFTER: none, 2, or `date+2`."""
        code, times, after, number = spec.split("/")
        if self.log.count(to.path) > int(times):
            return send(to, photo(int(number)))
        if after.startswith("date+"):
            after = email.utils.formatdate(time.time() + int(after[5:]), usegmt=True)
        return send(to, b"later", int(code), {} if after == "none" else {"Retry-After": after})

    def do_reset(self, to: BaseHTTPRequestHandler, spec: str) -> None:
        """/reset/TIMES/NUMBER: the connection is reset the first TIMES times, then the picture comes."""
        times, number = map(int, spec.split("/"))
        if self.log.count(to.path) > times:
            return send(to, photo(number))
        to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        to.connection.close()
        return None

    def do_hops(self, to: BaseHTTPRequestHandler, left: str) -> None:
        """/hops/3: three redirects, then a picture."""
        send(to, b"", 302, {"Location": f"/hops/{int(left) - 1}" if int(left) > 1 else "/img/0.jpg"})

    def do_to(self, to: BaseHTTPRequestHandler, url: str) -> None:
        send(to, b"", 301, {"Location": url})

    def do_robots(self, to: BaseHTTPRequestHandler, value: str) -> None:
        send(to, photo(0), headers={"X-Robots-Tag": value})

    def do_robots_twice(self, to: BaseHTTPRequestHandler, value: str) -> None:
        """A harmless header and one with `value`."""
        to.send_response(200)
        to.send_header("X-Robots-Tag", "nofollow")
        to.send_header("X-Robots-Tag", value)
        to.send_header("Content-Length", str(len(photo(0))))
        to.end_headers()
        to.wfile.write(photo(0))

    def do_body(self, to: BaseHTTPRequestHandler, kind: str) -> None:
        send(to, {"empty": b"", "html": b"\n<!DOCTYPE html><p>gone", "json": b'{"error": 1}'}[kind])

    def do_length(self, to: BaseHTTPRequestHandler, spec: str) -> None:
        """/length/STATED/SENT: a body of another length than stated."""
        stated, sent = map(int, spec.split("/"))
        send(to, b"\xff\xd8" + b"x" * (sent - 2), headers={"Content-Length": str(stated)})

    def do_endless(self, to: BaseHTTPRequestHandler, _: str) -> None:
        """Bytes without end, and no length stated."""
        to.send_response(200)
        to.end_headers()
        while not self.stopping.is_set():
            to.wfile.write(b"\xff\xd8" + bytes(65536))

    def do_coded(self, to: BaseHTTPRequestHandler, coding: str) -> None:
        send(to, photo(0), headers={"Content-Encoding": coding})

    def do_silent(self, to: BaseHTTPRequestHandler, _: str) -> None:
        self.stopping.wait(60)

    def do_drip_head(self, to: BaseHTTPRequestHandler, _: str) -> None:
        self._drip(to, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000)

    def do_drip_body(self, to: BaseHTTPRequestHandler, _: str) -> None:
        to.send_response(200)
        to.send_header("Content-Length", "1000")
        to.end_headers()
        self._drip(to, bytes(1000))

    def do_drip_hops(self, to: BaseHTTPRequestHandler, _: str) -> None:
        """Each redirect takes a while and leads to the next: only a deadline over all hops ends in time."""
        self.stopping.wait(0.3)
        send(to, b"", 302, {"Location": to.path + "x"})

    def _drip(self, to: BaseHTTPRequestHandler, content: bytes) -> None:
        for byte in content:
            to.wfile.write(bytes([byte]))
            if self.stopping.wait(0.1):
                return


def send(to: BaseHTTPRequestHandler, content: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
    """Send one whole answer."""
    to.send_response(code)
    for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
        to.send_header(name, value)
    to.end_headers()
    to.wfile.write(content)
