"""Hugging Face data sets on disk: a folder of `save_to_disk`, or parquet or Arrow files with images and texts.

A sample's id is the value of `id_column`, else the number of its row in the split. Images are {bytes, path} structs,
bytes, paths, or URLs (then `curate fetch`, and `--images POOL`). A caption column holds a text or a list of texts; a
ClassLabel column gives classes, and captions by `--template` where there is no text. Other plain columns go to `meta`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curate.sources import _datasets
from curate.sources.base import Input, Pointer, Record, looked_at, meta_json, storable
from shards.caption_files import CAPTION_COLUMNS, LICENCE_COLUMNS
from shards.core import fs
from shards.core.config import option
from shards.core.errors import TornFileError, UsageError, closest

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
IMAGES = "either"
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "imagepath", "filename", "filepath", "file", "path", "imageurl", "url")
URL_COLUMNS = ("url", "imageurl", "imgurl", "originalurl")
FURTHER_CAPTIONS = ("alttext", "alt", "sentences", "rawcaption", "prompt")
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Which split and which columns, where sniffing does not do."""

    split: str = option("", "the split, where there are several")
    image_column: str = option("", "the column of the images")
    caption_column: str = option("", "the column of the captions")
    label_column: str = option("", "the column of the classes (default: the only ClassLabel)")
    id_column: str = option("", "the column of the ids (default: the row's number)")


@dataclass(frozen=True)
class Columns:
    """What a file's columns are. `kind` says what the image column holds: struct, bytes or text."""

    image: str
    kind: str
    caption: str
    many: bool
    label: str
    classes: tuple[str, ...]
    id: str
    url: str
    licence: str
    extras: tuple[str, ...]


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the files of the split, after a look at each one's columns."""
    return looked_at(_datasets.inputs(pattern, options.split), lambda path: columns_of(path, options))


def layout(input: Input, options: Options) -> str:
    """Return the container and what each column is taken for."""
    columns = columns_of(input.path, options)
    holds = {"struct": "bytes and paths", "bytes": "bytes"}.get(columns.kind) or _text_holds(input.path, columns.image)
    parts = [
        f"image {columns.image!r} ({holds})",
        f"caption {columns.caption!r}{' (lists)' if columns.many else ''}" if columns.caption else "",
    ]
    parts.append(f"class {columns.label!r} ({len(columns.classes):,} names)" if columns.label else "")
    parts.append(f"id {columns.id!r}" if columns.id else "id: row number")
    kind = "parquet" if input.path.endswith(".parquet") else "Arrow"
    return f"{kind}: " + ", ".join(filter(None, parts))


def _text_holds(path: str, column: str) -> str:
    """Say what a column of texts holds, by its first value."""
    with suppress(TornFileError):
        for batch, _, _ in _datasets.batches(path, [column]):
            for value in filter(None, _values(batch.column(column))):
                return "URLs: curate fetch, then --images POOL" if _URL.match(value) else "paths"
    return "nothing"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per row; one without an image has the status image_missing.

    Raises:
        UsageError: the columns are not there, or of another kind.
        TornFileError: the file is cut off; batches of rows before the cut were yielded.
    """
    columns = columns_of(input.path, options)
    single = (columns.caption, columns.label, columns.id, columns.url, columns.licence, *columns.extras)
    wanted = list(dict.fromkeys(filter(None, (columns.image, *single))))
    row = 0
    for batch, start, stop in _datasets.batches(input.path, wanted):
        values = {name: _values(batch.column(name)) for name in wanted if name != columns.image or columns.kind == "text"}
        images = _images(batch.column(columns.image), columns, (start, stop), input.path)
        for i, image in enumerate(images):
            yield _record(image, {name: found[i] for name, found in values.items()}, row, input, columns)
            row += 1


def _record(image: Record, values: dict[str, Any], row: int, input: Input, columns: Columns) -> Record:
    """Return the record of a row; `image` is one that has only the image's fields."""
    native = values.get(columns.id) if columns.id else input.first + row
    if native is None or native == "":
        return Record(f"{input.name}:{row}", (), row, status="bad_record", detail=f"no {columns.id!r}")
    found = values.get(columns.caption) if columns.caption else None
    captions = tuple(storable(c) for c in found if c is not None) if isinstance(found, list) else (storable(found),) if found else ()
    index, name = _class(values.get(columns.label) if columns.label else None, columns.classes)
    urls = (storable(values[columns.url]),) if columns.url and values.get(columns.url) else image.urls
    extras = meta_json(
        {key: values[key] for key in columns.extras if values[key] is not None and values[key] == values[key]}
    )  # NaN is no JSON
    return replace(
        image, source_id=storable(native), captions=captions, row=row, urls=urls, class_index=index, class_name=name,
        licence=storable(values.get(columns.licence)) if columns.licence else "", meta=extras,
    )  # fmt: skip


def _class(label: Any, classes: tuple[str, ...]) -> tuple[int, str]:
    """Return a class's number and name; -1 is Hugging Face's word for an image without a class."""
    if isinstance(label, str):
        return -1, storable(label)
    if not isinstance(label, int) or label < 0:
        return -1, ""
    return label, classes[label] if label < len(classes) else str(label)


def _images(column: pa.Array, columns: Columns, mapped: tuple[int, int], path: str) -> Iterator[Record]:
    """Yield for each row a record with the image's fields alone."""
    if columns.kind == "text":
        yield from (_of_path(value, path) for value in _values(column))
        return
    held = column.field("bytes") if columns.kind == "struct" else column
    there = column.is_valid().to_pylist()
    paths = _values(column.field("path")) if columns.kind == "struct" and column.type.get_field_index("path") >= 0 else [None] * len(column)
    places = _datasets.ranges(held, *mapped)
    for i, known in enumerate(paths):
        place = places[i] if places else None
        content = b"" if places or not there[i] else held[i].as_py()
        if there[i] and place and place[1]:
            yield Record("", (), 0, image=Pointer(path, *place))
        elif there[i] and content:
            yield Record("", (), 0, content=content)
        else:
            yield _of_path(known if there[i] else None, path)


def _of_path(value: Any, table: str) -> Record:
    """Return the image that a path or a URL in a table means; relative paths are relative to the table's folder."""
    text = storable(value)
    if not text:
        return Record("", (), 0, status="image_missing", detail="the row has no image")
    if _URL.match(text):
        return Record("", (), 0, (text,), detail="the image is a URL: `curate fetch` it, then --images POOL")
    folder = table.rpartition("/")[0] or "."
    if "://" in text or ".." in text.split("/") or "\0" in text:
        return Record("", (), 0, status="image_missing", detail=f"no file beside the table: {text[:200]!r}")
    path = fs.join(folder, text)
    found = path if fs.exists(path) else fs.join(folder.rpartition("/")[0] or ".", text)
    return Record("", (), 0, image=Pointer(found if fs.exists(found) else path))


def _values(column: pa.Array) -> list[Any]:
    """Return a column as Python values; text that is no UTF-8 has U+FFFD where it is broken."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        raw = column.cast(pa.list_(pa.binary()) if listed else pa.binary()).to_pylist()
        return [[_decoded(v) for v in value] if isinstance(value, list) else _decoded(value) for value in raw]


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def columns_of(path: str, options: Options) -> Columns:
    """Return what the columns of a file are.

    Raises:
        UsageError: a column that was asked for is not there or of another kind; no image or caption column, or several.
        TornFileError: the file cannot be read.
    """
    schema = _datasets.schema_of(path)
    kinds = {name: _kind(schema.field(name).type) for name in schema.names}
    shown = f"{path}: its columns are " + (", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none")
    image = _image_column(kinds, options.image_column, shown)
    features = _features(schema)
    labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    label = options.label_column or (labels[0] if len(labels) == 1 else "")
    caption = _caption_column(kinds, options.caption_column, shown, needed=not label, but=image)
    for asked, holds in ((options.label_column, ("number", "text")), (options.id_column, ("text", "number"))):
        _demand(kinds, asked, holds, shown)
    url = _usual(kinds, URL_COLUMNS, ("text",), image)
    licence = _usual(kinds, LICENCE_COLUMNS, ("text",))
    taken = {image, caption, label, options.id_column, url, licence}
    extras = tuple(name for name, kind in kinds.items() if kind in ("text", "number", "flag") and name not in taken)
    classes = tuple(map(str, (features.get(label) or {}).get("names") or ()))
    held = {"bytes": "bytes", "text": "text"}.get(kinds[image], "struct")
    return Columns(image, held, caption, kinds.get(caption) == "texts", label, classes, options.id_column, url, licence, extras)


def _image_column(kinds: dict[str, str], asked: str, shown: str) -> str:
    if asked:
        return _demand(kinds, asked, ("image", "bytes", "text"), shown)
    images = [name for name, kind in kinds.items() if kind == "image"]
    if len(images) > 1:
        raise UsageError(f"{shown}: several hold images", ", ".join(images), f"--image-column {images[0]}")
    found = images[0] if images else _usual(kinds, IMAGE_COLUMNS, ("bytes",)) or _usual(kinds, IMAGE_COLUMNS, ("text",))
    if not found:
        raise UsageError(f"{shown}: none holds images", "{bytes, path} structs, bytes, paths or URLs", "--image-column NAME")
    return found


def _caption_column(kinds: dict[str, str], asked: str, shown: str, *, needed: bool, but: str) -> str:
    if asked:
        return _demand(kinds, asked, ("text", "texts"), shown)
    found = _usual(kinds, (*CAPTION_COLUMNS, *FURTHER_CAPTIONS), ("text", "texts"), but)
    if not found and needed:
        raise UsageError(f"{shown}: none is known to hold captions", "texts, or lists of texts", "--caption-column NAME")
    return found


def _demand(kinds: dict[str, str], asked: str, holds: tuple[str, ...], shown: str) -> str:
    if asked and asked not in kinds:
        raise UsageError(f"{shown}: there is no {asked!r}", ", ".join(kinds), closest(asked, kinds))
    if asked and kinds[asked] not in holds:
        fitting = [name for name, kind in kinds.items() if kind in holds]
        raise UsageError(f"{shown}: {asked!r} holds {kinds[asked]}", ", ".join(fitting) or f"a column of {' or '.join(holds)}")
    return asked


def _usual(kinds: dict[str, str], names: tuple[str, ...], holds: tuple[str, ...], but: str = "") -> str:
    """Return the column with the first of the usual names, letter case and punctuation aside."""
    plain = {re.sub(r"[^a-z0-9]", "", n.lower()): n for n in reversed(kinds) if kinds[n] in holds and n != but}
    return next((plain[name] for name in names if name in plain), "")


def _kind(kind: pa.DataType) -> str:
    """Return what a type holds: image, bytes, text, texts, number, flag or other."""
    import pyarrow.types as t

    if t.is_dictionary(kind):
        kind = kind.value_type
    if t.is_struct(kind):
        at = kind.get_field_index("bytes")
        return "image" if at >= 0 and _kind(kind.field(at).type) == "bytes" else "other"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return "bytes"
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "text"
    if t.is_list(kind) or t.is_large_list(kind):
        return "texts" if _kind(kind.value_type) == "text" else "other"
    return "flag" if t.is_boolean(kind) else "number" if t.is_integer(kind) or t.is_floating(kind) else "other"


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the features that `datasets` notes in a schema; none in a file of other origin."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}
