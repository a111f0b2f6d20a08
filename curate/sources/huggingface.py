"""Hugging Face data sets on disk: a folder of `save_to_disk`, or parquet or Arrow files with images and texts.

A sample's id is the value of `id_column`, else the number of its row in the split. Images are {bytes, path} structs,
bytes, base64 or data URIs, paths, or URLs (then `curate fetch`, and `--images POOL`). A caption column holds a text, or several in a
list, a struct or a map; a ClassLabel column gives classes, and captions by `--template` where there is no text. Other columns
go to `meta`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curate.sources import _datasets
from curate.sources import _inline as inline
from curate.sources.base import Input, Pointer, Record, looked_at, meta_json
from shards.caption_files import CAPTION_COLUMNS, LICENCE_COLUMNS
from shards.core import fs
from shards.core.config import option
from shards.core.errors import TornFileError, UsageError, closest
from shards.tables.delimited import unlike
from shards.tables.parquet import values_of
from shards.tables.values import captions_of, id_of, is_null, label_of, storable

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2
IMAGES = "either"
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "imagepath", "filename", "filepath", "file", "path", "imageurl", "url")
URL_COLUMNS = ("url", "imageurl", "imgurl", "originalurl")
_CAPTIONS = ("text", "texts", "struct", "bytes")  # kinds of columns that may hold captions
_EXTRAS = ("text", "texts", "number", "flag", "time", "struct")
FURTHER_CAPTIONS = ("alttext", "alt", "sentences", "rawcaption", "prompt")
_URL = re.compile(r"\s*https?://", re.IGNORECASE)


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
            for value in filter(None, values_of(batch.column(column))):
                if inline.is_inline(storable(value)):
                    return "pictures in base64"
                return "URLs: curate fetch, then --images POOL" if _URL.match(storable(value)) else "paths"
    return "nothing"


def columns(input: Input, options: Options) -> list[str]:
    """Return the plain columns that have no role."""
    return list(columns_of(input.path, options).extras)


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
        values = {name: values_of(batch.column(name)) for name in wanted if name != columns.image or columns.kind == "text"}
        images = _images(batch.column(columns.image), columns, (start, stop), input.path)
        for i, image in enumerate(images):
            yield _record(image, {name: cells[i] for name, cells in values.items()}, row, input, columns)
            row += 1


def _record(image: Record, values: dict[str, Any], row: int, input: Input, columns: Columns) -> Record:
    """Return the record of a row; `image` is one that has only the image's fields."""
    native = values.get(columns.id) if columns.id else input.first + row
    if native is None or native == "":
        return Record(f"{input.name}:{row}", (), row, status="bad_record", detail=f"no {columns.id!r}")
    captions = tuple(captions_of(values.get(columns.caption))) if columns.caption else ()
    index, name = _class(values.get(columns.label) if columns.label else None, columns.classes)
    urls = (storable(values[columns.url]).strip(),) if columns.url and values.get(columns.url) else image.urls
    extras = meta_json({key: values[key] for key in columns.extras if not is_null(values[key])})
    return replace(
        image, source_id=id_of(native), captions=captions, row=row, urls=urls, class_index=index, class_name=name,
        licence=label_of(values.get(columns.licence)) if columns.licence else "", meta=extras,
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
        yield from (_of_path(value, path) for value in values_of(column))
        return
    held = column.field("bytes") if columns.kind == "struct" else column
    there = column.is_valid().to_pylist()
    paths = (
        values_of(column.field("path")) if columns.kind == "struct" and column.type.get_field_index("path") >= 0 else [None] * len(column)
    )
    places = _datasets.ranges(held, *mapped)
    for i, known in enumerate(paths):
        place = places[i] if places else None
        content = b"" if places or not there[i] else held[i].as_py()
        if there[i] and place and place[1]:
            yield Record("", (), 0, image=Pointer(path, *place))
        elif there[i] and content and content[:5].lower() in (b"http:", b"https", b"data:"):
            yield _of_path(content, path)  # a text in a column of bytes
        elif there[i] and content:
            yield Record("", (), 0, content=content)
        else:
            yield _of_path(known if there[i] else None, path)


def _of_path(value: Any, table: str) -> Record:
    """Return the image that a path or a URL in a table means; relative paths are relative to the table's folder."""
    text = storable(value)
    if not text:
        return Record("", (), 0, status="image_missing", detail="the row has no image")
    if inline.is_inline(text):
        content = inline.decoded(text)
        wrong = "" if content else f"base64 that is no picture: {text[:40]!r}"
        return Record("", (), 0, content=content, status="bad_record" if wrong else "", detail=wrong)
    if _URL.match(text):
        return Record("", (), 0, (text.strip(),), detail="the image is a URL: `curate fetch` it, then --images POOL")
    folder = table.rpartition("/")[0] or "."
    if "://" in text or ".." in text.split("/") or "\0" in text:
        return Record("", (), 0, status="image_missing", detail=f"no file beside the table: {text[:200]!r}")
    path = fs.join(folder, text)
    place = path if fs.exists(path) else fs.join(folder.rpartition("/")[0] or ".", text)
    return Record("", (), 0, image=Pointer(place if fs.exists(place) else path))


def columns_of(path: str, options: Options) -> Columns:
    """Return what the columns of a file are.

    Raises:
        UsageError: a column that was asked for is not there or of another kind; no image or caption column, or several.
        TornFileError: the file cannot be read.
    """
    schema = _datasets.schema_of(path)
    kinds = {name: _kind(schema.field(i).type) for i, name in enumerate(unlike(schema.names))}
    described = f"{path}: its columns are " + (", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none")
    image = _image_column(kinds, options.image_column, described)
    features = _features(schema)
    labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    label = options.label_column or (labels[0] if len(labels) == 1 else "")
    _refuse_repeated(
        schema.names, kinds, (options.image_column, options.caption_column, options.label_column, options.id_column), image, path
    )
    caption = _caption_column(kinds, options.caption_column, described, needed=not label, but=image)
    for asked, holds in ((options.label_column, ("number", "text")), (options.id_column, ("text", "number"))):
        _demand(kinds, asked, holds, described)
    url = _usual(kinds, URL_COLUMNS, ("text",), image)
    licence = _usual(kinds, LICENCE_COLUMNS, ("text",))
    taken = {image, caption, label, options.id_column, url, licence}
    extras = tuple(
        name for name, kind in kinds.items() if kind in ("text", "texts", "number", "flag", "time", "struct") and name not in taken
    )
    classes = tuple(map(str, (features.get(label) or {}).get("names") or ()))
    held = {"bytes": "bytes", "text": "text"}.get(kinds[image], "struct")
    return Columns(image, held, caption, kinds.get(caption) in ("texts", "struct"), label, classes, options.id_column, url, licence, extras)


def _refuse_repeated(names: list[str], kinds: dict[str, str], asked: tuple[str, ...], image: str, path: str) -> None:
    """Refuse two columns of one name where it is the one that is read and nobody said which."""
    used = [image, *(name for name in kinds if re.sub(r"[^a-z0-9]", "", name.lower()) in (*CAPTION_COLUMNS, *FURTHER_CAPTIONS))]
    for name in used:
        if names.count(name) > 1 and name not in asked and f"{name}.1" not in asked:
            same = [column for column in kinds if column == name or column.startswith(name + ".")]
            raise UsageError(f"{path}: {len(same)} columns are called {name!r}", ", ".join(same), f"--caption-column {same[-1]}")


def _image_column(kinds: dict[str, str], asked: str, described: str) -> str:
    if asked:
        return _demand(kinds, asked, ("image", "bytes", "text"), described)
    images = [name for name, kind in kinds.items() if kind == "image"]
    if len(images) > 1:
        raise UsageError(f"{described}: several hold images", ", ".join(images), f"--image-column {images[0]}")
    column = images[0] if images else _usual(kinds, IMAGE_COLUMNS, ("bytes",)) or _usual(kinds, IMAGE_COLUMNS, ("text",))
    if not column:
        raise UsageError(f"{described}: none holds images", "{bytes, path} structs, bytes, paths or URLs", "--image-column NAME")
    return column


def _caption_column(kinds: dict[str, str], asked: str, described: str, *, needed: bool, but: str) -> str:
    if asked:
        return _demand(kinds, asked, _CAPTIONS if asked != but else ("text", "texts"), described)
    column = _usual(kinds, (*CAPTION_COLUMNS, *FURTHER_CAPTIONS), _CAPTIONS, but)
    if not column and needed:
        if kinds.get(column := _usual(kinds, CAPTION_COLUMNS, ("number", "flag", "time", "other"), but)):
            described = f"{described}: {column!r} holds no texts ({kinds[column]})"
        raise UsageError(f"{described}: none is known to hold captions", "texts, or lists of texts", "--caption-column NAME")
    return column


def _demand(kinds: dict[str, str], asked: str, holds: tuple[str, ...], described: str) -> str:
    if asked and asked not in kinds:
        raise UsageError(f"{described}: there is no {asked!r}", ", ".join(kinds), closest(asked, kinds))
    if asked and kinds[asked] not in holds:
        fitting = [name for name, kind in kinds.items() if kind in holds]
        raise UsageError(f"{described}: {asked!r} holds {kinds[asked]}", ", ".join(fitting) or f"a column of {' or '.join(holds)}")
    return asked


def _usual(kinds: dict[str, str], names: tuple[str, ...], holds: tuple[str, ...], but: str = "") -> str:
    """Return the column with the first of the usual names, letter case and punctuation aside."""
    plain = {re.sub(r"[^a-z0-9]", "", n.lower()): n for n in reversed(kinds) if kinds[n] in holds and n != but}
    return next((plain[name] for name in names if name in plain), "")


def _kind(kind: pa.DataType) -> str:
    """Return what a type holds: image, bytes, text, texts, struct, number, flag, time or other."""
    import pyarrow.types as t

    if t.is_dictionary(kind):
        kind = kind.value_type
    if t.is_struct(kind):
        at = kind.get_field_index("bytes")
        return "image" if at >= 0 and _kind(kind.field(at).type) == "bytes" else "struct"
    if t.is_map(kind):
        return "struct"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind):
        return "bytes"
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "text"
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        inner = _kind(kind.value_type)
        return "texts" if inner in ("text", "texts") else "struct" if inner == "struct" else "other"
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        return "number"
    if t.is_temporal(kind):
        return "time"
    return "flag" if t.is_boolean(kind) else "other"


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the features that `datasets` notes in a schema; none in a file of other origin."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}
