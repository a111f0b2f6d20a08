"""Packed tars, read from front to back: they have no byte ranges, so their members are held while their sample is read."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shards import tar
from shards.core import fs
from shards.core.errors import TornFileError

MOST = 512 * 2**20  # bytes of one member; a larger one is no image that can be measured
MOST_TEXT = 16 * 2**20
CHUNK = 2**20
_TOOLS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def tool(path: str) -> str:
    """Return what a file is packed with, by its first bytes: gzip, bzip2, xz, zstd, or nothing."""
    with fs.open_read(path) as file:
        head = file.read(8)
    return next((name for magic, name in _TOOLS.items() if head.startswith(magic)), "")


def gunzip(content: bytes, most: int) -> bytes:
    """Return what a gzipped member holds; nothing if it does not unpack, or to more than `most` bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(most + 1)
    except (OSError, EOFError, zlib.error):
        return b""
    return found if len(found) <= most else b""


class Members:
    """The members of a packed tar in order; `seek` and `read` give those that were not forgotten, by their offset."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._held: dict[int, bytes] = {}
        self._at = 0

    def __iter__(self) -> Iterator[tar.Member]:
        import lzma

        try:
            with _stream(self.path) as stream:
                file: Any = _Forward(stream)
                for member in tar.walk(file, self.path, hostile=True):
                    file.seek(member.offset)
                    self._held[member.offset] = file.read(min(member.size, MOST))
                    if len(self._held[member.offset]) < min(member.size, MOST):
                        raise EOFError
                    yield member
        except (TornFileError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise TornFileError(f"{self.path}: the packed tar is cut off or damaged", "a whole tar") from error

    def seek(self, offset: int) -> None:
        """Go to a member."""
        self._at = offset

    def read(self, size: int) -> bytes:
        """Return that member's content."""
        return self._held[self._at][:size]

    def forget(self, last: tar.Member) -> None:
        """Let go of a member and all before it."""
        self._held = {offset: content for offset, content in self._held.items() if offset > last.offset}


class _Forward:
    """A stream that can seek ahead, and knows no end."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._at = stream, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 2:
            return sys.maxsize
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        content = bytes(self._stream.read(size))
        self._at += len(content)
        return content


def head(path: str) -> bytes:
    """Return the first block of what a packed file holds; nothing of one that is torn."""
    import lzma

    try:
        with _stream(path) as stream:
            return bytes(stream.read(tar.BLOCK))
    except (EOFError, OSError, zlib.error, lzma.LZMAError):
        return b""


@contextmanager
def _stream(path: str) -> Iterator[Any]:
    """Open a packed file for reading what it holds."""
    import bz2
    import lzma

    import pyarrow as pa

    openers: dict[str, Any] = {
        "gzip": lambda file: gzip.GzipFile(fileobj=file),
        "bzip2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
        "zstd": lambda file: pa.CompressedInputStream(pa.PythonFile(file), "zstd"),
    }
    with fs.open_read(path) as file, openers[tool(path)](file) as stream:
        yield stream
