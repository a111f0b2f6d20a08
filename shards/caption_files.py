"""Files that pair images with captions: header CSV/TSV/JSONL, Karpathy-style `.token`, COCO captions JSON.

Reads text alone; which image a name means is `shards.folders`' matter. `NA` and `null` are captions like any other.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from shards.core import fs
from shards.core.errors import TornFileError, UsageError, closest

SUFFIXES = (".csv", ".tsv", ".txt", ".token", ".jsonl", ".ndjson", ".json")
IMAGE_COLUMNS = (
    *("image", "file", "filename", "filepath", "path", "img", "imagepath", "imagename", "imagefile", "imagefilename"),
    *("imageid", "photoid", "key", "id"),
)
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "description", "sentence", "comment", "caption0")
LICENCE_COLUMNS = ("license", "licence", "licenseurl", "licenceurl")
_TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)")
_IMAGE_NAME = re.compile(r'"?[^"]+\.(jpe?g|png|webp|gif|bmp|tiff?|avif)"?', re.IGNORECASE)
_HEAD = 1 << 16


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
    """A captions file whose layout is known: csv, tsv, jsonl, json, token, coco or karpathy."""

    path: str
    layout: str
    delimiter: str = ""
    image_column: str = ""
    caption_column: str = ""

    def rows(self) -> Iterator[Row]:
        """Yield one row per image name, in the order of first appearance, with all its captions.

        Raises:
            TornFileError: a JSON file is cut off.
        """
        if self.layout == "coco":
            yield from _coco(_json(self.path))
            return
        if self.layout == "karpathy":
            yield from _grouped(_karpathy(_json(self.path)))
            return
        lines = _token(self.path) if self.layout == "token" else self._records()
        yield from _grouped(lines)

    def _records(self) -> Iterator[Row]:
        if self.layout in ("jsonl", "json"):
            for where, record in _objects(self.path, self.layout):
                yield self._from_object(where, record)
        else:
            yield from self._table()

    def _from_object(self, where: str, record: Any) -> Row:
        if not isinstance(record, dict):
            return Row(where, problem=f"{where}: no JSON object")
        name, captions = _text(record.get(self.image_column)), record.get(self.caption_column)
        if not name:
            return Row(where, problem=f"{where}: no {self.image_column!r}")
        texts = [_text(c) for c in captions] if isinstance(captions, list) else [_text(captions)]
        rest = {k: v for k, v in record.items() if k not in (self.image_column, self.caption_column)}
        return Row(name, [t for t in texts if t], _licence(rest), rest)

    def _table(self) -> Iterator[Row]:
        with io.TextIOWrapper(fs.open_read(self.path), "utf-8-sig", "replace", newline="") as file:
            lines = _split(file, self.delimiter)
            header = next(lines)
            image, caption = header.index(self.image_column), header.index(self.caption_column)
            for number, cells in enumerate(lines, 2):
                if len(cells) != len(header):
                    if cells:
                        where = f"row {number}"
                        yield Row(where, problem=f"{where}: {len(cells)} columns; the header has {len(header)}")
                    continue
                rest = {k: v for k, v in zip(header, cells, strict=True) if k not in (self.image_column, self.caption_column)}
                name, text = cells[image].strip(), cells[caption]
                problem = "" if name else f"row {number}: no {self.image_column!r}"
                yield Row(name or f"row {number}", [text] if text.strip() else [], _licence(rest), rest, problem)


def sniff(path: str, image_column: str = "", caption_column: str = "") -> CaptionFile | None:
    """Return what kind of captions file this is, or None where it is none.

    Args:
        image_column, caption_column: columns that must be there; without them common names are tried.
    """
    with fs.open_read(path) as file:
        head = file.read(_HEAD).decode("utf-8-sig", "replace")
    suffix = path.rpartition(".")[2].lower()
    if suffix == "json":
        return _sniff_json(path, head, image_column, caption_column)
    first = head.partition("\n")[0].rstrip("\r")
    if _TOKEN.fullmatch(first):
        return CaptionFile(path, "token")
    if suffix in ("jsonl", "ndjson"):
        return _with_columns(path, "jsonl", "", _keys(first), image_column, caption_column)
    delimiters = ("\t", ",", "|", ";") if suffix != "csv" else (",", "\t", "|", ";")
    for delimiter in delimiters:
        columns = next(_split(io.StringIO(head), delimiter), [])
        layout = "tsv" if delimiter == "\t" else "csv"
        if found := _with_columns(path, layout, delimiter, columns, image_column, caption_column):
            return found
    return None


def demand(path: str, image_column: str = "", caption_column: str = "") -> CaptionFile:
    """Return what kind of captions file this is.

    Raises:
        UsageError: it is none; the message lists the columns that were found.
    """
    if not fs.exists(path):
        raise UsageError(f"no captions file at {path!r}")
    if found := sniff(path, image_column, caption_column):
        return found
    with fs.open_read(path) as file:
        first = file.read(_HEAD).decode("utf-8-sig", "replace").partition("\n")[0].rstrip("\r")
    columns = _keys(first) or next(_split(io.StringIO(first), "\t" if "\t" in first else ","), [])
    asked = " and ".join(repr(c) for c in (image_column, caption_column) if c) or "an image column and a caption column"
    advice = closest(image_column or caption_column, columns) if image_column or caption_column else "--image-column, --caption-column"
    raise UsageError(f"{path}: not found: {asked}", "its columns: " + ", ".join(columns), advice)


def _sniff_json(path: str, head: str, image_column: str, caption_column: str) -> CaptionFile | None:
    start = head.lstrip()[:1]
    if start == "[":
        content = _json(path)
        columns = list(content[0]) if content and isinstance(content[0], dict) else []
        return _with_columns(path, "json", "", columns, image_column, caption_column)
    if start != "{" or not ('"images"' in head or '"annotations"' in head or len(head) >= _HEAD):
        return None
    content = _json(path)
    images = content.get("images")
    if not isinstance(images, list):
        return None
    if images and isinstance(images[0], dict) and isinstance(images[0].get("sentences"), list):
        return CaptionFile(path, "karpathy")
    if not isinstance(content.get("annotations"), list):
        return None
    captioned = any("caption" in a for a in content["annotations"][:100] if isinstance(a, dict))
    return CaptionFile(path, "coco") if captioned else None


def _with_columns(
    path: str, layout: str, delimiter: str, columns: Sequence[str], image_column: str, caption_column: str
) -> CaptionFile | None:
    image = _choose(columns, image_column, IMAGE_COLUMNS)
    caption = _choose(columns, caption_column, CAPTION_COLUMNS)
    if not image or not caption or image == caption:
        return None
    return CaptionFile(path, layout, delimiter, image, caption)


def _choose(columns: Sequence[str], asked: str, usual: Sequence[str]) -> str:
    if asked:
        return asked if asked in columns else ""
    plain = {re.sub(r"[^a-z0-9]", "", c.lower()): c for c in reversed(columns)}
    return next((plain[name] for name in usual if name in plain), "")


def _split(lines: Any, delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of each line. Commas: the csv module. Others: no quoting, save for cells that are wholly quoted,
    since an apostrophe or inch mark in a tab-separated file must not swallow the lines after it."""
    if delimiter == ",":
        yield from _quoted(lines)
        return
    for line in lines:
        text = line.rstrip("\r\n")
        yield [_unquote(cell).strip() if delimiter == "|" else _unquote(cell) for cell in text.split(delimiter)] if text else []


class _Tape:
    """Lines that remember what was taken of them, and can be given back."""

    def __init__(self, lines: Any) -> None:
        self._lines, self._again = iter(lines), list[str]()
        self.taken: list[str] = []

    def __iter__(self) -> _Tape:
        return self

    def __next__(self) -> str:
        self.taken.append(self._again.pop() if self._again else next(self._lines))
        return self.taken[-1]

    def give_back(self, lines: list[str]) -> None:
        self._again += reversed(lines)


def _quoted(lines: Any) -> Iterator[list[str]]:
    """Yield the cells of each row by the csv module's rules, save that a quote which is never closed swallows no rows.

    Where a line inside a cell has cells enough, and an image's name where its row has one, it is a row: the quote is a
    character then.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    tape, width = _Tape(lines), 0
    reader = csv.reader(tape)
    for cells in iter(lambda: next(reader, None), None):
        taken, tape.taken = tape.taken, []
        place = _image_place(taken[0]) if width and len(taken) > 1 else -1
        if place >= 0 and any(_image_place(line) == place and line.count(",") >= width - 1 for line in taken[1:]):
            tape.give_back(taken[1:])
            cells = taken[0].rstrip("\r\n").split(",", width - 1)
        width = width or len(cells)
        yield cells


def _image_place(line: str) -> int:
    """Return the number of the first cell that ends like an image's name, or -1; quotes are characters."""
    return next((i for i, cell in enumerate(line.split(",")) if _IMAGE_NAME.fullmatch(cell.strip())), -1)


def _unquote(cell: str) -> str:
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if whole else cell


def _token(path: str) -> Iterator[Row]:
    with io.TextIOWrapper(fs.open_read(path), "utf-8-sig", "replace") as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip("\n")
            if match := _TOKEN.fullmatch(text):
                yield Row(match[1].strip(), [match[2]] if match[2].strip() else [])
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
    licences = {x.get("id"): _text(x.get("url") or x.get("name")) for x in content.get("licenses") or []}
    captions: dict[Any, list[str]] = {}
    for annotation in content["annotations"]:
        captions.setdefault(annotation.get("image_id"), []).append(_text(annotation.get("caption")))
    for number, image in enumerate(content["images"]):
        name, texts = _text(image.get("file_name")), captions.pop(image.get("id"), [])
        rest = {k: v for k, v in image.items() if k not in ("file_name", "license")}
        problem = "" if name else f"image {number}: no file_name"
        yield Row(name or f"image {number}", [t for t in texts if t], licences.get(image.get("license"), ""), rest, problem)
    for image_id, texts in captions.items():
        yield Row(f"image_id {image_id}", texts, problem=f"annotations of image_id {image_id}, which is not under images")


def _karpathy(content: dict[str, Any]) -> Iterator[Row]:
    """Yield the images of Karpathy's splits (dataset_coco.json, dataset_flickr30k.json): each has its sentences."""
    for number, image in enumerate(content["images"]):
        fields = image if isinstance(image, dict) else {}
        name, sentences = _text(fields.get("filename")), fields.get("sentences")
        texts = [_text(s.get("raw")) for s in sentences if isinstance(s, dict)] if isinstance(sentences, list) else []
        inner = _text(fields.get("filepath"))
        rest = {k: v for k, v in fields.items() if k not in ("filename", "filepath", "sentences", "sentids")}
        problem = "" if name else f"image {number}: no filename"
        yield Row(f"{inner}/{name}" if inner and name else name or f"image {number}", [t for t in texts if t], "", rest, problem)


def _json(path: str) -> Any:
    try:
        return json.loads(fs.read_text(path))
    except ValueError as error:
        raise TornFileError(f"{path}: not JSON: {error}") from error


def _objects(path: str, layout: str) -> Iterator[tuple[str, Any]]:
    if layout == "json":
        yield from ((f"record {i}", record) for i, record in enumerate(_json(path)))
        return
    with io.TextIOWrapper(fs.open_read(path), "utf-8-sig", "replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError:
                    yield f"line {number}", None


def _keys(line: str) -> list[str]:
    try:
        value = json.loads(line)
    except ValueError:
        return []
    return list(value) if isinstance(value, dict) else []


def _licence(rest: dict[str, Any]) -> str:
    return _text(rest.get(_choose(list(rest), "", LICENCE_COLUMNS)))


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
