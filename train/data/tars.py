"""Positioned reads from tars that stay open, and where the members of their samples lie."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards import tar
from shards.core import fs
from shards.core.errors import RunError, TornFileError
from shards.header import header_size
from shards.sample import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPEN_TARS = 128
IMAGE, TEXT, LABEL = slice(0, 2), slice(2, 4), slice(4, 6)  # of a sample's byte ranges
_PLACE = {**dict.fromkeys(IMAGE_EXTENSIONS, 0), "txt": 2, "cls": 4}


class TarFiles:
    """Positioned reads from tars, with the last `OPEN_TARS` kept open. Thread-safe."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a tar.

        Raises:
            RunError: the tar is gone or shorter, or cannot be read.
        """
        try:
            if fs.is_remote(path):
                content = fs.read_range(path, offset, length)
            else:
                content = os.pread(self._get(path).number, length, offset)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RunError(f"{path}: {reason}, while reading {length} bytes at {offset}", advice="shards verify") from error
        if len(content) != length:
            raise RunError(f"{path}: {len(content)} of {length} bytes at {offset}", advice="shards verify")
        return content

    def member(self, path: str, offset: int, size: int) -> bytes:
        """Return a member's content, together with proof that it is one: the header before it states this size.

        A tar that was written anew after indexing has other bytes at the old offsets. The proof takes 4 µs.

        Raises:
            RunError: as `read`, or the index is of another tar.
        """
        content = self.read(path, offset - tar.BLOCK, tar.BLOCK + size)
        header = content[: tar.BLOCK]
        if not tar.is_header(header) or header_size(header, path) != size:
            advice = "shards verify; or shards index --overwrite, if the tar was rewritten on purpose"
            raise RunError(f"{path}: no member of {size} bytes at {offset}", "the tar that was indexed", advice)
        return content[tar.BLOCK :]

    def _get(self, path: str) -> _Descriptor:
        with self._lock:
            if path not in self._open:
                self._open[path] = _Descriptor(path)
            self._open.move_to_end(path)
            while len(self._open) > OPEN_TARS:
                self._open.popitem(last=False)
            return self._open[path]


class _Descriptor:
    """A file descriptor that closes with its last user, who may still be reading when the cache lets it go."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class TarIndex:
    """A tar's samples, from the `.idx` beside it or from the tar itself; no more of the index is parsed than is asked for."""

    def __init__(self, path: str) -> None:
        """Read the index of the tar at `path`."""
        self.path = path.removesuffix(".tar") + ".idx"
        if fs.exists(self.path):
            text = fs.read_bytes(self.path).decode("utf-8", "surrogateescape")
        else:
            text = tar.format_index(tar.read_index(path))
        head, *self._lines = text.splitlines() or [""]
        self._version = head.partition(" ")[0]

    def __len__(self) -> int:
        return len(self._lines)

    def members(self, rows: Sequence[int]) -> list[list[tar.Member]]:
        """Return the members of some samples.

        Raises:
            TornFileError: a line is malformed.
        """
        lines = [f"{self._version} {len(rows)}", *(self._lines[row] for row in rows)]
        return tar.parse_index("\n".join(lines), self.path)

    def ranges(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """Return offset and size of some samples' image, .txt and .cls members, (n, 6); a size is −1 where there is none.

        Straight from the lines: 2 µs a sample, where members as objects take 20.

        Raises:
            TornFileError: a line is malformed.
        """
        import numpy as np

        step = 4 if self._version == "v1.2" else 3
        table = []
        for row in rows:
            words = self._lines[row].split(" ")
            ranges = [0, -1, 0, -1, 0, -1]
            try:
                for first in range(0, len(words), step):
                    place = _PLACE.get(words[first].lower())
                    if place is not None and ranges[place + 1] < 0:
                        ranges[place : place + 2] = int(words[first + 1]), int(words[first + 2])
            except (ValueError, IndexError):
                raise TornFileError(f"{self.path}: line {row + 2}: {self._lines[row][:80]!r}", "EXTENSION OFFSET SIZE …") from None
            table.append(ranges)
        return np.array(table, np.int64).reshape(-1, 6)
