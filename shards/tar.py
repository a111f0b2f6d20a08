"""Tar files, read and written by byte ranges.

Writing: USTAR with fixed headers (mode 0444, mtime 0, no owner), so equal members give equal bytes.
Reading: a header walk that gives each member's offset and size, GNU and PAX long names included, and refuses
absolute and `..` names. The index is DALI's (`wds2idx`, v1.2), byte-equal to what its tool writes for our tars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from shards.core import fs
from shards.core.errors import TornFileError, UsageError

BLOCK = 512
END = bytes(2 * BLOCK)
PIECE = 2**20
MAX_MEMBER = 8 * 2**30 - 1  # eleven octal digits
_INDEX_HEAD = re.compile(r"v1\.[12] (\d+)")


class Stored(Protocol):
    """A content that lies elsewhere, and is read straight to where it is written from."""

    def __len__(self) -> int: ...

    def read_into(self, place: memoryview) -> None:
        """Fill `place`, which has the content's length."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The name up to the first dot of its last part: the sample that the member belongs to."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def ext(self) -> str:
        """What follows the first dot of the last part."""
        return self.name.rpartition("/")[2].partition(".")[2]


# A header around its name, its size and its checksum: mode and owner, mtime; type, magic and what is empty.
_FRONT, _TIME = b"0000444\0" + b"0000000\0" * 2, b"00000000000\0"
_REST = b"".join((b"0", bytes(100), b"ustar\x0000", bytes(64), b"0000000\0" * 2, bytes(167)))
_SUM = sum(_FRONT) + sum(_TIME) + sum(_REST) + 8 * ord(" ")
_ZEROS = bytes(BLOCK)


def header(name: str, size: int) -> bytes:
    """Return the 512-byte USTAR header of a regular file.

    Raises:
        UsageError: a name over 99 bytes or a size over 8 GiB, which USTAR cannot hold.
    """
    encoded = name.encode("ascii", "strict")
    if len(encoded) > 99 or size > MAX_MEMBER:
        raise UsageError(f"tar member {name!r} of {size} bytes", "a name of at most 99 ASCII bytes, below 8 GiB")
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (_SUM + sum(encoded) + sum(digits))
    return b"".join((encoded.ljust(100, b"\0"), _FRONT, digits, _TIME, checksum, _REST))


def padded(size: int) -> int:
    """Return a member's size on disk: its header and its content, filled up to whole blocks."""
    return BLOCK + -(-size // BLOCK) * BLOCK


def tar_size(sizes: Iterable[int]) -> int:
    """Return the exact size of a tar whose members have these sizes."""
    return sum(map(padded, sizes)) + len(END)


class TarWriter:
    """Write members one after the other into an open binary file, gathered into pieces of about a megabyte."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.offset = file, 0
        self._piece, self._filled = bytearray(PIECE), 0

    def add(self, name: str, content: bytes | Stored) -> int:
        """Append one member; returns where in the tar its content begins."""
        size = len(content)
        place = self._room(padded(size))
        place[:BLOCK] = header(name, size)
        inner = place[BLOCK : BLOCK + size]
        if isinstance(content, bytes):
            inner[:] = content
        else:
            content.read_into(inner)
        place[BLOCK + size :] = _ZEROS[: -size % BLOCK]
        self.offset += len(place)
        return self.offset - len(place) + BLOCK

    def close(self) -> None:
        """Write the end-of-archive blocks; the file itself stays open."""
        self._room(len(END))[:] = END
        self.offset += len(END)
        self._flush()

    def _room(self, size: int) -> memoryview:
        """Return the next `size` bytes of the piece; what was in the way is written."""
        if self._filled + size > len(self._piece):
            self._flush()
            if size > len(self._piece):
                self._piece = bytearray(size)
        self._filled += size
        return memoryview(self._piece)[self._filled - size : self._filled]

    def _flush(self) -> None:
        self.file.write(memoryview(self._piece)[: self._filled])
        self._filled = 0


def walk(file: IO[bytes], name: str = "tar", *, hostile: bool = False) -> Iterator[Member]:
    """Yield the regular files of an uncompressed tar in order, without reading their content.

    Args:
        file: the open tar; must be able to seek.
        name: what errors call it.
        hostile: yield members that `leads_out` would refuse, too, instead of raising.

    Raises:
        TornFileError: the tar is cut off (also between two members: the end mark is missing), or a header is not one.
            Members before it were yielded.
        UsageError: a member's name is absolute or leads out of the folder.
    """
    size_limit = file.seek(0, 2)
    offset, long_name, pax_size = 0, "", None
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TornFileError(f"{name}: cut off at byte {size_limit}, before the end-of-archive mark")
        if not block.strip(b"\0"):
            return
        _check_header(block, offset, name)
        size, kind = _number(block[124:136], name), block[156:157]
        size = pax_size if pax_size is not None and kind in (b"0", b"\0") else size
        if offset + BLOCK + size > size_limit:
            raise TornFileError(f"{name}: cut off inside {_name(block)!r} at byte {size_limit}")
        if kind == b"L":
            long_name = file.read(size).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == b"x":
            fields = _pax(file.read(size))
            long_name = fields.get("path", long_name)
            pax_size = int(fields["size"]) if "size" in fields else None
        else:
            if kind in (b"0", b"\0"):
                member = (long_name or _name(block)).removeprefix("./")
                if leads_out(member) and not hostile:
                    raise UsageError(f"{name}: member {member!r} leads out of the archive", "relative names without '..'")
                yield Member(member, offset + BLOCK, size)
            long_name, pax_size = "", None
        offset += padded(size)


def is_header(block: bytes) -> bool:
    """Return whether a block's checksum is that of a tar header."""
    try:
        stated = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        stated = -1
    return stated == sum(block[:148]) + 8 * 32 + sum(block[156:])


def _check_header(block: bytes, offset: int, name: str) -> None:
    if not is_header(block):
        raise TornFileError(f"{name}: no tar header at byte {offset}", "an uncompressed tar", "unpack .tar.gz files first")


def _number(field: bytes, name: str) -> int:
    if field[0] & 0x80:  # GNU's base-256 form
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise TornFileError(f"{name}: a member's size is no number: {field!r}") from error


def _name(block: bytes) -> str:
    short = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + short if prefix else short).decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    fields = {}
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or int(length) < 5:
            break
        record, content = content[len(length) + 1 : int(length) - 1], content[int(length) :]
        key, _, value = record.partition(b"=")
        fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return fields


def leads_out(member: str) -> bool:
    """Return whether a member's name is absolute or has `..` in it: unpacked, it would land elsewhere."""
    return member.startswith("/") or ".." in member.split("/")


def samples(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Group adjacent members with one key, as webdataset and DALI do; dot-files and names without a dot are passed over."""
    group: list[Member] = []
    for member in members:
        base = member.name.rpartition("/")[2]
        if base.startswith(".") or "." not in base:
            continue
        if group and group[0].key != member.key:
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def read_index(path: str) -> list[list[Member]]:
    """Return the samples of a tar: from the `.idx` beside it, else by walking the tar at `path`."""
    index = path.removesuffix(".tar") + ".idx"
    if not fs.exists(index):
        with fs.open_read(path) as file:
            return list(samples(walk(file, path)))
    return parse_index(fs.read_bytes(index).decode("utf-8", "surrogateescape"), index)  # as names in the tar are


def parse_index(text: str, name: str = "idx") -> list[list[Member]]:
    """Parse a DALI index, version 1.2 (with names) or 1.1 (without).

    Raises:
        TornFileError: the head or a line is malformed, or lines are missing.
    """
    lines = text.splitlines()
    head = _INDEX_HEAD.fullmatch(lines[0]) if lines else None
    if head is None or int(head[1]) != len(lines) - 1:
        raise TornFileError(f"{name}: found {len(lines) - 1} samples under the head {lines[:1]}", "v1.2 <samples>")
    step = 4 if lines[0].startswith("v1.2") else 3
    result = []
    for number, line in enumerate(lines[1:]):
        words = line.split(" ")
        if len(words) % step:
            raise TornFileError(f"{name}: line {number + 2} has {len(words)} fields", f"a multiple of {step}")
        cells = [words[i : i + step] for i in range(0, len(words), step)]
        result.append([Member(c[3] if step == 4 else f"{number}.{c[0]}", int(c[1]), int(c[2])) for c in cells])
    return result


def format_index(groups: Iterable[list[Member]]) -> str:
    """Return the text of a DALI v1.2 index."""
    return index_text([" ".join(f"{m.ext} {m.offset} {m.size} {m.name}" for m in group) for group in groups])


def index_text(lines: list[str]) -> str:
    """Return an index of lines, one a sample: `EXTENSION OFFSET SIZE NAME` of each of its members."""
    return f"v1.2 {len(lines)}\n" + "".join(line + "\n" for line in lines)
