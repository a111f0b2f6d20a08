"""Whether a member stands in its tar where the index says: a tar that was written anew after indexing has others there."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable

from shards import tar
from shards.core import fs
from shards.core.errors import RunError, TornFileError, UsageError
from shards.header import BLOCK, header_name, header_size, is_header, pax_fields, pax_size

_ABOUT = 4 * BLOCK  # how far before a member's header its long-name or PAX header is looked for


def check_member(path: str, offset: int, size: int, name: str, source: int | Callable[[int, int], bytes]) -> None:
    """Check that a member stands in a tar where its index says: a tar rewritten after indexing has others there.

    Its header is read, 2.5 KiB before the content. Where header and index differ in ways that a header alone cannot
    settle (hard links, indexes without names), the tar is walked once.

    Args:
        path: the tar.
        offset, size: of the member's content, in bytes.
        name: the member's name, as in the index.
        source: an open file's descriptor, or a function from (offset, length) to bytes.

    Raises:
        RunError: another member, or none, stands there.
    """
    start = max(0, offset - BLOCK - _ABOUT)
    if offset < BLOCK:
        raise _rewritten(path, name, f"an index that puts it at byte {offset}")
    content = os.pread(source, offset - start, start) if isinstance(source, int) else source(start, offset - start)
    if len(content) == offset - start and _agrees(content, size, name):
        return
    named = _holds_names(path.removesuffix(".tar") + ".idx")
    known_as = name if named else name.partition(".")[2]
    try:
        members = _walked(path, str(fs.identity(path)), named)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or type(error).__name__}", "the tar that was indexed", "shards verify") from error
    if (known_as, offset, size) not in members:
        raise _rewritten(path, f"{name} ({size:,} bytes)", _described(content[-BLOCK:]))


def _described(block: bytes) -> str:
    if len(block) < BLOCK or not is_header(block):
        return "no header of a member"
    try:
        size = f"{header_size(block):,}"
    except TornFileError:
        size = "an unknown number of"
    return f"{fs.printable(header_name(block))} ({size} bytes)"


def _rewritten(path: str, name: str, there: str) -> RunError:
    return RunError(
        f"{path}: before the bytes of member {fs.printable(name)} stands {there}",
        "the tar that was indexed",
        "shards verify; or shards index --overwrite, if the tar was rewritten on purpose",
    )


def _agrees(content: bytes, size: int, name: str) -> bool:
    """Return whether the header at the end of `content` is that of a member of this size and name."""
    block = content[-BLOCK:]
    if not is_header(block) or block[156:157] not in (b"0", b"\0", b"7"):
        return False
    try:
        fields = _fields_before(content)
        stated = pax_size(fields["size"], "tar") if "size" in fields else header_size(block)
    except TornFileError:
        return False
    return stated == size and fields.get("path", header_name(block)).removeprefix("./") == name


def _fields_before(content: bytes) -> dict[str, str]:
    """Return what a long-name or PAX header right before the last block says of it, where it is of at most 3 blocks."""
    for blocks in range(2, len(content) // BLOCK):
        start = len(content) - BLOCK - blocks * BLOCK
        block = content[start : start + BLOCK]
        if block[156:157] not in (b"L", b"x", b"X") or not is_header(block):
            continue
        size = header_size(block)
        if tar.padded(size) != blocks * BLOCK:
            continue
        about = content[start + BLOCK : start + BLOCK + size]
        if block[156:157] == b"L":
            return {"path": about.rstrip(b"\0").decode("utf-8", "surrogateescape")}
        return pax_fields(about, "tar")
    return {}


@functools.lru_cache(maxsize=16)
def _walked(path: str, identity: str, named: bool) -> frozenset[tuple[str, int, int]]:
    """Return (name, offset, size) of all members of a tar, up to a tear; where its index holds no names, extensions in their place.

    `identity` is not used here: it lets the cache forget a tar that was rewritten.
    """
    members: list[tar.Member] = []
    # Of a torn tar, what stands before the tear: `shards index --bad-files skip` uses it.
    with fs.open_read(path) as file, contextlib.suppress(TornFileError, UsageError):
        members.extend(tar.walk(file, path))
    return frozenset((m.name if named else m.ext, m.offset, m.size) for group in tar.samples(members) for m in group)


def _holds_names(index: str) -> bool:
    return not fs.exists(index) or fs.read_range(index, 0, 4) != b"v1.1"
