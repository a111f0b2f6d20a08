"""Any table of images and captions, whatever its columns are called: CSV and its kin, JSON, JSON Lines, parquet.

`--url-column` (then `curate fetch`, and `--images POOL`) or `--image-column` (paths beside the table, base64, data URIs, bytes),
`--caption-column` and `--id-column` name the columns, or a map `columns`; common names are found without. In a table without a
header a column is named by its number from 1 on; `a.b` reaches into JSON. A sample's id is the value of its id column, else its URL, a
line feed, and its caption, else its image's path, else the table's name and the row's number. Other columns go to `meta`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curate.sources import _inline
from curate.sources._table import advice, column_of
from curate.sources.base import URL, Input, Pointer, Record, list_inputs, looked_at, meta_json
from shards.caption_files import CAPTION_COLUMNS, LICENCE_COLUMNS
from shards.core import fs
from shards.core.config import option
from shards.core.errors import UsageError, closest
from shards.tables import table as tables
from shards.tables.json_records import Bad
from shards.tables.table import Table
from shards.tables.values import id_of, label_of, published, storable, value_of

VERSION = 1
IMAGES = "either"
# The usual names of each role's column, letter case and punctuation aside.
NAMES = {
    "url": ("url", "imageurl", "imgurl", "imagelink", "link", "photourl", "originalurl", "downloadurl", "src", "uri"),
    "image": (
        "image",
        "imagepath",
        "imagefile",
        "filename",
        "filepath",
        "file",
        "path",
        "img",
        "imagename",
        "jpg",
        "png",
        "base64",
        "bytes",
    ),
    "caption": (*CAPTION_COLUMNS, "alttext", "alt", "prompt"),
    "id": (),
    "licence": LICENCE_COLUMNS,
}
_ALLOWED = "a table with a column of URLs or images, and one of captions"


@dataclass(frozen=True)
class Options:
    """Which column is what, where its name does not say so."""

    url_column: str = option("", "the column of the images' URLs")
    image_column: str = option("", "the column of the images: paths, base64, data URIs or bytes")
    caption_column: str = option("", "the column of the captions: a text, or a list of texts")
    id_column: str = option("", "the column of the ids (default: URL and caption, else the image's path)")
    columns: dict[str, str] = option({}, f"the same as a map: url=NAME caption=NAME; roles: {', '.join(NAMES)}")
    image_root: str = option("", "the folder that images' paths are relative to (default: the table's)")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the tables, after a look at each one's columns."""
    return looked_at(list_inputs(pattern, tables.SUFFIXES), lambda path: _sniff(path, options))


def layout(input: Input, options: Options) -> str:
    """Return the format, and what each column is taken for."""
    table, names = _sniff(input.path, options)
    header = " without a header" if table.headless else ""
    return f"{table.format} table{header}: {', '.join(f'{role} {name!r}' for role, name in names.items())}"


def columns(input: Input, options: Options) -> list[str]:
    """Return the columns that have no role."""
    table, names = _sniff(input.path, options)
    return [name for name in table.columns if name not in names.values()]


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per row; one without an image has the status image_missing.

    Raises:
        UsageError: a column is not there.
        TornFileError: the file is cut off; what stands before was yielded.
    """
    table, names = _sniff(input.path, options)
    root = options.image_root or input.path.rpartition("/")[0] or "."
    for row, item in enumerate(table.rows()):
        if isinstance(item, Bad):
            yield Record(f"{input.name}:{row}", (storable(item.text),), row, status="bad_record", detail=f"record {row + 1}: {item.why}")
        else:
            yield _record(item, names, row, f"{input.name}:{row}", root)


def _sniff(path: str, options: Options) -> tuple[Table, dict[str, str]]:
    """Return the table, and the column of each role that has one.

    Raises:
        UsageError: no table, or a column that was asked for, or is needed, is not there; the message has the columns.
    """
    if unknown := [role for role in options.columns if role not in NAMES]:
        raise UsageError(f"columns: {unknown[0]!r}", ", ".join(NAMES), closest(unknown[0], NAMES))
    table = tables.sniff(path, _ALLOWED)
    if not table.columns:
        return table, {}  # an empty file
    asked = {role: getattr(options, f"{role}_column", "") or options.columns.get(role, "") for role in NAMES}
    names: dict[str, str] = {}
    for role, usual in NAMES.items():
        name = _asked(table, asked[role]) if asked[role] else _usual(table, usual)
        if name and (asked[role] or name not in names.values()):
            names[role] = name
    if asked["url"] and not asked["image"]:
        names.pop("image", None)
    elif asked["image"] and not asked["url"]:
        names.pop("url", None)
    if table.headless and not any(asked.values()):
        way = "--url-column NUMBER --caption-column NUMBER"
        raise UsageError(f"{path}: its columns have no names", table.described, way)
    missing = [role for role in ("url", "caption") if role not in names and not (role == "url" and "image" in names)]
    if missing:
        guessed = advice(table)
        way = (
            guessed
            if "another" not in guessed
            else f"--{missing[0]}-column NAME" + (" or --image-column NAME" if missing[0] == "url" else "")
        )
        problem = f"{path}: its columns are {table.described}: none is known to be the {missing[0]}"
        raise UsageError(problem, _ALLOWED, way)
    return table, names


def _asked(table: Table, name: str) -> str:
    outer = column_of(table, name)
    return name if outer != name and outer in table.columns else table.asked(name)


def _usual(table: Table, usual: tuple[str, ...]) -> str:
    """Return the first column with one of the usual names; two columns of that one name are refused."""
    plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(table.columns)}
    normalised = next((plain[name] for name in usual if name in plain), "")
    return table.column(normalised) if normalised else ""


def _record(cells: dict[str, Any], names: dict[str, str], row: int, place: str, root: str) -> Record:
    values = {role: value_of(cells, name) for role, name in names.items()}
    captions = published(values.get("caption"))
    urls, image, content, problem = _image(values, root)
    path = storable(values["image"])[:500] if image is not None else ""
    native_id = id_of(values["id"]) if values.get("id") is not None else ""
    source_id = native_id or (f"{urls[0]}\n{captions[0]}" if urls else path or place)
    if "id" in names and not native_id:
        return Record(place, captions, row, status="bad_record", detail=f"record {row + 1}: no {names['id']!r}")
    status = "bad_record" if problem else "" if urls or image or content else "image_missing"
    detail = f"record {row + 1}: {problem or 'no image'}" if status else ""
    extras = {key: value for key, value in cells.items() if key not in names.values()}
    licence = label_of(values.get("licence"))
    return Record(
        source_id, captions, row, urls, image, licence=licence, status=status, detail=detail, meta=meta_json(extras), content=content
    )


def _image(values: dict[str, Any], root: str) -> tuple[tuple[str, ...], Pointer | None, bytes, str]:
    """Return a row's URLs, its image's place, its image's bytes, and what is wrong with it; all may be empty."""
    listed = values.get("url")
    urls = [storable(cell).strip() for cell in (listed if isinstance(listed, list) else [listed])]
    if wrong := [url for url in urls if url and not URL.match(url) and not _inline.is_inline(url)]:
        return (), None, b"", f"no URL: {wrong[0][:80]!r}"
    held = values.get("image")
    if held is None or held == "":
        held = next((url for url in urls if _inline.is_inline(url)), None)
    web = tuple(url for url in urls if URL.match(url))
    if isinstance(held, dict):
        held = held.get("bytes") or held.get("path") or held.get("url")
    if isinstance(held, bytes) and held[:5].lower() not in (b"http:", b"https", b"data:"):
        return web, None, held, ""
    text = storable(held).strip()
    if _inline.is_inline(text):
        content = _inline.decoded(text)
        return web, None, content, "" if content else f"base64 that is no picture: {text[:40]!r}"
    if URL.match(text):
        return (*web, text), None, b"", ""
    if not text:
        return web, None, b"", ""
    if "\0" in text or ".." in text.split("/"):
        return web, None, b"", f"a path that leads out of the folder: {text[:80]!r}"
    return web, Pointer(text if text.startswith("/") or fs.is_remote(text) else fs.join(root, text)), b"", ""
