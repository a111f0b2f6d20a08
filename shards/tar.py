"""Tar files, read and written by byte ranges.

Writing: USTAR with fixed headers (mode 0444, mtime 0, no owner), so equal members give equal bytes.
Reading: a header walk that gives each member's offset and size, GNU and PAX long names included, and refuses
absolute and `..` names. The index is DALI's (`wds2idx`, v1.2), byte-equal to what its tool writes for our tars.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.header import BLOCK as BLOCK
from shards.header import header_name, header_size, pax_fields, pax_size
from shards.header import is_header as is_header
from shards.tally import Tally

END = bytes(2 * BLOCK)
# Tars of a folder that `shards index` leaves out, by kind, as `Tally` counts them.
HIDDEN = "hidden [tar|tars] (a dot before the name) passed over"
NO_SAMPLE = "[tar|tars] left out: no sample in [it|them]"
PIECE = 2**20
MAX_MEMBER = 8 * 2**30 - 1  # eleven octal digits
MAX_ABOUT_NEXT = 2**24  # bytes of a long-name or PAX header, which is read whole; names have at most 4 KiB
_ABOUT_NEXT = (b"L", b"K", b"x", b"X")
_REGULAR = (b"0", b"\0", b"7")
_HARD_LINK, _SPARSE = b"1", b"S"
_SILENT = (b"5", b"g", b"D", b"V")  # folders, and what describes the archive itself
_PASSED_OVER = {b"2": "symbolic [link|links] passed over"} | dict.fromkeys(
    (b"3", b"4", b"6"), "[device or pipe|devices and pipes] passed over"
)
_INDEX_HEAD = re.compile(r"v1\.[12] ([0-9]{1,20})")
_DOCUMENT = re.compile(
    r"(read_?me|licen[cs]e|copying|notice|authors|citation|change(log|s)|data_?(card|sheet)|(dataset_?)?(card|infos?)|meta(_?data)?|"
    r"manifest|index|class_?(es|names)|label_?(s|names|map)|categories|(md5|sha(1|256|512))(sums?)?|checksums?|thumbs|desktop)"
    r"\.(md|txt|rst|html?|pdf|jsonl?|csv|tsv|ya?ml|toml|xml|cff|bib|db|ini|log)|.*\.md",
    re.IGNORECASE,
)


class NoEndMarkError(TornFileError):
    """A tar ends behind a whole member, without an end-of-archive mark: nothing of that member is missing."""


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


def walk(file: IO[bytes], name: str = "tar", *, hostile: bool = False, tally: Tally | None = None) -> Iterator[Member]:
    """Yield the regular files of an uncompressed tar in order, without reading their content.

    A hard link is a member with its target's bytes, where the target stands before it in the tar. Tars that were
    concatenated are read on behind the first one's end mark, as `tar -i` does.

    Args:
        file: the open tar; must be able to seek, at least forward (then its end is at sys.maxsize, and hard links are passed over).
        name: what errors call it.
        hostile: yield members that `leads_out` would refuse, too, instead of raising.
        tally: counts by kind what is no regular file and is passed over.

    Raises:
        TornFileError: the tar is cut off (also between two members: the end mark is missing), or a header is not one.
            Members before it were yielded.
        UsageError: a member's name is absolute or leads out of the folder.
    """
    for member in _Walk(file, name, Tally() if tally is None else tally).members():
        if leads_out(member.name) and not hostile:
            raise UsageError(f"{name}: member {member.name!r} leads out of the archive", "relative names without '..'")
        yield member


class _Walk:
    """The state of a walk: what long-name and PAX headers say of the next member, and where link targets lie."""

    def __init__(self, file: IO[bytes], name: str, tally: Tally) -> None:
        self.file, self.name, self.tally = file, name, tally
        self.limit = file.seek(0, 2)
        self.fields: dict[str, str] = {}
        self.yielded, self.ended = 0, False
        self.places: dict[str, Member] | None = None  # by name, from the first hard link on

    def members(self) -> Iterator[Member]:
        """Yield the tar's files and the hard links to them."""
        offset = 0
        while True:
            self.file.seek(offset)
            block = self.file.read(BLOCK)
            if self.ended and not self._goes_on(block, offset):
                return
            if len(block) < BLOCK:
                kind_of_error = TornFileError if block or self.fields else NoEndMarkError
                raise kind_of_error(f"{self.name}: cut off at byte {self.limit}, before the end-of-archive mark")
            if not block.strip(b"\0"):
                self.ended = True
                offset += BLOCK
                continue
            if not is_header(block):
                advice = "unpack .tar.gz files first"
                raise TornFileError(f"{self.name}: no tar header at byte {offset}", "an uncompressed tar", advice)
            kind = block[156:157]
            size = self._size(block, kind)
            if offset + BLOCK + size > self.limit:
                raise TornFileError(f"{self.name}: cut off inside {header_name(block)!r} at byte {self.limit}")
            if kind in _ABOUT_NEXT:
                self._read_about_next(kind, size)
            else:
                member = self._member(block, kind, offset + BLOCK, size)
                if member is not None:
                    self._remember(member)
                    yield member
                self.fields = {}
            offset += padded(size) + self._sparse_map_size(block, kind, offset)

    def _size(self, block: bytes, kind: bytes) -> int:
        """Return how many bytes of content follow a header."""
        if kind == _HARD_LINK:
            return 0  # whatever its header states, as in GNU tar and tarfile
        stated = header_size(block, self.name)
        if kind in _REGULAR and "size" in self.fields:
            return pax_size(self.fields["size"], self.name)
        return stated

    def _read_about_next(self, kind: bytes, size: int) -> None:
        """Read a GNU long name or PAX header, which describes the member behind it."""
        if size > MAX_ABOUT_NEXT:
            raise TornFileError(f"{self.name}: a header of {size} bytes about the next member", f"at most {MAX_ABOUT_NEXT}")
        content = self.file.read(size)
        if kind == b"L":
            self.fields["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == b"K":
            self.fields["linkpath"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        else:
            self.fields.update(pax_fields(content, self.name))

    def _member(self, block: bytes, kind: bytes, offset: int, size: int) -> Member | None:
        """Return a header's file, or count what is passed over."""
        name = (self.fields.get("path") or header_name(block)).removeprefix("./")
        sparse = kind == _SPARSE or any(field.startswith("GNU.sparse.") for field in self.fields)
        if kind == _HARD_LINK:
            return self._linked(name, block)
        if sparse:
            self.tally.add("sparse [member|members] passed over", self.fields.get("GNU.sparse.name", name))
        elif kind in _REGULAR:
            is_folder = kind == b"\0" and name.endswith("/")  # as tars of 1979 write them
            return None if is_folder else Member(name, offset, size)
        elif kind not in _SILENT:
            self.tally.add(_PASSED_OVER.get(kind, "[member|members] of unknown type passed over"), name)
        return None

    def _linked(self, name: str, block: bytes) -> Member | None:
        """Return a hard link as a member with its target's bytes."""
        if self.limit == sys.maxsize:
            self.tally.add("hard [link|links] in a packed tar passed over", name)
            return None
        short = block[157:257].partition(b"\0")[0].decode("utf-8", "surrogateescape")
        target = (self.fields.get("linkpath") or short).removeprefix("./")
        if self.places is None:
            before = _Walk(self.file, self.name, Tally())
            self.places = {member.name: member for member in itertools.islice(before.members(), self.yielded)}
        if target not in self.places:
            self.tally.add("hard [link|links] to files outside the tar passed over", name)
            return None
        return Member(name, self.places[target].offset, self.places[target].size)

    def _remember(self, member: Member) -> None:
        self.yielded += 1
        if self.places is not None:
            self.places[member.name] = member

    def _goes_on(self, block: bytes, offset: int) -> bool:
        """Return whether there may be more behind an end mark, of which this block is no part."""
        if len(block) < BLOCK:
            return False
        if not block.strip(b"\0"):
            return True
        if not is_header(block):
            self.tally.add("end [mark|marks] with bytes behind [it|them] that are no tar", f"byte {offset}")
            return False
        self.tally.add("concatenated [tar|tars] read on (webdataset stops at the first end mark)", f"byte {offset}")
        self.ended = False
        return True

    def _sparse_map_size(self, block: bytes, kind: bytes, offset: int) -> int:
        """Return the bytes between an old GNU sparse header and its content: more of its map, a block at a time."""
        if kind != _SPARSE or not block[482]:
            return 0
        size, more = 0, True
        while more:
            self.file.seek(offset + BLOCK + size)
            extension = self.file.read(BLOCK)
            more = len(extension) == BLOCK and extension[504] != 0
            size += BLOCK
        return size


def leads_out(member: str) -> bool:
    """Return whether a member's name is absolute or has `..` in it: unpacked, it would land elsewhere."""
    return member.startswith("/") or ".." in member.split("/")


def samples(members: Iterable[Member], tally: Tally | None = None) -> Iterator[list[Member]]:
    """Group adjacent members with one key, as webdataset and DALI do; dot files and names without a dot are passed over.

    Args:
        members: a tar's members in order.
        tally: counts what is passed over.
    """
    group: list[Member] = []
    for member in members:
        base = member.name.rpartition("/")[2]
        if base.startswith(".") or "." not in base:
            if tally is not None:
                tally.add(
                    "dot [file|files] passed over" if base.startswith(".") else "[file|files] without an extension passed over", member.name
                )
            continue
        if group and group[0].key != member.key:
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def opened(path: str) -> IO[bytes]:
    """Open a tar for reading.

    Raises:
        TornFileError: there is no file: a pipe (which would hang), a socket, a device, or a link that leads nowhere.
    """
    if kind := special(path):
        raise TornFileError(f"{path}: {kind}", "an uncompressed tar")
    return fs.open_read(path)


def special(path: str) -> str:
    """Return what stands at a path instead of a file, such as `a pipe`; empty where there is a file, or its place is remote."""
    if fs.is_remote(path):
        return ""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if os.path.islink(path) else "no such file"
    except OSError as error:
        return error.strerror or type(error).__name__
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, no file"


def no_file(kind: str) -> str:
    """Return the kind of a name that ends in .tar, for a `Tally`, where `special` says that no file stands there."""
    return f"[name|names] of [a tar|tars] passed over: {kind}"


def read_whole_samples(path: str, tally: Tally | None = None) -> tuple[list[list[Member]], TornFileError | None]:
    """Return the whole samples of a tar, without the documents among them, and the error that ended the walk early.

    Before a cut the last sample is whole if it has all the members that some sample before it has. One alone is whole
    if the tar ends behind a whole member.

    Raises:
        UsageError: a member's name leads out of the folder.
        TornFileError: there is no file.
    """
    tally = Tally() if tally is None else tally
    members, torn = list[Member](), None
    with opened(path) as file:
        try:
            for member in walk(file, path, tally=tally):
                members.append(member)
        except TornFileError as error:
            torn = error
    groups = list(samples(members, tally))
    if torn is not None and groups:
        kinds = [{member.ext for member in group} for group in groups]
        ends_whole = isinstance(torn, NoEndMarkError) if len(kinds) == 1 else kinds[-1] in kinds[:-1]
        if not ends_whole:
            tally.add("[sample|samples] cut off with the tar passed over", groups.pop()[0].key)
    documents = [len(group) == 1 and _is_document(group[0]) for group in groups]
    if all(documents):
        return groups, torn  # a set of such files alone: then they are its samples
    for group, is_document in zip(groups, documents, strict=True):
        if is_document:
            tally.add("[document|documents] passed over", group[0].name)
    return [group for group, is_document in zip(groups, documents, strict=True) if not is_document], torn


def _is_document(member: Member) -> bool:
    """Return whether a member that stands alone speaks of the archive and is no sample: README.md, LICENSE.txt, classes.json."""
    return _DOCUMENT.fullmatch(member.name.rpartition("/")[2]) is not None


def scattered(groups: Sequence[list[Member]]) -> list[str]:
    """Return the keys of samples whose members stand apart in their tar: groups of one key that complement each other.

    Two groups with an extension in common are two samples of one name, not parts of one.
    """
    extensions: dict[str, set[str]] = {}
    apart: dict[str, None] = {}
    for group in groups:
        key = group[0].key
        here = {member.ext for member in group}
        before = extensions.setdefault(key, set())
        if before and before.isdisjoint(here):
            apart[key] = None
        before |= here
    return list(apart)


def read_index(path: str) -> list[list[Member]]:
    """Return the samples of a tar: from the `.idx` beside it, else by walking the tar at `path`.

    Of a torn tar without an `.idx` these are the whole samples, as `shards index --bad-files skip` counts them.

    Raises:
        TornFileError: the index cannot be parsed, or there is no whole sample.
    """
    index = path.removesuffix(".tar") + ".idx"
    if not fs.exists(index):
        groups, torn = read_whole_samples(path)
        if torn is not None and not groups:
            raise torn
        return groups
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
        if not all(_is_number(text) for cell in cells for text in cell[1:3]):
            raise TornFileError(f"{name}: line {number + 2} has an offset or a size that is no number", line[:80])
        result.append([Member(c[3] if step == 4 else f"{number}.{c[0]}", int(c[1]), int(c[2])) for c in cells])
    return result


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20  # of thousands of digits, int() would raise an error of its own


def format_index(groups: Iterable[list[Member]]) -> str:
    """Return the text of a DALI v1.2 index."""
    return index_text([" ".join(f"{m.ext} {m.offset} {m.size} {m.name}" for m in group) for group in groups])


def index_text(lines: list[str]) -> str:
    """Return an index of lines, one a sample: `EXTENSION OFFSET SIZE NAME` of each of its members."""
    return f"v1.2 {len(lines)}\n" + "".join(line + "\n" for line in lines)
