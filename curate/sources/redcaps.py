"""RedCaps: the official annotation files, one JSON per subreddit and year, and the Hugging Face export of them all.

A sample's id is its `image_id`. Official files are `{"info": …, "annotations": […]}` or the bare list; the export (parquet,
JSON Lines, CSV) has `image_url` for `url`, and the subreddit as a class id whose name the parquet file holds. The caption
is RedCaps' own cleaned one; `field: raw_caption` takes the post's title. Subreddit, score and time stay columns, the
other fields go to `meta`. One `url` may be several: a gallery of Imgur, or addresses side by side; the first that gives
an image wins. Imgur's picture of a removed image is no URL of a sample: such a row is a `placeholder`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from curate.sources import _guess
from curate.sources._table import advice, fitted, refuse_swapped
from curate.sources.base import Input, Record, list_inputs, looked_at, meta_json
from shards.core.config import option
from shards.core.errors import UsageError
from shards.tables import table as tables
from shards.tables.json_records import Bad
from shards.tables.table import Table
from shards.tables.values import id_of, published, storable

VERSION = 3
IMAGES = "pool"
COLUMNS = (("subreddit", "string"), ("score", "int32"), ("created_utc", "int64"))
FIELDS = (
    "image_id", "author", "url", "image_url", "raw_caption", "caption", "subreddit", "score", "created_utc", "permalink",
    "crosspost_parents",
)  # fmt: skip
_LAYOUT = "image_id, url (or image_url), caption"
_NEXT_URL = re.compile(r"\s+(?=https?://)", re.IGNORECASE)
_IMGUR = re.compile(r"https?://(?:[\w-]+\.)?imgur\.com/", re.IGNORECASE)
_REMOVED = re.compile(r"https?://(?:[\w-]+\.)?imgur\.com/removed\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Which of the two captions is taken, and whether the subreddit stands before it."""

    field: Literal["caption", "raw_caption"] = option("caption", "caption (cleaned by RedCaps) or raw_caption (the post's title)")
    with_subreddit: bool = option(False, "put the subreddit before the caption, as RedCaps' authors do in prompts: `itap: …`")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the annotation files, after a look at each one's first records."""
    return looked_at(list_inputs(pattern, tables.SUFFIXES), lambda path: _sniff(path, options))


def layout(input: Input, options: Options) -> str:
    """Return the layout of a file in a few words."""
    table = _sniff(input.path, options)
    official = "the official annotations" if "url" in table.columns else "the Hugging Face export"
    return f"{official}: {table.format} of {', '.join(table.columns)}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per annotation; one without id or URL has the status bad_record.

    Raises:
        UsageError: the file is not RedCaps', or has no such caption field.
        TornFileError: the file is cut off; what stands before was yielded.
    """
    table = _sniff(input.path, options)
    names = table.classes.get("subreddit", [])
    for row, item in enumerate(table.rows(tuple(c for c in table.columns if c in FIELDS))):
        if isinstance(item, Bad):
            yield Record(f"{input.name}:{row}", (storable(item.text),), row, status="bad_record", detail=item.why)
        else:
            yield _record(dict(item), row, input.name, options, names)


def _sniff(path: str, options: Options) -> Table:
    table = tables.sniff(path, f"RedCaps' annotations: {_LAYOUT}", "annotations")
    if not table.columns:
        return table
    problem, columns = f"{path}: its records have {table.described}", set(table.columns)
    if {"id", "image_id"} <= columns and not {"url", "image_url"} & columns:
        raise UsageError(f"{problem}: this looks like COCO captions", _LAYOUT, "use --source folder --captions-file")
    for name in ("image_id", "url", options.field):
        if name in table.repeated:
            table.column(name)  # says which columns have the same name
        if name not in columns and not (name == "url" and "image_url" in columns):
            ours = _guess.by_columns(columns) == "redcaps"
            raise UsageError(f"{problem}: there is no {name!r}", f"RedCaps' {_LAYOUT}", "" if ours else advice(table))
    refuse_swapped(table, "url" if "url" in columns else "image_url", options.field, f"RedCaps' {_LAYOUT}")
    if options.with_subreddit:
        _refuse_nameless(table, problem)
    return table


def _refuse_nameless(table: Table, problem: str) -> None:
    if "subreddit" not in table.columns:
        raise UsageError(f"{problem}: there is no 'subreddit'", f"RedCaps' {_LAYOUT}, subreddit", "leave out --with-subreddit")
    if not table.classes.get("subreddit") and any(storable(row.get("subreddit")).isdigit() for row in table.first(("subreddit",))):
        way = "the export as parquet holds the names"
        raise UsageError(f"{table.path}: subreddits are class ids without names", "names of subreddits", way)


def _record(fields: dict[str, Any], row: int, name: str, options: Options, names: list[str]) -> Record:
    image_id, listed = id_of(fields.pop("image_id", "")), fields.pop("url", None) or fields.pop("image_url", None)
    addresses = [u for text in (listed if isinstance(listed, list) else [listed]) for u in urls_of(storable(text))]
    urls = tuple(u for u in addresses if not _REMOVED.match(u))
    captions = published(fields.pop(options.field, ""))
    fields["subreddit"] = _subreddit(fields.get("subreddit"), names)
    if options.with_subreddit and fields["subreddit"]:
        captions = tuple(f"{fields['subreddit']}: {caption}" if caption.strip() else "" for caption in captions)
    if image_id and addresses and not urls:
        return Record(image_id, captions, row, status="placeholder", detail=f"{addresses[0]}: Imgur's picture of a removed image")
    if not image_id or not urls:
        missing = "no image_id" if not image_id else "no url"
        return Record(image_id or f"{name}:{row}", captions, row, urls, status="bad_record", detail=missing)
    time = fields.get("created_utc")
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day, tzinfo=UTC)
    if isinstance(time, datetime):  # the export's; the annotations have seconds since 1970
        fields["created_utc"] = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    fields |= {column: fitted(fields.get(column), kind) for column, kind in COLUMNS}
    return Record(image_id, captions, row, urls, meta=meta_json({k: v for k, v in fields.items() if v is not None}))


def urls_of(text: str) -> list[str]:
    """Return the URLs of a field: one as it stands, several side by side, or an Imgur gallery `http://i.imgur.com/a,b,c`."""
    urls = []
    for piece in _NEXT_URL.split(text):
        if _IMGUR.match(piece) and "," in piece:
            base = "http://i.imgur.com/"
            parts = [_IMGUR.sub("", part.strip()) for part in piece.split(",")]
            urls += [base + _with_extension(re.split(r"[?#%]", part)[0]) for part in parts if part]
        elif piece:
            urls.append(piece)
    return list(dict.fromkeys(urls))


def _with_extension(name: str) -> str:
    return name if "." in name else f"{name}.jpg"


def _subreddit(value: Any, names: list[str]) -> str | None:
    text = storable(value)
    return names[int(text)] if names and text.isdigit() and int(text) < len(names) else text or None
