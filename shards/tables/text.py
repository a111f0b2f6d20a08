"""Text files as people hand them out: plain, gzip or bzip2; UTF-8, UTF-16 or UTF-32; lines that end in LF, CR LF or CR.

A byte that is no UTF-8 is read as cp1252 (Latin-1 where cp1252 has no character), and the text is counted as such.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.tables.notes import note

LONGEST_SNIFF = 1 << 20
_HEAD = 1 << 16
NOT_UTF8 = "texts that are no UTF-8, read as cp1252"
# UTF-32's little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FOREIGN = {
    b"PAR1": "a parquet file",
    b"SQLite format 3": "an SQLite file",
    b"PK\x03\x04": "a zip file: unpack it first",
    b"\xfd7zXZ": "an xz file: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first",
    b"\x93NUMPY": "a NumPy file",
    b"\x80\x04": "a pickle, which is never loaded",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"%PDF": "a PDF",
}


def _western(error: UnicodeError) -> tuple[str, int]:
    """Return what bytes that are no UTF-8 mean in cp1252, or in Latin-1 where cp1252 has nothing."""
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    characters = []
    for value in wrong:
        byte = bytes([value])
        try:
            characters.append(byte.decode("cp1252"))
        except UnicodeDecodeError:
            characters.append(byte.decode("latin-1"))
    return "".join(characters), error.end


codecs.register_error("western", _western)


def decoded(raw: bytes) -> str:
    """Return what bytes say, whatever their encoding: by their byte-order mark, else UTF-8; what is no UTF-8 is cp1252, and noted."""
    encoding, mark = encoding_of(raw)
    raw = raw[mark:]
    if encoding != "utf-8":
        return raw.decode(encoding, "replace")
    return from_utf8(raw)


def from_utf8(raw: bytes) -> str:
    """Return UTF-8 as text; what is no UTF-8 in it is cp1252, and noted."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "western")
        note(NOT_UTF8, text)
        return text


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding of a text that begins with `head`, and how many bytes its byte-order mark has.

    UTF-16 without a mark is known by the zero bytes of Western letters: at three of four odd (or even) places, and at none
    of the others.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    even, odd = head[0:_HEAD:2], head[1:_HEAD:2]
    if len(odd) >= 4 and even.count(0) == 0 and odd.count(0) * 4 >= len(odd) * 3:
        return "utf-16-le", 0
    if len(odd) >= 4 and odd.count(0) == 0 and even.count(0) * 4 >= len(even) * 3:
        return "utf-16-be", 0
    return "utf-8", 0


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


def head_of(path: str, size: int = _HEAD) -> bytes:
    """Return the first bytes of a file, unpacked; of a torn one none or fewer."""
    with suppress(TornFileError), opened(path) as file:
        return file.read(size)
    return b""


def lines(path: str) -> Iterator[tuple[str, bool]]:
    """Yield each line without its end, and whether it had one. Memory holds one line.

    Only a line feed (after an optional carriage return) ends a line; in a file whose first 64 KiB have none, a carriage return does.
    """
    head = head_of(path)
    encoding, mark = encoding_of(head)
    old_mac = _is_old_mac(head, encoding)
    with opened(path) as file:
        file.read(mark)
        if encoding == "utf-8" and not old_mac:
            for raw in file:
                yield from_utf8(raw.removesuffix(b"\n").removesuffix(b"\r")), raw.endswith(b"\n")
            return
        yield from _translated(file, encoding, "\r" if old_mac else "\n")


def _translated(file: IO[bytes], encoding: str, end: str) -> Iterator[tuple[str, bool]]:
    wrapped = io.TextIOWrapper(file, encoding, "surrogateescape" if encoding == "utf-8" else "replace", newline=end)
    try:
        for line in wrapped:
            ended = line.endswith(end)
            text = line.removesuffix(end).removesuffix("\r")
            if encoding == "utf-8":
                text = from_utf8(text.encode("utf-8", "surrogateescape"))
            yield text, ended
    finally:
        wrapped.detach()


def _is_old_mac(head: bytes, encoding: str) -> bool:
    text = head if encoding == "utf-8" else head.decode(encoding, "replace").encode()
    return b"\n" not in text and b"\r" in text.rstrip(b"\r") and len(text) > 0


def first_lines(path: str, number: int) -> list[str]:
    """Return up to `number` first lines; fewer where the file is torn, or where one is longer than a megabyte: it is the last."""
    head = head_of(path)
    encoding, mark = encoding_of(head)
    end = b"\r" if _is_old_mac(head, encoding) else b"\n"
    lines_so_far: list[str] = []
    with suppress(TornFileError), opened(path) as file:  # `lines` meets a tear again, where --bad-files decides
        file.read(mark)
        if encoding != "utf-8" or end == b"\r":
            text = file.read(LONGEST_SNIFF).decode(encoding, "western" if encoding == "utf-8" else "replace")
            return [line.removesuffix("\r") for line in text.split(end.decode())][:number]
        while len(lines_so_far) < number and (raw := file.readline(LONGEST_SNIFF)):
            lines_so_far.append(raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "western"))
            if not raw.endswith(b"\n"):
                break
    return lines_so_far


def refuse_foreign(path: str, allowed: str) -> None:
    """Refuse a file that is no text at all.

    Raises:
        UsageError: parquet, SQLite, zip, a picture …, by its first bytes.
    """
    with fs.open_read(path) as file:
        head = file.read(512)
    for magic, what in (*_FOREIGN.items(), (head[:257] + b"ustar", "a tar")):
        if head.startswith(magic):
            raise UsageError(f"{path}: this is {what}", allowed)
