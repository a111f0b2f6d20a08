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

from curate.sources._table import advice, fitted, refuse_swapped
from curate.sources.base import URL, Input, Record, list_inputs, looked_at, meta_json
from shards.core.config import option
from shards.core.errors import UsageError
from shards.tables.table import Table, sniff
from shards.tables.values import digest_text, label_of, published, storable, uid_of_value

VERSION = 2
IMAGES = "pool"
COLUMNS = (
    ("nsfw", "string"), ("similarity", "double"), ("punsafe", "double"), ("pwatermark", "double"), ("aesthetic", "double"),
    ("language", "string"), ("clip_b32_similarity_score", "double"), ("clip_l14_similarity_score", "double"),
)  # fmt: skip
_EXTRAS = ("sample_id", "key", "hash", "md5", "sha256", "width", "height", "original_width", "original_height", "face_bboxes")
_ALSO_CALLED = {"aesthetic": ("aesthetic", "aesthetic_score"), "sample_id": ("sample_id", "id")}
_DIGESTS = {"md5": 16, "sha256": 32}  # bytes of each, where a column holds them raw
_TEXT = ("TEXT", "text", "caption")
_ALLOWED = "parquet with the columns URL and TEXT (upper or lower case), as LAION and DataComp publish it"


@dataclass(frozen=True)
class Options:
    """Which columns are URL and caption."""

    url_column: str = option("", "the column of the URL (default: URL)")
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
    table = sniff(path, _ALLOWED)
    if table.format != "parquet":
        raise UsageError(f"{path}: a {table.format} file of {table.described}", _ALLOWED, advice(table))
    names = _roles(table, options)
    problem = f"{path}: its columns are {table.described}"
    if {"status", "key", "error_message"} <= set(table.columns):
        raise UsageError(problem, _ALLOWED, "this is a table of img2dataset's output: use --source img2dataset on its folder")
    for role, label in (("url", "URL"), ("text", "TEXT")):
        if not names[role]:
            raise UsageError(f"{problem}: there is no {label}", _ALLOWED, _way(table) if role == "url" else "--caption-column NAME")
    names = {role: column for role, column in names.items() if column}
    refuse_swapped(table, names["url"], names["text"], _ALLOWED)
    return table, names


def _roles(table: Table, options: Options) -> dict[str, str]:
    """Return the column of each role, an empty text where there is none."""
    names = {"url": table.asked(options.url_column) if options.url_column else table.column("URL", "url")}
    if options.caption_column:
        names["caption"] = table.asked(options.caption_column)
        repeated = table.repeated.intersection(_TEXT)
        names["text"] = names["caption"] if repeated else table.column(*_TEXT) or names["caption"]
    else:
        names["caption"] = names["text"] = table.column(*_TEXT)
    for name in ("uid", "nsfw", "license", *(name for name, _ in COLUMNS), *_EXTRAS):
        names[name] = table.column(*_ALSO_CALLED.get(name, (name,)))
    return names


def _way(table: Table) -> str:
    """Return which source the file looks like, or how to name the columns."""
    guessed = advice(table)
    return guessed if "another" not in guessed else "--url-column NAME --caption-column NAME"


def _record(values: dict[str, Any], row: int, name: str) -> Record:
    url, text = (storable(values.pop(role)) for role in ("url", "text"))
    url, licence, native = url.strip(), label_of(values.pop("license", "")), values.pop("uid", None)
    captions = published(values.pop("caption"))
    uid = uid_of_value(native) if native is not None else ""
    problem = "" if URL.match(url) else f"no URL: {url[:80]!r}"
    if native is not None and not uid:
        problem = f"the uid is not 32 hex digits: {storable(native)[:40]!r}"
    if problem:
        return Record(f"{name}:{row}", captions, row, status="bad_record", detail=f"row {row + 1}: {problem}")
    values |= {key: digest_text(values[key], size) for key, size in _DIGESTS.items() if values.get(key) is not None}
    # Sizes are floats where pandas met a null; null and NaN are left out.
    kinds = dict(COLUMNS) | dict.fromkeys(("width", "height", "original_width", "original_height"), "int32")
    extras = {k: fitted(v, kinds[k]) if k in kinds else v for k, v in values.items()}
    kept = {k: v for k, v in extras.items() if v is not None}
    return Record(uid or f"{url}\n{text}", captions, row, (url,), licence="" if licence == "?" else licence, meta=meta_json(kept))
