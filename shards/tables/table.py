"""A table file, whatever its format: parquet, CSV, TSV and their kin, JSON, JSON Lines; its rows as dicts, streamed.

The format is sniffed from the content. A source says only which columns it wants.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from shards.core import fs
from shards.core.errors import TornFileError, UsageError, closest
from shards.tables import delimited, json_records, parquet
from shards.tables.delimited import Dialect
from shards.tables.json_records import Bad
from shards.tables.notes import noting
from shards.tables.text import first_lines, refuse_foreign

PLAIN = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
SUFFIXES = (".parquet", *(plain + packed for plain in PLAIN for packed in ("", ".gz", ".bz2")))
SNIFFED_RECORDS = 200
_HEAD_LINES = 200


@dataclass(frozen=True)
class Table:
    """A table file whose format is known: parquet, csv, tsv, json or jsonl.

    `columns` are unlike each other; those in `repeated` were not, in the file. `classes` holds the names behind the class ids
    of a Hugging Face export.
    """

    path: str
    format: str
    columns: tuple[str, ...]
    key: str = ""
    classes: dict[str, list[str]] = field(default_factory=dict)
    dialect: Dialect | None = None
    repeated: frozenset[str] = frozenset()

    @property
    def headless(self) -> bool:
        """Whether the file has no header, and its columns are numbers."""
        return self.dialect is not None and self.dialect.header < 0

    def column(self, *names: str) -> str:
        """Return the first of these columns that is there, as the file spells it (letter case aside); else nothing.

        Raises:
            UsageError: several columns of the file have that name.
        """
        for name in names:
            alike = [name] if name in self.columns else [c for c in self.columns if c.strip().lower() == name.lower()]
            if alike and alike[0] in self.repeated:
                others = [c for c in self.columns if c == alike[0] or c.startswith(alike[0] + ".")]
                advice = f"rename one, or name the one you mean where there is an option for it: {others[-1]!r}"
                raise UsageError(f"{self.path}: {len(others)} columns are called {alike[0]!r}", ", ".join(others), advice)
            if alike:
                return alike[0]
        return ""

    def asked(self, name: str) -> str:
        """Return the column that a user has named, by its name or its number from 1 on.

        Raises:
            UsageError: there is none; the message has the columns.
        """
        if name in self.columns:
            return name
        if alike := [c for c in self.columns if c.lower() == name.strip().lower()]:
            return alike[0]
        if name.isdigit() and 0 < int(name) <= len(self.columns) and self.format in ("csv", "tsv"):
            return self.columns[int(name) - 1]
        raise UsageError(f"{self.path}: no column {name!r}", self.described, closest(name, self.columns))

    @property
    def described(self) -> str:
        """The columns in words that fit into an error; of a file without a header, its first row."""
        if self.headless:
            return "no header; its first row: " + ", ".join(f"{name}: {value[:40]!r}" for name, value in self._first_row().items())[:400]
        return ", ".join(c[:40] for c in self.columns)[:400] or "none"

    def _first_row(self) -> dict[str, str]:
        first = self.first(self.columns)
        return {name: str(value) for name, value in first[0].items()} if first else dict.fromkeys(self.columns, "")

    def first(self, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return the first rows; of a torn file those before the tear, which `rows` reports."""
        rows: list[dict[str, Any]] = []
        with noting(), contextlib.suppress(TornFileError):
            rows.extend(row for row in islice(self.rows(columns), SNIFFED_RECORDS) if isinstance(row, dict))
        return rows

    def rows(self, columns: tuple[str, ...] = ()) -> Iterator[dict[str, Any] | Bad]:
        """Yield each row as {column: value}; of parquet only the given columns. A row that cannot be read is `Bad`.

        Raises:
            TornFileError: the file is cut off; what stands before was yielded.
        """
        if self.format == "parquet":
            return parquet.rows(self.path, columns or self.columns)
        if self.dialect is not None:
            return _text_rows(self.path, self.dialect)
        return _json_rows(self.path, self.key)


def sniff(path: str, allowed: str, key: str = "") -> Table:
    """Return what kind of table a file is, and its columns (of JSON: the keys of its first records).

    Args:
        path: the file.
        allowed: what the reader takes, for errors.
        key: the key of a JSON document under which its records stand.

    Raises:
        UsageError: the file is no table.
        TornFileError: a parquet file without its end.
    """
    with fs.open_read(path) as file:
        head = file.read(4)
    if head == b"PAR1":
        schema = parquet.schema_of(path)
        names = tuple(schema.names)
        repeated = frozenset(name for name in names if names.count(name) > 1)
        return Table(path, "parquet", delimited.unlike(list(names)), classes=parquet.class_names(schema), repeated=repeated)
    refuse_foreign(path, allowed)
    head_lines = first_lines(path, _HEAD_LINES)
    filled = [line for line in head_lines if line.strip()]
    first = next((line.lstrip() for line in filled if not line.startswith("#")), "")
    plain_name = path.lower().removesuffix(".gz").removesuffix(".bz2")
    if first[:1] in ("{", "[") if first else plain_name.endswith(".json"):
        return _json_table(path, key)
    if not filled:
        return Table(path, "csv", ())
    return _text_table(path, head_lines, "\t" if plain_name.endswith(".tsv") else ",")


def _text_table(path: str, head_lines: list[str], preferred: str) -> Table:
    dialect = delimited.sniff(head_lines, preferred)
    kind = "tsv" if dialect.delimiter == "\t" else "csv"
    repeated: frozenset[str] = frozenset()
    if dialect.header >= 0:
        header = head_lines[dialect.header] if dialect.header < len(head_lines) else ""
        names = [name.strip() for name in delimited.cells_of(header, dialect.delimiter)]
        repeated = frozenset(name for name in names if name and names.count(name) > 1)
    return Table(path, kind, dialect.columns, dialect=dialect, repeated=repeated)


def _text_rows(path: str, dialect: Dialect) -> Iterator[dict[str, Any] | Bad]:
    width = len(dialect.columns)
    for line in delimited.rows(path, dialect):
        if len(line.cells) == width and not line.problem:
            yield dict(zip(dialect.columns, line.cells, strict=True))
        elif not line.ended and len(line.cells) < width:
            raise TornFileError(f"{path}: the last line is cut off", f"{width} columns")
        else:
            yield Bad(line.text, line.problem or f"{len(line.cells)} fields, not {width}")


def _json_table(path: str, key: str) -> Table:
    kind = "jsonl" if json_records.is_lines(path, key) else "json"
    columns: dict[str, None] = {}
    try:
        with noting():
            for item in islice(json_records.records(path, key), SNIFFED_RECORDS):
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
    for item in json_records.records(path, key):
        if isinstance(item, dict | Bad):
            yield item
        else:
            yield Bad(json.dumps(item, ensure_ascii=False), f"a {type(item).__name__}, no object")
