"""YFCC100M's files: TSV of 23 or 25 columns and SQLite as rows by column name, and lists of photo ids."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from curate.sources import _guess
from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from shards.tables.json_records import Bad
from shards.tables.text import first_lines, lines, refuse_foreign

# The columns of `yfcc100m_dataset-0` … `-9` and of the SQLite table; `yfcc100m_dataset.txt` has two more.
FIELDS = (
    "photoid", "uid", "unickname", "datetaken", "dateuploaded", "capturedevice", "title", "description", "usertags", "machinetags",
    "longitude", "latitude", "accuracy", "pageurl", "downloadurl", "licensename", "licenseurl", "serverid", "farmid", "secret",
    "secretoriginal", "ext", "marker",
)  # fmt: skip
LAYOUTS = {23: FIELDS, 25: ("line", "photoid", "hash", *FIELDS[1:])}
TABLE = "yfcc100m_dataset"
_ALLOWED = "YFCC100M's TSV of 25 or 23 columns, or its SQLite file"
_SQLITE = b"SQLite format 3"
_NEEDED = ("photoid", "title", "description", "downloadurl", "marker")
_ID = re.compile(r"\d{1,19}", re.ASCII)
_SNIFFED_LINES = 200
Row = dict[str, str] | Bad


def is_id(text: str) -> bool:
    """Return whether this is a photo id."""
    return _ID.fullmatch(text) is not None


def sniff(path: str) -> str:
    """Return the layout of a metadata file in words.

    Raises:
        UsageError: the file is none of YFCC100M's, or lacks columns.
        TornFileError: an SQLite file is damaged.
    """
    if _is_sqlite(path):
        return f"SQLite table {TABLE} of {len(_sqlite_columns(path))} columns"
    width = _width(path)
    return f"headerless TSV of {width} columns, title and description in {width - 17} and {width - 16}"


def rows(path: str) -> Iterator[tuple[int, Row]]:
    """Yield each row's number and the row: {column: text}, or what is wrong with it.

    Raises:
        UsageError: see `sniff`.
        TornFileError: the file is cut off; the rows before were yielded.
    """
    yield from _sqlite_rows(path) if _is_sqlite(path) else _tsv_rows(path)


def _width(path: str) -> int:
    refuse_foreign(path, _ALLOWED)
    head = [line for line in first_lines(path, _SNIFFED_LINES) if line]
    cells = [line.split("\t") for line in head]
    fitting = Counter(len(fields) for fields in cells if _fits(fields))
    if fitting:
        return fitting.most_common(1)[0][0]
    if not head:
        return 25
    if all(len(f) in (1, 3) and is_id(f[min(1, len(f) - 1)]) for f in cells):
        raise UsageError(f"{path}: a list of photo ids, no metadata", _ALLOWED, "--ids LIST, with the metadata as --input")
    guess = _guess.by_line(head[0])
    widths = ", ".join(map(str, sorted({len(f) for f in cells})[:5]))
    raise UsageError(f"{path}: no line of the first {len(head)} is YFCC100M's; they have {widths} columns", _ALLOWED, _guess.advice(guess))


def _fits(fields: list[str]) -> bool:
    """Return whether a line has photo id and URL in their columns."""
    columns = LAYOUTS.get(len(fields))
    if columns is None:
        return False
    row = dict(zip(columns, fields, strict=True))
    return is_id(row["photoid"]) and row["downloadurl"].startswith("http")


def _tsv_rows(path: str) -> Iterator[tuple[int, Row]]:
    width = _width(path)
    columns = LAYOUTS[width]
    for number, (line, ended) in enumerate(lines(path)):
        fields = line.split("\t")
        if len(fields) == width:
            yield number, dict(zip(columns, fields, strict=True))
        elif not ended and len(fields) < width:
            raise TornFileError(f"{path}: line {number + 1} is cut off", f"{width} columns")
        else:
            yield number, Bad(line, f"{len(fields)} fields, not {width}")


def _is_sqlite(path: str) -> bool:
    with fs.open_read(path) as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _connect(path: str) -> Any:
    import sqlite3
    from urllib.parse import quote

    if fs.is_remote(path):
        raise UsageError(f"{path}: SQLite is read from a local disk", "a local path", "copy it first")
    con = sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)
    con.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return con


def _sqlite_columns(path: str) -> tuple[str, ...]:
    import sqlite3

    try:
        with closing(_connect(path)) as con:
            tables = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1")]
            columns = tuple(str(row[1]) for row in con.execute(f"PRAGMA table_info({TABLE})"))
    except sqlite3.DatabaseError as error:
        raise TornFileError(f"{path}: cut off or damaged: {error}", "a whole SQLite file") from error
    if not columns:
        raise UsageError(f"{path}: tables {', '.join(tables) or 'none'}", f"an SQLite file with the table {TABLE}")
    if missing := [name for name in _NEEDED if name not in columns]:
        raise UsageError(f"{path}: the table has no {', '.join(missing)} among {', '.join(columns)}", f"{TABLE}({', '.join(FIELDS)})")
    return columns


def _sqlite_rows(path: str) -> Iterator[tuple[int, Row]]:
    import sqlite3

    columns = _sqlite_columns(path)
    absent = dict.fromkeys((name for name in FIELDS if name not in columns), "")
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    try:
        with closing(_connect(path)) as con:
            for number, values in enumerate(con.execute(f"SELECT {quoted} FROM {TABLE}")):
                yield number, {**absent, **{k: _text(v) for k, v in zip(columns, values, strict=True)}}
    except sqlite3.DatabaseError as error:
        raise TornFileError(f"{path}: cut off or damaged: {error}", "a whole SQLite file") from error


def _text(value: Any) -> str:
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def check_ids(path: str) -> None:
    """Look at an id list's first lines.

    Raises:
        UsageError: it is none.
    """
    if not fs.exists(path):
        raise UsageError(f"no id list at {path!r}", "a file of photo ids")
    refuse_foreign(path, "a list of photo ids")
    for number, line in enumerate(first_lines(path, _SNIFFED_LINES)):
        _id_of(line, path, first=number == 0)


def read_ids(path: str) -> array[int]:
    """Return the ids of a list, sorted, each once: 8 bytes an id, so that 15 million take 120 MB.

    Raises:
        UsageError: a line that is none of the list's.
    """
    import numpy as np

    listed = (_id_of(line, path, first=number == 0) for number, (line, _) in enumerate(lines(path)))
    numbers = (id_number for id_number in listed if id_number is not None)
    ids = array("Q")
    ids.frombytes(np.unique(np.fromiter(numbers, np.uint64)).tobytes())
    return ids


def _id_of(line: str, path: str, *, first: bool) -> int | None:
    """Return the id on a line, quoted or not; None on a blank line, and on a first line that is a header."""
    fields = [field.strip().strip("'\"") for field in line.strip().rstrip(",;").split("\t")]
    text = fields[1] if len(fields) == 3 else fields[0]
    if len(fields) in (1, 3) and is_id(text):
        return int(text)
    if fields == [""] or (first and len(fields) in (1, 3) and re.fullmatch(r"[A-Za-z_ #-]+", text)):
        return None
    raise UsageError(f"{path}: {line[:60]!r} is no photo id", "one id per line, or line number⇥id⇥hash as in CLIP's subset")
