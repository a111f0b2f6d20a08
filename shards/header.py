"""The 512-byte headers of tars as others write them: checksum, name and size, and the fields of PAX headers."""

from __future__ import annotations

import re

from shards.core.errors import TornFileError

BLOCK = 512
_OCTAL = re.compile(rb"[0-7]*")
_SIZE = re.compile(r"[0-9]{1,20}", re.ASCII)
_LENGTH = re.compile(rb"[0-9]{1,20}")


def is_header(block: bytes) -> bool:
    """Return whether a block's checksum is that of a tar header."""
    try:
        stated = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        stated = -1
    return stated == sum(block[:148]) + 8 * 32 + sum(block[156:])


def header_size(block: bytes, name: str = "tar") -> int:
    """Return the size that a header's own field states; `name` is what errors call the tar.

    Raises:
        TornFileError: the field is negative or no number.
    """
    field = block[124:136]
    if field[0] & 0x80:  # GNU's base-256 form, in two's complement
        if field[0] & 0x40:
            raise TornFileError(f"{name}: a member's size is negative: {field!r}")
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    digits = field.strip(b" \0")
    if not _OCTAL.fullmatch(digits):  # int() would take signs, too: a negative size sends a walk back, for ever
        raise TornFileError(f"{name}: a member's size is no octal number: {field!r}")
    return int(digits or b"0", 8)


def header_name(block: bytes) -> str:
    """Return the name in a header's own fields, which long-name and PAX headers before it may override."""
    short = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + short if prefix else short).decode("utf-8", "surrogateescape")


def pax_size(text: str, name: str) -> int:
    """Return the size that a PAX header states; `name` is what errors call the tar.

    Twenty digits hold 2**64; of some thousands, int() would raise an error of its own.

    Raises:
        TornFileError: the text is negative, too long, or no number.
    """
    if not _SIZE.fullmatch(text):
        raise TornFileError(f"{name}: a member's PAX size is {text[:40]!r}", "digits")
    return int(text)


def pax_fields(content: bytes, name: str) -> dict[str, str]:
    """Return the fields of a PAX header: records of `LENGTH KEY=VALUE` and a line feed, up to zeros or the end.

    Args:
        content: what follows the PAX header's own 512 bytes.
        name: what errors call the tar.

    Raises:
        TornFileError: a record's length is no number or leads out of the content, or the record has no `=` or line feed.
    """
    fields = {}
    start = 0  # slicing the rest off for each record took minutes of the 16 MiB that a header may have
    while start < len(content) and content[start]:
        digits, _, _ = content[start : start + 21].partition(b" ")
        length = int(digits) if _LENGTH.fullmatch(digits) else 0
        record = content[start + len(digits) + 1 : start + length]
        if not record.endswith(b"\n") or b"=" not in record or start + length > len(content):
            raise TornFileError(f"{name}: a PAX header has a malformed record: {content[start : start + 40]!r}", "LENGTH KEY=VALUE")
        key, _, value = record[:-1].partition(b"=")
        fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start += length
    return fields
