"""Text files as their publishers hand them out: plain, gzip or bzip2, UTF-8 with or without a byte-order mark."""

from __future__ import annotations

import bz2
import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from shards.core import fs
from shards.core.errors import TornFileError, UsageError

LONGEST_SNIFF = 1 << 20
_FOREIGN = {
    b"PAR1": "a parquet file",
    b"SQLite format 3": "an SQLite file",
    codecs.BOM_UTF16_LE: "UTF-16: write it again as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16: write it again as UTF-8",
    b"PK\x03\x04": "a zip file: unpack it first",
    b"\xfd7zXZ": "an xz file: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first",
    b"\x93NUMPY": "a NumPy file",
    b"\x80\x04": "a pickle, which is never loaded",
}


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading its bytes, unpacked if it is gzip or bzip2 (by its first bytes, not by its name).

    Raises:
        TornFileError: the packed stream is cut off or damaged; what stands before was read.
    """
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(fs.open_read(path))
        magic = file.read(3)
        file.seek(0)
        packed: IO[bytes] | None = None
        if magic[:2] == b"\x1f\x8b":
            packed = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
        elif magic == b"BZh":
            packed = bz2.BZ2File(file)  # type: ignore[assignment]
        if packed is None:
            yield file
            return
        try:
            yield stack.enter_context(packed)
        except (EOFError, zlib.error, OSError) as error:
            raise TornFileError(f"{path}: the packed file is cut off or damaged: {error}", "a whole file") from error


def lines(path: str) -> Iterator[tuple[str, bool]]:
    """Yield each line without its end, and whether it had one. Memory holds one line.

    Only a line feed (after an optional carriage return) ends a line; bytes that are no UTF-8 become U+FFFD.
    """
    with opened(path) as file:
        for number, raw in enumerate(file):
            raw = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
            ended = raw.endswith(b"\n")
            yield raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace"), ended


def first_lines(path: str, number: int) -> list[str]:
    """Return up to `number` first lines; fewer where the file is torn, or where one is longer than a megabyte: it is the last."""
    found: list[str] = []
    try:
        with opened(path) as file:
            while len(found) < number and (raw := file.readline(LONGEST_SNIFF)):
                raw = raw if found else raw.removeprefix(codecs.BOM_UTF8)
                found.append(raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace"))
                if not raw.endswith(b"\n"):
                    break
    except TornFileError:
        pass  # `read` meets it again, where --bad-files decides
    return found


def refuse_foreign(path: str, allowed: str) -> None:
    """Refuse a file that is no text at all.

    Raises:
        UsageError: parquet, SQLite, UTF-16, zip …, by its first bytes.
    """
    with fs.open_read(path) as file:
        head = file.read(512)
    for magic, what in (*_FOREIGN.items(), (head[:257] + b"ustar", "a tar")):
        if head.startswith(magic):
            raise UsageError(f"{path}: this is {what}", allowed)
