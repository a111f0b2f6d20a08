"""WebDataset tars of anyone, plain or packed: images with `.txt` or `.json` captions, `.cls` classes, or both.

A sample's id is its tar's path relative to the input, a slash, and its key; a uid of 32 hex digits (our own keys,
DataComp's `uid`) is kept. In `.json`, `caption`, `text` or `title` is the caption, and the rest goes to `meta`. Plain
tars are read by byte range; images of packed ones (`.tgz`, `.tar.zst` …) and packed members (`.jpg.gz`) go to the work folder.
Of several texts (`.prompt.txt`, `.negative.txt`) a plain `.txt` is the caption; without one nothing tells, and the sample is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any

from curate.sources import _packed
from curate.sources.base import Input, Pointer, Record, list_inputs, meta_json
from shards import tar
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.sample import UID_RULE
from shards.tables.json_records import parse
from shards.tables.text import decoded
from shards.tables.values import captions_of, label_of, storable

VERSION = 4
IMAGES = "inline"
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jfif", "ppm", "pgm", "jp2", "heic")
CAPTION_KEYS = ("caption", "text", "title")
SNIFFED = 2000
FIRST_SAMPLES = 20
_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Options:
    """No options: members are known by their extensions."""


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the tars, after a look at each one's first block, and at the order and the texts of the first one's members."""
    files = list_inputs(pattern, _SUFFIXES)
    for file in files:
        _refuse_foreign(file.path)
    _refuse_scattered(files[0].path)
    _refuse_several_texts(files[0].path)
    return files


def layout(input: Input, options: Options) -> str:
    """Return what packs the tar, and the members of its first samples."""
    groups: list[list[tar.Member]] = []
    with suppress(TornFileError):  # `read` meets it again, where --bad-files decides
        groups.extend(islice((group for group, _ in _samples(input.path)), FIRST_SAMPLES))
    extensions = list(dict.fromkeys(member.ext for group in groups for member in group))
    packed = _packed.tool(input.path)
    return f"{packed + ' ' if packed else ''}tar of samples with {', '.join(extensions) or 'no members'}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per sample; one without an image has the status image_missing, a name that leads out bad_record.

    Raises:
        UsageError: the file is no tar.
        TornFileError: the tar is cut off; whole samples before the cut were yielded.
    """
    _refuse_foreign(input.path)
    for row, (members, file) in enumerate(_samples(input.path)):
        record = _record(members, row, input, file)
        if record.image and isinstance(file, _packed.Members):
            file.seek(record.image.offset)
            record = replace(record, image=None, content=file.read(record.image.size))
        yield record


def _samples(path: str) -> Iterator[tuple[list[tar.Member], Any]]:
    """Yield the samples of a tar, each with the file that its members' ranges are of."""
    if _packed.tool(path):
        members = _packed.Members(path)
        for group in _whole_samples(members):
            yield group, members
            members.forget(group[-1])
        return
    with fs.open_read(path) as walked, fs.open_read(path) as file:
        for group in _whole_samples(tar.walk(walked, path, hostile=True)):
            yield group, file


def _whole_samples(members: Iterable[tar.Member]) -> Iterator[list[tar.Member]]:
    """Yield samples; before a cut, the last one only if it has all the members that the first one has.

    A sample alone before a cut is not yielded: nothing tells what it should have.
    """
    first: list[tar.Member] = []
    last: list[tar.Member] = []
    try:
        for group in tar.samples(_remembered(members, last)):
            first = first or group
            yield group
            del last[: len(group)]
    except TornFileError:
        if first and last and {m.ext for m in last} == {m.ext for m in first}:
            yield last
        raise


def _remembered(members: Iterable[tar.Member], seen: list[tar.Member]) -> Iterator[tar.Member]:
    for member in members:
        if not member.name.rpartition("/")[2].startswith("."):
            seen.append(member)
        yield member


def _record(members: list[tar.Member], row: int, input: Input, file: IO[bytes]) -> Record:
    hostile = [m.name for m in members if tar.leads_out(m.name)]
    if hostile:
        detail = f"member {storable(hostile[0])!r} leads out of the archive"
        return Record(_id(members[0].key, {}, input), (), row, status="bad_record", detail=detail)
    if texts := _several_texts(members):
        detail = f"several texts, none of them KEY.txt: {storable(', '.join(texts))}"
        return Record(_id(members[0].key, {}, input), (), row, status="bad_record", detail=detail)
    by_ext = {m.ext.lower(): m for m in reversed(members)}
    image = _first(by_ext, IMAGE_EXTENSIONS)
    extras, problem = _json_member(_first(by_ext, ("json",)), file)
    text = _text(_first(by_ext, ("txt",)), file)
    captions = tuple(captions_of(text)) or _captions(extras)
    class_index, class_name = _class(_text(_first(by_ext, ("cls",)), file).strip())
    status = "" if image else "image_missing"
    detail = "" if image else "members: " + ", ".join(m.ext for m in members)
    record = Record(
        _id(members[0].key, extras, input), captions, row, _urls(extras), Pointer(input.path, image.offset, image.size) if image else None,
        class_index, class_name, label_of(extras.get("license") or extras.get("licence")), status, detail or problem,
        meta_json({k: v for k, v in extras.items() if k not in CAPTION_KEYS}),
    )  # fmt: skip
    return _unpacked(record, image, file) if image and image.ext.lower().endswith(".gz") else record


def _unpacked(record: Record, image: tar.Member, file: IO[bytes]) -> Record:
    """Return the record with the content of its gzipped image."""
    file.seek(image.offset)
    content = _packed.gunzip(file.read(image.size), _packed.MOST)
    if content:
        return replace(record, image=None, content=content)
    return replace(record, image=None, status="undecodable", detail=f"{storable(image.name)} does not unpack")


def _first(by_ext: dict[str, tar.Member], wanted: tuple[str, ...]) -> tar.Member | None:
    """Return the member with the first of the wanted extensions, gzipped ones too; `left.jpg` counts where there is no plain `jpg`."""
    for ext in wanted:
        if member := by_ext.get(ext) or by_ext.get(ext + ".gz"):
            return member
    return next((m for name, m in sorted(by_ext.items()) if name.removesuffix(".gz").rpartition(".")[2] in wanted), None)


def _several_texts(members: list[tar.Member]) -> list[str]:
    """Return the endings of a sample's texts where there are several, and none is a plain `txt`: nothing tells which is the caption."""
    texts = dict.fromkeys(m.ext for m in members if m.ext.lower().removesuffix(".gz").rpartition(".")[2] == "txt")
    has_plain = any(ext.lower().removesuffix(".gz") == "txt" for ext in texts)
    return list(texts) if len(texts) > 1 and not has_plain else []


def _text(member: tar.Member | None, file: IO[bytes]) -> str:
    if member is None:
        return ""
    file.seek(member.offset)
    content = file.read(member.size)
    if member.ext.lower().endswith(".gz"):
        content = _packed.gunzip(content, _packed.MOST_TEXT)
    return decoded(content)


def _json_member(member: tar.Member | None, file: IO[bytes]) -> tuple[dict[str, Any], str]:
    if member is None:
        return {}, ""
    try:
        content = parse(_text(member, file))
    except (ValueError, RecursionError) as error:
        return {}, f"{member.name} is no JSON: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"{member.name} holds no object")


def _captions(extras: dict[str, Any]) -> tuple[str, ...]:
    many = extras.get("captions")
    if isinstance(many, list) and many:
        return tuple(captions_of(many))
    for key in CAPTION_KEYS:
        if value := extras.get(key):
            return tuple(captions_of(value))
    return ()


def _class(label: str) -> tuple[int, str]:
    """Return a `.cls` member as an index, or as a name where it is no number."""
    return (int(label), "") if re.fullmatch(r"\d{1,9}", label, re.ASCII) else (-1, label)


def _urls(extras: dict[str, Any]) -> tuple[str, ...]:
    return (storable(extras["url"]).strip(),) if extras.get("url") else ()


def _id(key: str, extras: dict[str, Any], input: Input) -> str:
    for candidate in (key.rpartition("/")[2], extras.get("uid")):
        if isinstance(candidate, str) and UID_RULE.fullmatch(candidate):
            return candidate
    return fs.printable(f"{input.name}/{key}")


def _refuse_foreign(path: str) -> None:
    with fs.open_read(path) as file:
        head = file.read(tar.BLOCK)
    head = _packed.head(path) if _packed.tool(path) else head
    if len(head) == tar.BLOCK and head.strip(b"\0") and not tar.is_header(head):
        raise UsageError(f"{path}: no tar", "a .tar, or one packed by gzip, bzip2, xz or zstd", "name another --source")


def _refuse_several_texts(path: str) -> None:
    """Refuse a tar whose first samples have several texts of which none is the caption by its name."""
    with suppress(TornFileError):  # `read` meets it again, where --bad-files decides
        for group, _ in islice(_samples(path), FIRST_SAMPLES):
            if texts := _several_texts(group):
                found = f"{path}: {storable(group[0].key)} has {len(texts)} texts, {storable(', '.join(texts))}, and no KEY.txt"
                raise UsageError(found, "one text for each sample, or KEY.txt beside others", "rename the captions' members to KEY.txt")


def _refuse_scattered(path: str) -> None:
    """Refuse a tar whose samples' members are not adjacent: every reader of WebDataset would take them for several samples."""
    if _packed.tool(path):
        return
    seen: dict[str, str] = {}
    last = ""
    try:
        with fs.open_read(path) as file:
            for member in islice(tar.walk(file, path, hostile=True), SNIFFED):
                if not member.ext or member.name.rpartition("/")[2].startswith("."):
                    continue  # no member of a sample
                if member.key != last and member.key in seen and member.ext != seen[member.key]:
                    where = f"{member.key}.{seen[member.key]} and {member.key}.{member.ext} are apart"
                    raise UsageError(f"{path}: {storable(where)}", "the members of a sample one after the other", "tar --sort=name")
                last = member.key
                seen.setdefault(member.key, member.ext)
    except TornFileError:
        return  # `read` meets it again, where --bad-files decides
