"""A table file, whatever its format: parquet, CSV or TSV with a header, JSON, JSON Lines; its rows as dicts, streamed.

The format is sniffed from the content. CSV quotes as RFC 4180 says, and a quote that is never closed spoils its own
line, not the rest of the file; TSV does not quote at all. No cell is ever turned into a null: `NA` is a word.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from curate.sources import _guess, _json
from curate.sources._json import Bad
from curate.sources._text import first_lines, lines, refuse_foreign
from curate.sources.base import URL, storable
from shards.core import fs
from shards.core.errors import TornFileError, UsageError

SUFFIXES = tuple(
    plain + packed
    for plain, packings in ((".parquet", 0), (".csv", 1), (".tsv", 1), (".json", 1), (".jsonl", 1), (".ndjson", 1))
    for packed in ("", ".gz", ".bz2")[: 1 + 2 * packings]
)
SNIFFED_RECORDS = 200
_BATCH = 1024
_BUFFER = 1 << 20  # with this, and without pre-buffering, memory holds pages of a row group and not the file
_TRUTHS = {**dict.fromkeys(("true", "yes", "y", "1"), True), **dict.fromkeys(("false", "no", "n", "0"), False)}
_LONGEST_CELL = 200  # lines that one quoted cell may run over


@dataclass(frozen=True)
class Table:
    """A table file whose format is known. `classes` holds the names behind the class ids of a Hugging Face export."""

    path: str
    format: str
    columns: tuple[str, ...]
    key: str = ""
    classes: dict[str, list[str]] = field(default_factory=dict)

    def column(self, *names: str) -> str:
        """Return the first of these columns that is there, as the file spells it (letter case aside); else nothing."""
        for name in names:
            if name in self.columns:
                return name
            if found := [c for c in self.columns if c.strip().lower() == name.lower()]:
                return found[0]
        return ""

    @property
    def described(self) -> str:
        """The columns in words that fit into an error."""
        return ", ".join(c[:40] for c in self.columns)[:400] or "none"

    def advice(self) -> str:
        """Return which source the file looks like, as advice."""
        return _guess.advice(_guess.by_columns(self.columns) or _guess.by_line("\t".join(self.columns)))

    def first(self, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the first rows; of a torn file those before the tear, which `rows` reports."""
        found: list[dict[str, Any]] = []
        with contextlib.suppress(TornFileError):
            found.extend(row for row in islice(self.rows(columns), SNIFFED_RECORDS) if isinstance(row, dict))
        return found

    def rows(self, columns: tuple[str, ...] = ()) -> Iterator[dict[str, Any] | Bad]:
        """Yield each row as {column: value}; of parquet only the given columns. A row that cannot be read is `Bad`.

        Raises:
            TornFileError: the file is cut off; what stands before was yielded.
        """
        if self.format == "parquet":
            return _parquet_rows(self.path, columns or self.columns)
        if self.format in ("csv", "tsv"):
            return _text_rows(self.path, self.columns, self.format)
        return _json_rows(self.path, self.key)


def sniff(path: str, allowed: str, key: str = "") -> Table:
    """Return what kind of table a file is, and its columns (of JSON: the keys of its first records).

    Args:
        path: the file.
        allowed: what the source reads, for errors.
        key: the key of a JSON document under which its records stand.

    Raises:
        UsageError: the file is no table.
        TornFileError: a parquet file without its end.
    """
    with fs.open_read(path) as file:
        head = file.read(4)
    if head == b"PAR1":
        return _parquet_table(path)
    refuse_foreign(path, allowed)
    head_lines = [line for line in first_lines(path, 20) if line.strip()]
    named_json = path.lower().removesuffix(".gz").removesuffix(".bz2").endswith(".json")
    if head_lines[0].lstrip()[:1] in ("{", "[") if head_lines else named_json:
        return _json_table(path, key)
    if not head_lines:
        return Table(path, "csv", ())
    kind = "tsv" if "\t" in head_lines[0] else "csv"
    return Table(path, kind, tuple(cell.strip() for cell in _header(head_lines[0], kind)))


def refuse_swapped(table: Table, url: str, text: str, allowed: str) -> None:
    """Refuse a table whose first rows have no URL in the column `url`; say if they stand in `text`.

    Both may be dotted names that reach into JSON.
    """
    first = table.first(tuple(dict.fromkeys(name.partition(".")[0] for name in (url, text))))
    cells, texts = ([storable(value_of(row, name)) for row in first] for name in (url, text))
    if any(cells) and not any(map(URL.match, cells)):
        where = f"; they stand in {text!r}" if any(map(URL.match, texts)) else ""
        raise UsageError(f"{table.path}: no URL in the first {len(first)} rows of {url!r}{where}", allowed, "rename the columns")


def value_of(row: dict[str, Any], name: str) -> Any:
    """Return a cell, or what a dotted name such as `assets.preview.url` reaches in nested JSON."""
    found = row.get(name)
    if found is None and "." in name:
        found = row
        for key in name.split("."):
            found = found.get(key) if isinstance(found, dict) else None
    return found


def fitted(value: Any, kind: str) -> Any:
    """Return a native value as a column's type (`string`, `double`, `int32`, `int64`, `bool`); None for what is none of it."""
    if value is None or kind == "string":
        return storable(value) or None
    if kind == "bool":
        return _TRUTHS.get(storable(value).strip().lower())
    try:
        number = float(value) if kind == "double" else int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    limit = {"int32": 2**31, "int64": 2**63}.get(kind)
    return number if math.isfinite(number) and (limit is None or -limit <= number < limit) else None


def _header(line: str, kind: str) -> list[str]:
    return line.split("\t") if kind == "tsv" else next(csv.reader([line]), [])


def _json_table(path: str, key: str) -> Table:
    kind = "jsonl" if _json.is_lines(path, key) else "json"
    columns: dict[str, None] = {}
    try:
        for item in islice(_json.records(path, key), SNIFFED_RECORDS):
            if isinstance(item, Bad):
                continue
            if not isinstance(item, dict):
                if columns:
                    continue  # a stray item, not another layout: a row of its own
                raise UsageError(f"{path}: its records are {type(item).__name__}s", "objects")
            columns |= dict.fromkeys(map(str, item))
    except TornFileError:
        pass  # `rows` meets it again, where --bad-files decides
    return Table(path, kind, tuple(columns), key)


def _json_rows(path: str, key: str) -> Iterator[dict[str, Any] | Bad]:
    for item in _json.records(path, key):
        yield item if isinstance(item, dict | Bad) else Bad(json.dumps(item, ensure_ascii=False), f"a {type(item).__name__}, no object")


def _parquet_table(path: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with fs.open_read(path) as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _torn(path, error) from error
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    classes = {name: f["names"] for name, f in features.items() if isinstance(f, dict) and isinstance(f.get("names"), list)}
    return Table(path, "parquet", tuple(schema.names), classes=classes)


def _parquet_rows(path: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any] | Bad]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with fs.open_read(path) as file, pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=list(columns)):
                values = [_values(column) for column in batch.columns]
                for row in zip(*values, strict=True):
                    yield dict(zip(batch.schema.names, row, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise _torn(path, error) from error


def _torn(path: str, error: Exception) -> TornFileError:
    return TornFileError(f"{path}: cut off or damaged: {str(error)[:200]}", "a whole parquet file")


def _values(column: Any) -> list[Any]:
    """Return a column as Python values; text that is no UTF-8 gets U+FFFD."""
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [None if v is None else v.decode("utf-8", "replace") for v in column.cast(pa.binary()).to_pylist()]


def _text_rows(path: str, columns: tuple[str, ...], kind: str) -> Iterator[dict[str, Any] | Bad]:
    width, header = len(columns), True
    for cells, line, ended in _tsv_cells(path) if kind == "tsv" else _csv_cells(path, width):
        if header and not line.strip():
            continue  # blank lines before the header
        if header:
            header = False
        elif len(cells) == width:
            yield dict(zip(columns, cells, strict=True))
        elif not ended and len(cells) < width:
            raise TornFileError(f"{path}: the last line is cut off", f"{width} columns")
        elif line.strip():
            yield Bad(line, f"{len(cells)} fields, not {width}" if cells else "a quote that is not closed, or closed too early")


def _tsv_cells(path: str) -> Iterator[tuple[list[str], str, bool]]:
    for line, ended in lines(path):
        yield line.split("\t"), line, ended


class _Feed:
    """Gives the csv module lines one at a time, remembers which it took for a record, and takes back what it should not have."""

    def __init__(self, path: str) -> None:
        self.source, self.back, self.taken = lines(path), deque[tuple[str, bool]](), list[tuple[str, bool]]()

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _LONGEST_CELL:
            raise StopIteration
        self.taken.append(self.back.popleft() if self.back else next(self.source))
        return self.taken[-1][0] + "\n"

    def only_first(self) -> tuple[str, bool]:
        """Return the first line that was taken; the others are due again."""
        self.back.extendleft(reversed(self.taken[1:]))
        return self.taken[0]


def _csv_cells(path: str, width: int) -> Iterator[tuple[list[str], str, bool]]:
    """Yield the cells of each record, its text, and whether its last line had an end; no cells where quotes are wrong.

    A record over several lines that has not as many cells as the header was opened by a stray quote: its first line
    stands alone, and the others are read again.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _json.MAX_RECORD))
    feed = _Feed(path)
    reader = csv.reader(feed, strict=True)
    while True:
        feed.taken = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            cells = []
        if len(cells) == width or len(feed.taken) == 1:
            yield cells, "\n".join(line for line, _ in feed.taken), feed.taken[-1][1]
        else:
            yield [], *feed.only_first()
