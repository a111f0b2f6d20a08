"""Files that pair images with captions: tables of any kind, Karpathy-style `.token`, COCO captions JSON.

Reads text alone; which image a name means is `shards.image_names`' matter. Tables are read by `shards.tables`: their delimiter, encoding,
quotes and types are its business. A caption that only says `nan`, `None` or `null` is none; `NA` is a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.tables import table
from shards.tables.json_records import Bad, parse
from shards.tables.notes import note
from shards.tables.table import Table
from shards.tables.text import decoded, first_lines, head_of, lines
from shards.tables.values import captions_of, id_of, label_of, storable, value_of

PACKED = tuple(plain + packed for plain in (".csv", ".tsv", ".jsonl", ".ndjson") for packed in (".gz", ".bz2"))
SUFFIXES = (".csv", ".tsv", ".txt", ".token", ".jsonl", ".ndjson", ".json", ".parquet", *PACKED)
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", *PACKED)  # files of these names are tables, whatever they hold
LAYOUTS = ("csv", "tsv", "jsonl", "json", "parquet", "token", "coco", "karpathy")
IMAGE_COLUMNS = (
    *("image", "file", "filename", "filepath", "path", "img", "imagepath", "imagename", "imagefile", "imagefilename"),
    *("imageid", "photoid", "key", "id"),
)
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "description", "sentence", "comment", "caption0")
LICENCE_COLUMNS = ("license", "licence", "licenseurl", "licenceurl")
# A picture in a JSON object has its name under one of these keys.
_NAME_KEYS = ("path", "file_name", "filename", "file", "name", "url")
_TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)")
_HEAD = 1 << 16
_ALLOWED = "a CSV, TSV, JSON, JSON Lines or parquet file of images and captions"


@dataclass
class Row:
    """One image name with its captions, as the file has them. `problem` says why a row cannot be used."""

    name: str
    captions: list[str] = field(default_factory=list)
    licence: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class CaptionFile:
    """A captions file whose layout is known: one of LAYOUTS. `image_column` and `caption_column` are names of the table's columns."""

    path: str
    layout: str
    image_column: str = ""
    caption_column: str = ""
    table: Table | None = None

    def rows(self) -> Iterator[Row]:
        """Yield one row per image name, in the order of first appearance, with all its captions.

        Raises:
            TornFileError: a file is cut off.
        """
        readers: dict[str, Callable[[], Iterator[Row]]] = {
            "coco": lambda: _coco(_json(self.path)),
            "karpathy": lambda: _karpathy(_json(self.path)),
            "token": lambda: _token(self.path),
        }
        rows = readers.get(self.layout, self._table)()
        yield from rows if self.layout == "coco" else _grouped(rows)

    def _table(self) -> Iterator[Row]:
        assert self.table is not None
        first = {"csv": 2, "tsv": 2, "jsonl": 1, "parquet": 1}.get(self.layout, 0)
        unit = {"json": "record", "jsonl": "record"}.get(self.layout, "row")
        for number, cells in enumerate(self.table.rows(), first):
            where = f"{unit} {number}"
            if isinstance(cells, Bad):
                yield Row(where, problem=f"{where}: {cells.why}")
                continue
            taken = (self.image_column, self.caption_column)
            rest = {key: value for key, value in cells.items() if key not in taken}
            name = _name_of(value_of(cells, self.image_column))
            problem = "" if name else f"{where}: no {self.image_column!r}"
            yield Row(name or where, _captions(value_of(cells, self.caption_column)), _licence(rest), rest, problem)


def sniff(path: str, image_column: str = "", caption_column: str = "") -> CaptionFile | None:
    """Return what kind of captions file this is, or None where it is none.

    Args:
        image_column, caption_column: columns that must be there; without them common names are tried.

    Raises:
        UsageError: two columns have the name that is looked for.
    """
    suffix = path.lower().removesuffix(".gz").removesuffix(".bz2").rpartition(".")[2]
    if suffix == "json":
        return _sniff_json(path, image_column, caption_column)
    first = next(iter(first_lines(path, 1)), "")
    if suffix != "parquet" and _TOKEN.fullmatch(first):
        return CaptionFile(path, "token")
    try:
        read = table.sniff(path, _ALLOWED)
    except UsageError:
        return None
    return _with_columns(read, read.format, image_column, caption_column)


def demand(path: str, image_column: str = "", caption_column: str = "") -> CaptionFile:
    """Return what kind of captions file this is.

    Raises:
        UsageError: it is none; the message lists the columns that were found.
    """
    if not fs.exists(path):
        raise UsageError(f"no captions file at {path!r}")
    if file := sniff(path, image_column, caption_column):
        return file
    read = table.sniff(path, _ALLOWED)
    for name in (image_column, caption_column):
        if name:
            read.asked(name.partition(".")[0])
    raise unknown_columns(read)


def unknown_columns(read: Table) -> UsageError:
    """Return the error for a table without a known column of images, or of captions: with its columns and the way to name them."""
    columns = list(read.columns)
    image = _choose(columns, IMAGE_COLUMNS)
    caption = _choose(columns, CAPTION_COLUMNS)
    missing = " and ".join(filter(None, ("" if image else "an image column", "" if caption else "a caption column")))
    problem = f"{read.path}: not found: {missing or 'an image column and a caption column'}"
    first, second = "NAME", "NAME"
    if read.headless and len(columns) > 1:
        first, second = columns[:2]
    return UsageError(problem, f"its columns: {read.described}", f"--image-column {image or first} --caption-column {caption or second}")


def unread(root: str, names: Sequence[str]) -> Iterator[UsageError]:
    """Yield the error for each table among the files `names` of a folder: tables of which nothing was understood."""
    for name in names:
        if name.lower().endswith(TABLES):
            try:
                read = table.sniff(fs.join(root, name), _ALLOWED)
            except UsageError as error:
                yield error
                continue
            except TornFileError:
                continue
            if read.columns:
                yield unknown_columns(read)


def _sniff_json(path: str, image_column: str, caption_column: str) -> CaptionFile | None:
    head = decoded(head_of(path, _HEAD)).lstrip()
    if head.startswith("["):
        _json(path)  # a torn file is told at once
        try:
            read = table.sniff(path, _ALLOWED)
        except UsageError:
            return None
        return _with_columns(read, read.format, image_column, caption_column)
    if not head.startswith("{"):
        return None
    if not ('"images"' in head or '"annotations"' in head or len(head) >= _HEAD // 2):
        return None
    try:
        content = _json(path)
    except TornFileError:
        if '"images"' in head:
            raise
        return None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return None
    images = content["images"]
    if any(isinstance(image, dict) and isinstance(image.get("sentences"), list) for image in images[:100]):
        return CaptionFile(path, "karpathy")
    if not isinstance(content.get("annotations"), list):
        return None
    captioned = any("caption" in a for a in content["annotations"][:100] if isinstance(a, dict))
    return CaptionFile(path, "coco") if captioned else None


def _with_columns(read: Table, layout: str, image_column: str, caption_column: str) -> CaptionFile | None:
    try:
        image = _asked(read, image_column) if image_column else read.column(_choose(read.columns, IMAGE_COLUMNS))
        caption = _asked(read, caption_column) if caption_column else read.column(_choose(read.columns, CAPTION_COLUMNS))
    except _NotThereError:
        return None
    if not image or not caption or image == caption:
        return None
    return CaptionFile(read.path, layout, image, caption, read)


class _NotThereError(Exception):
    """A column that was asked for is not in the table."""


def _asked(read: Table, name: str) -> str:
    outer, dot, inner = name.partition(".")
    try:
        return read.asked(name)
    except UsageError:
        if dot and outer in read.columns:
            return f"{outer}.{inner}"
        raise _NotThereError from None


def _choose(columns: Sequence[str], usual: Sequence[str]) -> str:
    plain = {re.sub(r"[^a-z0-9]", "", c.lower()): c for c in reversed(columns)}
    return next((plain[name] for name in usual if name in plain), "")


def _captions(value: Any) -> list[str]:
    return [text for text in captions_of(value) if text.strip()]


def _name_of(value: Any) -> str:
    """Return the image's name in a cell: a text, a number, or an object that has it under a usual key."""
    if isinstance(value, dict):
        value = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
    return id_of(value)


def _token(path: str) -> Iterator[Row]:
    for number, (text, _) in enumerate(lines(path), 1):
        if match := _TOKEN.fullmatch(text):
            yield Row(match[1].strip(), _captions(match[2]))
        elif text.strip():
            yield Row(f"line {number}", problem=f"line {number}: not `file.jpg#k<TAB>caption`")


def _grouped(rows: Iterator[Row]) -> Iterator[Row]:
    """Merge the captions of one name; the first row's other columns stand."""
    merged: dict[str, Row] = {}
    for row in rows:
        if row.name in merged and not row.problem:
            merged[row.name].captions += row.captions
        else:
            merged[row.name] = row
    yield from merged.values()


def _coco(content: dict[str, Any]) -> Iterator[Row]:
    """Yield the images of COCO's captions JSON. Ids are compared as text, since some tools write them as such."""
    listed = content.get("licenses")
    licences = {_key(x.get("id")): label_of(x) for x in (listed if isinstance(listed, list) else []) if isinstance(x, dict)}
    captions: dict[str, list[str]] = {}
    strays = []
    for number, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            strays.append(Row(f"annotation {number}", problem=f"annotation {number}: no JSON object"))
            continue
        texts = _captions(annotation.get("caption"))
        if not texts:
            note("[annotation|annotations] without a caption", storable(annotation.get("id", number)))
        captions.setdefault(_key(annotation.get("image_id")), []).extend(texts)
    for number, image in enumerate(content["images"]):
        fields = image if isinstance(image, dict) else {}
        name = storable(fields.get("file_name"))
        texts = captions.pop(_key(fields.get("id")), []) if name else []
        rest = {k: v for k, v in fields.items() if k not in ("file_name", "license")}
        problem = "" if name else f"image {number}: no file_name"
        licence = fields.get("license")
        licence = label_of(licence) if isinstance(licence, dict) and _key(licence.get("id")) not in licences else licence
        key = _key(licence.get("id") if isinstance(licence, dict) else licence)
        licence_text = licences.get(key, licence if isinstance(licence, str) else "")
        yield Row(name or f"image {number}", texts, licence_text, rest, problem)
    for image_id, texts in captions.items():
        yield Row(f"image_id {image_id}", texts, problem=f"annotations of image_id {image_id}, which is not under images")
    yield from strays


def _key(value: Any) -> str:
    """Return an id as text, whatever it is: 1, "1" and 1.0 are one."""
    return id_of(value)


def _karpathy(content: dict[str, Any]) -> Iterator[Row]:
    """Yield the images of Karpathy's splits (dataset_coco.json, dataset_flickr30k.json): each has its sentences."""
    for number, image in enumerate(content["images"]):
        fields = image if isinstance(image, dict) else {}
        name, sentences = storable(fields.get("filename")), fields.get("sentences")
        texts = [text for s in sentences if isinstance(s, dict) for text in _captions(s.get("raw"))] if isinstance(sentences, list) else []
        inner = storable(fields.get("filepath"))
        rest = {k: v for k, v in fields.items() if k not in ("filename", "filepath", "sentences", "sentids")}
        problem = "" if name else f"image {number}: no filename"
        yield Row(f"{inner}/{name}" if inner and name else name or f"image {number}", texts, "", rest, problem)


def _json(path: str) -> Any:
    try:
        return parse(decoded(fs.read_bytes(path)))
    except (ValueError, RecursionError) as error:
        raise TornFileError(f"{path}: not JSON: {error}") from error


def _licence(rest: dict[str, Any]) -> str:
    return label_of(rest.get(_choose(list(rest), LICENCE_COLUMNS)))
