"""Shutterstock: the headerless TSV url⇥caption, or a licensed export with a header: CSV, TSV, JSON, JSON Lines, parquet.

An export has the columns of Shutterstock's API, or others that `columns` maps: id, url (the preview), caption (the
description), keywords, categories, contributor, media_type, is_editorial, is_adult; `assets.preview.url` reaches into
JSON. A sample's id is the export's own, else its URL, a line feed, and its caption. Captions are description and
keywords in the order that `field` says, so an empty one falls back to the other. Videos are `unsupported`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from curate.sources import _guess, _tsv
from curate.sources._table import column_of, fitted, refuse_swapped
from curate.sources.base import URL, Input, Record, list_inputs, looked_at, meta_json
from shards.core.config import option
from shards.core.errors import UsageError, closest
from shards.tables import table as tables
from shards.tables.json_records import Bad
from shards.tables.table import Table
from shards.tables.values import captions_of, id_of, storable, value_of

VERSION = 2
IMAGES = "pool"
COLUMNS = (
    ("media_type", "string"), ("is_editorial", "bool"), ("is_adult", "bool"), ("contributor", "string"), ("categories", "list<string>"),
)  # fmt: skip
# What each column is called in exports: the API's names first.
NAMES = {
    "id": ("id", "image_id", "asset_id", "shutterstock_id", "videoid"),
    "url": ("preview_url", "url", "image_url", "contentUrl", "assets.preview.url"),
    "caption": ("description", "caption", "title", "name"),
    "keywords": ("keywords", "tags"),
    "categories": ("categories", "category"),
    "contributor": ("contributor", "contributor_id", "contributor_name"),
    "media_type": ("media_type", "image_type", "kind", "type"),
    "is_editorial": ("is_editorial", "editorial"),
    "is_adult": ("is_adult", "mature_content", "mature content"),
}
_ALLOWED = "url⇥caption without a header, or an export with columns for url and caption"
_VIDEO = re.compile(r"\.(mp4|mov|webm|avi|m4v)([?#]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Which text is the caption, and which columns an export has."""

    field: Literal["description", "keywords", "both"] = option(
        "description", "description or keywords first (the other if empty), or both in one"
    )
    columns: dict[str, str] = option({}, "what an export calls a column: caption=title url=preview")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the metadata files, after a look at each one's first lines."""
    return looked_at(list_inputs(pattern, (*tables.SUFFIXES, *_tsv.SUFFIXES)), lambda path: _sniff(path, options))


def layout(input: Input, options: Options) -> str:
    """Return the layout of a file in a few words."""
    table, names = _sniff(input.path, options)
    if table is None:
        return "headerless TSV: url⇥caption"
    return f"{table.format} export: {', '.join(f'{role} = {name}' for role, name in names.items())}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per row; one without a URL has the status bad_record, a video unsupported.

    Raises:
        UsageError: the file is no such metadata, or lacks a column.
        TornFileError: the file is cut off; what stands before was yielded.
    """
    table, names = _sniff(input.path, options)
    if table is None:
        yield from _tsv.read(input.path, input.name, "shutterstock")
        return
    for row, item in enumerate(table.rows(tuple(dict.fromkeys(column_of(table, name) for name in names.values())))):
        if isinstance(item, Bad):
            yield Record(f"{input.name}:{row}", (storable(item.text),), row, status="bad_record", detail=f"record {row + 1}: {item.why}")
        else:
            yield _record({role: value_of(item, name) for role, name in names.items()}, row, input.name, options.field)


def _sniff(path: str, options: Options) -> tuple[Table | None, dict[str, str]]:
    """Return the export with its columns by what they are to us; no table for the headerless TSV."""
    table = tables.sniff(path, _ALLOWED, "data")  # the key of the API's answers
    if table.format in ("csv", "tsv") and not options.columns and (not table.columns or table.headless):
        _tsv.layout(path, "shutterstock")  # refuses what is none
        if options.field != "description":
            raise UsageError(f"{path}: url⇥caption has no keywords", "field: description", "leave out --field")
        return None, {}
    if not table.columns:
        return table, {}  # an empty or torn file
    return table, _names(table, options)


def _names(table: Table, options: Options) -> dict[str, str]:
    """Return the column of each role.

    Raises:
        UsageError: an unknown role or column in `columns`, or no column for URL or caption.
    """
    if unknown := [role for role in options.columns if role not in NAMES]:
        raise UsageError(f"columns: {unknown[0]!r}", ", ".join(NAMES), closest(unknown[0], NAMES))
    names = {}
    for role, known in NAMES.items():
        asked = options.columns.get(role, "")
        if asked and (asked.isdigit() or asked in table.columns):
            names[role] = table.asked(asked)
            continue
        for name in (asked,) if asked else known:
            column, (outer, dot, inner) = table.column(name), name.partition(".")
            if not column and dot and (outer := table.column(outer)):
                column = f"{outer}.{inner}"
            if column:
                names[role] = column
                break
        else:
            if role in options.columns:
                missing = options.columns[role]
                raise UsageError(f"{table.path}: no column {missing!r}", table.described, closest(missing, table.columns))
    wanted = {"description": ("caption",), "keywords": ("keywords",), "both": ("caption", "keywords")}[options.field]
    if absent := [role for role in ("url", *wanted) if role not in names]:
        foreign = (guess := _guess.by_columns(table.columns)) not in ("", "shutterstock")
        problem = f"{table.path}: its columns are {table.described}: none is the {absent[0]}"
        raise UsageError(problem, _ALLOWED, _guess.advice(guess) if foreign else f"--columns {absent[0]}=NAME")
    refuse_swapped(table, names["url"], names.get("caption", names["url"]), _ALLOWED)
    return names


def _record(values: dict[str, Any], row: int, name: str, field: str) -> Record:
    url, native = storable(values.pop("url", "")).strip(), values.pop("caption", "")
    caption, texts = storable(native), captions_of(native)
    keywords, native_id = _words(values.pop("keywords", None)), id_of(values.pop("id", ""))
    captions = _captions(texts, ", ".join(keywords), field)
    if not URL.match(url):
        return Record(native_id or f"{name}:{row}", captions, row, status="bad_record", detail=f"record {row + 1}: no URL: {url[:80]!r}")
    source_id = native_id or f"{url}\n{caption}"
    kind = storable(values.get("media_type")).lower()
    if "video" in kind or "footage" in kind or _VIDEO.search(url):
        return Record(source_id, captions, row, (url,), status="unsupported", detail="a video")
    extras = {
        "keywords": keywords, "categories": _words(values.get("categories")), "media_type": kind,
        "contributor": _label(values.get("contributor")),
        **{name: fitted(values.get(name), "bool") for name in ("is_editorial", "is_adult")},
    }  # fmt: skip
    return Record(source_id, captions, row, (url,), meta=meta_json({k: v for k, v in extras.items() if v not in (None, "", [])}))


def _captions(texts: list[str], keywords: str, field: str) -> tuple[str, ...]:
    if field == "both":
        return (" ".join(text for text in (*texts, keywords) if text.strip()),)
    captions = (*texts, keywords) if field == "description" else (keywords, *texts)
    return tuple(text for text in captions if text.strip()) or ("",)


def _words(value: Any) -> list[str]:
    """Return a list of words: a JSON list of texts or of objects with a name, or text with commas or semicolons."""
    parts = value if isinstance(value, list) else re.split(r"[,;|]", storable(value))
    return [text for part in parts if (text := _label(part))]


def _label(value: Any) -> str:
    """Return a value's text; of an object its name, else its id."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("display_name") or value.get("id")
    return id_of(value)
