"""WebDataset tars of anyone: images with `.txt` or `.json` captions, `.cls` classes, or both.

A sample's id is its tar's path relative to the input, a slash, and its key; a uid of 32 hex digits (our own keys,
DataComp's `uid`) is kept. In `.json`, `caption`, `text` or `title` is the caption, and the rest goes to `meta`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from curate.sources.base import Input, Pointer, Record, list_inputs, meta_json, storable
from shards import tar
from shards.core import fs
from shards.core.errors import TornFileError, UsageError

VERSION = 1
IMAGES = "inline"
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jfif", "ppm", "pgm", "jp2", "heic")
CAPTION_KEYS = ("caption", "text", "title")
_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz")
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"\x28\xb5\x2f\xfd": "unzstd", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz"}
_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Options:
    """No options: members are known by their extensions."""


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the tars; a compressed one is refused, since its members have no byte ranges."""
    found = list_inputs(pattern, _SUFFIXES)
    for one in found:
        _refuse_foreign(one.path)
    return found


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per sample; one without an image has the status image_missing.

    Raises:
        UsageError: the tar is compressed, or none.
        TornFileError: the tar is cut off; whole samples before the cut were yielded.
    """
    _refuse_foreign(input.path)
    with fs.open_read(input.path) as file:
        for row, members in enumerate(_whole_samples(input.path)):
            yield _record(members, row, input, file)


def _whole_samples(path: str) -> Iterator[list[tar.Member]]:
    """Yield samples; before a cut, the last one only if it has all the members that the first one has.

    A sample alone before a cut is not yielded: nothing tells what it should have.
    """
    first: list[tar.Member] = []
    last: list[tar.Member] = []
    with fs.open_read(path) as file:
        try:
            for group in tar.samples(_remembered(tar.walk(file, path), last)):
                first = first or group
                yield group
                del last[: len(group)]
        except TornFileError:
            if first and last and {m.ext for m in last} == {m.ext for m in first}:
                yield last
            raise


def _remembered(members: Iterator[tar.Member], seen: list[tar.Member]) -> Iterator[tar.Member]:
    for member in members:
        if not member.name.rpartition("/")[2].startswith("."):
            seen.append(member)
        yield member


def _record(members: list[tar.Member], row: int, input: Input, file: IO[bytes]) -> Record:
    by_ext = {m.ext.lower(): m for m in reversed(members)}
    image = _first(by_ext, IMAGE_EXTENSIONS)
    extras, problem = _json_member(_first(by_ext, ("json",)), file)
    text = _text(_first(by_ext, ("txt",)), file)
    captions = (text,) if text.strip() else _captions(extras)
    class_index, class_name = _class(_text(_first(by_ext, ("cls",)), file).strip())
    status = "" if image else "image_missing"
    detail = "" if image else "members: " + ", ".join(m.ext for m in members)
    return Record(
        _id(members[0].key, extras, input), captions, row, _urls(extras), Pointer(input.path, image.offset, image.size) if image else None,
        class_index, class_name, storable(extras.get("license") or extras.get("licence")), status, detail or problem,
        meta_json({k: v for k, v in extras.items() if k not in CAPTION_KEYS}),
    )  # fmt: skip


def _first(by_ext: dict[str, tar.Member], wanted: tuple[str, ...]) -> tar.Member | None:
    """Return the member with the first of the wanted extensions; `left.jpg` counts where there is no plain `jpg`."""
    for ext in wanted:
        if ext in by_ext:
            return by_ext[ext]
    return next((m for name, m in sorted(by_ext.items()) if name.rpartition(".")[2] in wanted), None)


def _text(member: tar.Member | None, file: IO[bytes]) -> str:
    if member is None:
        return ""
    file.seek(member.offset)
    return file.read(member.size).decode("utf-8-sig", "replace")


def _json_member(member: tar.Member | None, file: IO[bytes]) -> tuple[dict[str, Any], str]:
    if member is None:
        return {}, ""
    try:
        content = json.loads(_text(member, file), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        return {}, f"{member.name} is no JSON: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"{member.name} holds no object")


def _captions(extras: dict[str, Any]) -> tuple[str, ...]:
    many = extras.get("captions")
    if isinstance(many, list) and many:
        return tuple(map(storable, many))
    for key in CAPTION_KEYS:
        if found := extras.get(key):
            return tuple(map(storable, found)) if isinstance(found, list) else (storable(found),)
    return ()


def _class(label: str) -> tuple[int, str]:
    """Return a `.cls` member as an index, or as a name where it is no number."""
    return (int(label), "") if re.fullmatch(r"\d{1,9}", label, re.ASCII) else (-1, label)


def _urls(extras: dict[str, Any]) -> tuple[str, ...]:
    return (storable(extras["url"]),) if extras.get("url") else ()


def _id(key: str, extras: dict[str, Any], input: Input) -> str:
    for candidate in (key.rpartition("/")[2], extras.get("uid")):
        if isinstance(candidate, str) and _UID.fullmatch(candidate):
            return candidate
    return f"{input.name}/{key}".encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _refuse_foreign(path: str) -> None:
    with fs.open_read(path) as file:
        head = file.read(tar.BLOCK)
    for magic, tool in _COMPRESSED.items():
        if head.startswith(magic):
            raise UsageError(f"{path}: a compressed tar: its samples cannot be read by byte range", "a plain .tar", f"{tool} it first")
    if len(head) == tar.BLOCK and head.strip(b"\0") and not tar.is_header(head):
        raise UsageError(f"{path}: no tar", "a plain .tar", "name another --source")
