"""A loopback HTTP server that costs little: the files of a folder from memory, one process, connections kept.

python benchmarks/_loopback.py FOLDER     prints its port and serves until it is killed
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEAD = "HTTP/1.1 {status}\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n"


class _Files(asyncio.Protocol):
    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers, self.left = answers, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self.left = (self.left + data).split(b"\r\n\r\n")
        for request in requests:
            line, _, headers = request.partition(b"\r\n")
            missing = HEAD.format(status="404 Not Found", size=0).encode()
            self.transport.write(self.answers.get(line.split(b" ")[1], missing))  # type: ignore[attr-defined]
            if b"connection: close" in headers.lower():
                self.transport.close()


async def serve(folder: Path) -> None:
    """Load the folder and serve it."""
    answers = {}
    for path in folder.glob("*.jpg"):
        content = path.read_bytes()
        answers[f"/{path.name}".encode()] = HEAD.format(status="200 OK", size=len(content)).encode() + content
    server = await asyncio.get_running_loop().create_server(lambda: _Files(answers), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def loopback(folder: Path) -> Iterator[tuple[str, int]]:
    """Serve a folder from a process of its own; yields its address and its process id."""
    with subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
