"""YFCC100M: Flickr's photos, from the 25- or 23-column TSV or the SQLite file, all of them or those of an id list.

A sample's id is its photo id. Text is URL-encoded in all three (`+` is a space, `%2B` a plus, `%0A` a line feed) and
HTML inside, which cleaning takes away. Captions are title and description in the order that `field` says, so an
empty one falls back to the other; `captions: sampled` draws one of them by uid. `ids` is a list such as the 15M of
CLIP (`yfcc100m_subset_data.tsv.bz2`): only its photos are inputs, and how many of them are there is said. Videos are
`unsupported`. Licence URLs are the samples' licences; owner, tags, place and time go to `meta`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_plus

from curate.sources import _yfcc
from curate.sources._yfcc import Row
from curate.sources.base import Input, Record, list_inputs, looked_at, meta_json
from shards.core.config import option
from shards.core.console import say
from shards.tables.json_records import Bad
from shards.tables.values import storable

VERSION = 2
IMAGES = "pool"
COLUMNS = (("usertags", "list<string>"), ("longitude", "double"), ("latitude", "double"), ("accuracy", "int32"))
_SUFFIXES = (".tsv", ".txt", ".bz2", ".gz", ".sql", ".sqlite", ".sqlite3", ".db")
_URL = re.compile(r"https?://", re.IGNORECASE)
_TEXTS = ("uid", "unickname", "datetaken", "dateuploaded", "capturedevice", "pageurl", "licensename", "hash")


@dataclass(frozen=True)
class Options:
    """Which text is the caption, and which photos are wanted."""

    field: Literal["title", "description", "both"] = option("title", "title or description first (the other if empty), or both in one")
    ids: str = option("", "only the photos of this list: one id per line, or line number, id and hash as CLIP's subset has them")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the metadata files, after a look at each one's first lines; the id list is no metadata.

    Raises:
        UsageError: a file is of another kind, or the id list is none.
    """
    files = list_inputs(pattern, _SUFFIXES)
    if options.ids:
        files = [file for file in files if file.path != options.ids]
        _yfcc.check_ids(options.ids)
    return looked_at(files, _yfcc.sniff)


def beside(input: Input, options: Options) -> list[str]:
    """Return the id list, which decides on the records too."""
    return [options.ids] if options.ids else []


def layout(input: Input, options: Options) -> str:
    """Return the layout of a metadata file in a few words."""
    return _yfcc.sniff(input.path)


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per photo; a malformed line has the status bad_record, a video unsupported.

    Raises:
        UsageError: the file is of another kind.
        TornFileError: it is cut off; the records before were yielded.
    """
    wanted = _yfcc.read_ids(options.ids) if options.ids else None
    met = bytearray(len(wanted)) if wanted is not None else bytearray()
    for number, row in _yfcc.rows(input.path):
        if wanted is not None and isinstance(row, dict):
            place = _place(wanted, row["photoid"])
            if place < 0:
                continue
            met[place] = 1
        yield _record(row, number, input.name, options.field)
    if wanted is not None:
        there = met.count(1)
        say(f"{input.name}: {there:,} of the {len(wanted):,} ids in {options.ids} are there, {len(wanted) - there:,} are not")


def _place(wanted: Sequence[int], photo: str) -> int:
    """Return where an id stands in the sorted list, or -1."""
    if not _yfcc.is_id(photo):
        return -1
    place = bisect_left(wanted, int(photo))
    return place if place < len(wanted) and wanted[place] == int(photo) else -1


def _record(row: Row, number: int, name: str, field: str) -> Record:
    if isinstance(row, Bad):
        return Record(f"{name}:{number}", (storable(row.text),), number, status="bad_record", detail=f"line {number + 1}: {row.why}")
    photo, url, marker = row["photoid"], row["downloadurl"].strip(), row["marker"]
    captions, licence = _captions(row, field), row["licenseurl"] or row["licensename"]
    if not _yfcc.is_id(photo):
        return Record(f"{name}:{number}", captions, number, status="bad_record", detail=f"row {number + 1}: no photo id: {photo[:40]!r}")
    if marker == "1":
        return Record(photo, captions, number, licence=licence, status="unsupported", detail="a video")
    if not _URL.match(url) or marker != "0":
        problem = f"no URL: {url[:80]!r}" if marker == "0" else f"the marker is {marker[:20]!r}, not 0 (photo) or 1 (video)"
        return Record(photo, captions, number, licence=licence, status="bad_record", detail=f"row {number + 1}: {problem}")
    return Record(photo, captions, number, (url,), licence=licence, meta=meta_json(_meta(row)))


def _captions(row: dict[str, str], field: str) -> tuple[str, ...]:
    title, description = decoded(row["title"]), decoded(row["description"])
    if field == "both":
        return (" ".join(text for text in (title, description) if text.strip()),)
    return (title, description) if field == "title" else (description, title)


def decoded(text: str) -> str:
    """Return a field's text. Encoded text has no spaces, so one that has some is decoded already."""
    return storable(text if " " in text else unquote_plus(text, errors="replace"))


def _meta(row: dict[str, str]) -> dict[str, object]:
    values: dict[str, object] = {name: text for name in _TEXTS if (text := decoded(row.get(name, "")))}
    for name in ("usertags", "machinetags"):
        if row[name]:
            values[name] = [decoded(tag) for tag in row[name].split(",")]
    for name in ("longitude", "latitude"):
        if re.fullmatch(r"-?\d{1,3}(\.\d+)?", row[name], re.ASCII):
            values[name] = float(row[name])
    if re.fullmatch(r"\d{1,2}", row["accuracy"], re.ASCII):
        values["accuracy"] = int(row["accuracy"])
    return values
