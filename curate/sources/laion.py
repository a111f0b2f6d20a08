"""LAION and DataComp: parquet parts of URL and alt text with the publishers' scores.

Read are LAION-400M, LAION-2B/5B (base and joined files), Re-LAION and DataComp, their columns in upper or lower case,
and plain URL–text parquet such as img2dataset takes. A sample's id is its URL, a line feed, and its text as
published; DataComp's own uid is kept. NSFW tag, similarities, punsafe, pwatermark, aesthetic score and language stay
columns; sizes, hashes, LAION's ids and DataComp's face boxes go to `meta`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curate.sources import _table
from curate.sources._table import Table, fitted, refuse_swapped
from curate.sources.base import URL, Input, Record, list_inputs, looked_at, meta_json, storable
from shards.core.config import option
from shards.core.errors import UsageError, closest
from shards.sample import UID_RULE

VERSION = 1
IMAGES = "pool"
COLUMNS = (
    ("nsfw", "string"), ("similarity", "double"), ("punsafe", "double"), ("pwatermark", "double"), ("aesthetic", "double"),
    ("language", "string"), ("clip_b32_similarity_score", "double"), ("clip_l14_similarity_score", "double"),
)  # fmt: skip
_EXTRAS = ("sample_id", "key", "hash", "md5", "sha256", "width", "height", "original_width", "original_height", "face_bboxes")
_ALSO_CALLED = {"aesthetic": ("aesthetic", "aesthetic_score"), "sample_id": ("sample_id", "id")}
_TEXT = ("TEXT", "text", "caption")
_ALLOWED = "parquet with the columns URL and TEXT (upper or lower case), as LAION and DataComp publish it"


@dataclass(frozen=True)
class Options:
    """Which column is the caption."""

    caption_column: str = option("", "the column of the caption (default: TEXT, text or caption); ids keep the published text")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the parquet parts, after a look at each one's columns and first rows."""
    return looked_at(list_inputs(pattern, (".parquet",)), lambda path: _sniff(path, options))


def layout(input: Input, options: Options) -> str:
    """Return which of the published layouts a part has, and its columns."""
    table, names = _sniff(input.path, options)
    if "uid" in names:
        kind = "DataComp"
    elif "punsafe" in names:
        kind = "LAION-5B joined" if names["url"].isupper() else "Re-LAION"
    elif "similarity" in names:
        kind = "LAION-400M" if "nsfw" in names else "LAION"
    else:
        kind = "URL and text"
    return f"{kind}: parquet of {', '.join(table.columns)}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per row; one without a URL (or, in DataComp, without a uid) has the status bad_record.

    Raises:
        UsageError: the file is no such parquet.
        TornFileError: it is cut off or damaged; the rows before were yielded.
    """
    table, names = _sniff(input.path, options)
    for row, values in enumerate(table.rows(tuple(dict.fromkeys(names.values())))):
        assert isinstance(values, dict)  # parquet has no bad rows, only bad files
        yield _record({role: values[column] for role, column in names.items()}, row, input.name)


def _sniff(path: str, options: Options) -> tuple[Table, dict[str, str]]:
    """Return the table, and the columns of it that are read, by what they are to us."""
    table = _table.sniff(path, _ALLOWED)
    if table.format != "parquet":
        raise UsageError(f"{path}: a {table.format} file of {table.described}", _ALLOWED, table.advice())
    names = {"url": table.column("URL", "url"), "text": table.column(*_TEXT), "caption": table.column(*_TEXT), "uid": table.column("uid")}
    if options.caption_column:
        names["caption"] = table.column(options.caption_column)
        if not names["caption"]:
            advice = closest(options.caption_column, table.columns)
            raise UsageError(f"{path}: no column {options.caption_column!r}", table.described, advice)
        names["text"] = names["text"] or names["caption"]
    for name in ("nsfw", "license", *(name for name, _ in COLUMNS), *_EXTRAS):
        names[name] = table.column(*_ALSO_CALLED.get(name, (name,)))
    found = f"{path}: its columns are {table.described}"
    if {"status", "key", "error_message"} <= set(table.columns):
        raise UsageError(found, _ALLOWED, "this is a table of img2dataset's output: use --source img2dataset on its folder")
    for role, label in (("url", "URL"), ("text", "TEXT")):
        if not names[role]:
            raise UsageError(f"{found}: there is no {label}", _ALLOWED, table.advice() if role == "url" else "--caption-column NAME")
    names = {role: column for role, column in names.items() if column}
    refuse_swapped(table, names["url"], names["text"], _ALLOWED)
    return table, names


def _record(values: dict[str, Any], row: int, name: str) -> Record:
    url, text, caption = (storable(values.pop(role)) for role in ("url", "text", "caption"))
    url, licence = url.strip(), storable(values.pop("license", "")).strip()
    uid = storable(values["uid"]).lower() if "uid" in values else None
    values.pop("uid", None)
    problem = "" if URL.match(url) else f"no URL: {url[:80]!r}"
    if uid is not None and not UID_RULE.fullmatch(uid):
        problem = f"the uid is not 32 hex digits: {uid[:40]!r}"
    if problem:
        return Record(f"{name}:{row}", (caption,), row, status="bad_record", detail=f"row {row + 1}: {problem}")
    # Sizes are floats where pandas met a null; null and NaN are left out.
    kinds = dict(COLUMNS) | dict.fromkeys(("width", "height", "original_width", "original_height"), "int32")
    extras = {k: fitted(v, kinds[k]) if k in kinds else v for k, v in values.items()}
    kept = {k: v for k, v in extras.items() if v is not None}
    return Record(uid or f"{url}\n{text}", (caption,), row, (url,), licence="" if licence == "?" else licence, meta=meta_json(kept))
