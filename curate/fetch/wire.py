"""HTTP over a socket that is there already, on which every read and write keeps to a deadline and a number of bytes."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

PIECE = 1 << 16
# Beside the body: header lines (http.client takes 100 of 64 KiB at most), chunk sizes, trailers.
_OVERHEAD = 1 << 20


class NoImage(Exception):
    """The URL gives no image, and why."""


class Clock:
    """The deadline of one download."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left; none left is a TimeoutError."""
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def extend(self, seconds: float) -> None:
        """Move the deadline: what was spent on waiting for one's turn is not the server's time."""
        self.end += seconds


class _Response(http.client.HTTPResponse):
    """A response whose chunks have a size of 0 or more: http.client reads one of -1 until the connection ends."""

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise NoImage(f"broken answer: a chunk of {size} bytes")
        return size


class Connection(http.client.HTTPConnection):
    """A connection over a socket that is already there; it never opens another."""

    auto_open = 0
    response_class = _Response

    def __init__(self, host: str, port: int, wire: Wire, default_port: int) -> None:
        super().__init__(host, port)
        self.default_port = default_port
        self.sock = wire


class Wire:
    """A socket with the deadline of the whole download, and a limit of what is read from it.

    The limit counts what came in, whatever http.client makes of it: bodies, headers, chunk sizes and trailers alike.
    """

    def __init__(self, sock: socket.socket, clock: Clock, max_bytes: int) -> None:
        self.sock, self.clock, self.max_bytes = sock, clock, max_bytes

    def sendall(self, data: bytes) -> None:
        """Send all of it before the deadline."""
        self.sock.settimeout(self.clock.left())
        self.sock.sendall(data)

    def makefile(self, mode: str, *_: object) -> io.BufferedReader:
        """Return the reading side."""
        return io.BufferedReader(_Reader(self), PIECE)

    def close(self) -> None:
        """Do nothing: http.client closes early, while the body is still to be read; the owner closes the socket."""


class _Reader(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.left = wire.max_bytes + _OVERHEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.wire.sock.settimeout(self.wire.clock.left())
        count = self.wire.sock.recv_into(buffer)
        self.left -= count
        if self.left < 0:
            raise NoImage(f"larger than {self.wire.max_bytes} bytes")
        return count
