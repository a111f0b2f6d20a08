"""Lists of samples as people have them: uids, URLs or ids, one on each line, or in a column of a table.

.csv .tsv .txt and others   a name on each line, or a table whose header (or first row) shows which column is meant
.parquet                    a column of text, or of uids as 16 bytes
.json .jsonl                a list of names, or of objects with a key for them

Files are read by `shards.tables`: gzip and bzip2, any encoding, quotes of any kind. Here is only what makes a list of one:
which column is meant, and that most lists have none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.sample import uid_in
from shards.tables import delimited, json_records, parquet
from shards.tables.json_records import Bad
from shards.tables.notes import noting
from shards.tables.text import decoded, first_lines, head_of, lines, opened, refuse_foreign
from shards.tables.values import id_of

UID_COLUMNS = ("uid", "uuid", "uids", "key", "id", "image_id", "sample_id")
URL_COLUMNS = ("url", "urls", "image_url", "link")
ID_COLUMNS = ("source_id", "source_ids", "id", "image_id", "key", "name", "file", "filename", "path")
_QUOTES = "\"'`“”‘’"
_FORMS = "text with a name on each line, .csv, .tsv, .parquet, .json, .jsonl, or DataComp's .npy"
_JSON = "a list of names, or of objects with a key for them"
_HEAD_LINES = 200  # among which the first is looked for that is no comment


def quoted_uid(text: str) -> str:
    """Return the uid that a cell or a line is, with or without quotes around it; empty where it is none."""
    return uid_in(text.strip().strip(_QUOTES))


def read_names(path: str, columns: Sequence[str], is_name: Callable[[str], bool]) -> list[str]:
    """Return the names that a file lists, in its order; empty ones, and lines that begin with `#`, are passed over.

    What reading had to change, such as bytes that are no UTF-8, is a notice at the end of the command.

    Args:
        path: the file; its ending tells its format, text is the default. It may be packed: .csv.gz.
        columns: what the column may be called, in any case, the preferred first.
        is_name: whether a cell of a table without a header shows that its column is meant.

    Raises:
        UsageError: there is no file, it is no text, or it has no such column.
        RunError: it cannot be parsed.
    """
    if not fs.exists(path):
        raise UsageError(f"no file at {path!r}", _FORMS)
    ending = path.lower().removesuffix(".gz").removesuffix(".bz2").rpartition(".")[2]
    with noting() as changed:
        if ending == "parquet":
            listed = _of_parquet(path, columns)
        elif ending in ("json", "jsonl", "ndjson"):
            listed = _of_json(path, columns, by_line=ending != "json")
        else:
            listed = _of_text(path, columns, is_name)
        names = [name for name in (text.strip() for text in listed) if name]
    changed.note()
    return names


def _of_text(path: str, columns: Sequence[str], is_name: Callable[[str], bool]) -> Iterator[str]:
    refuse_foreign(path, _FORMS)
    head = first_lines(path, _HEAD_LINES)
    start = next((number for number, line in enumerate(head) if _is_content(line)), -1)
    first = head[start] if start >= 0 else ""
    if "\0" in first or "\ufffd" in first:
        raise UsageError(f"{path}: neither text nor named .npy", _FORMS)
    separator, place, header = _column_of(first, columns, is_name)
    cells = delimited.unlike(delimited.cells_of(first, separator or ","))
    if not separator or len(cells) == 1:  # below the header of an only column a comma is one of the name's own
        content = (_bare(line) for line, _ in lines(path) if _is_content(line))
        yield from itertools.islice(content, 1 if header else 0, None)
        return
    dialect = delimited.Dialect(separator, cells, start if header else -1, start, padded=True, comments=False)
    for row in delimited.rows(path, dialect):
        if _is_content(row.text):
            yield _bare(row.cells[place]) if place < len(row.cells) else ""


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _column_of(first: str, columns: Sequence[str], is_name: Callable[[str], bool]) -> tuple[str, int, bool]:
    """Return the separator, the place of the column that is meant, and whether the first line is a header; no separator: no table."""
    for separator in delimited.DELIMITERS:
        cells = [cell.strip().strip(_QUOTES).strip().lower() for cell in delimited.cells_of(first, separator)]
        for column in columns:
            if column in cells:
                return separator, cells.index(column), True
        if len(cells) > 1 and not is_name(first):
            for place, cell in enumerate(cells):
                if is_name(cell):
                    return separator, place, False
    return "", 0, False


def _bare(text: str) -> str:
    """Return a line's name without what a list of a programming language leaves around it."""
    return text.strip().rstrip(",;").strip().strip(_QUOTES).strip()


def _of_parquet(path: str, columns: Sequence[str]) -> Iterator[str]:
    name = _chosen(path, delimited.unlike(parquet.schema_of(path).names), columns)
    return (_text_of(row[name]) for row in parquet.rows(path, (name,)))


def _of_json(path: str, columns: Sequence[str], *, by_line: bool) -> Iterator[str]:
    for item in _items(path, columns, by_line=by_line):
        if isinstance(item, Bad):
            raise RunError(f"{path}: {item.why}", _JSON)
        value = item[_chosen(path, list(item), columns)] if isinstance(item, dict) else item
        yield _text_of(value)


def _items(path: str, columns: Sequence[str], *, by_line: bool) -> Iterable[Any]:
    """Return the items of a JSON list, of the list under one key of an object, or of JSON lines."""
    start = decoded(head_of(path)).lstrip()[:1]
    if start == "[" or json_records.is_lines(path, ""):
        return json_records.records(path, "")
    if start == "{":
        with opened(path) as file:
            text = decoded(file.read())
    elif by_line:
        text = "[" + ",".join(line for line, _ in lines(path) if _is_content(line)) + "]"
    else:
        raise UsageError(f"{path}: no JSON list or object", _JSON)
    try:
        document = json_records.parse(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: no JSON: {error}", _JSON) from error
    items = document[_chosen(path, list(document), columns)] if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise UsageError(f"{path}: holds {type(items).__name__}", _JSON)
    return items


def _chosen(path: str, names: Sequence[str], columns: Sequence[str]) -> str:
    """Return which of a table's columns holds the names: one that is called so, or the only one.

    Raises:
        UsageError: there is none.
    """
    by_lower = {name.lower(): name for name in names}
    chosen = next((by_lower[column] for column in columns if column in by_lower), "")
    if not chosen and len(names) != 1:
        raise UsageError(f"{path}: columns {', '.join(map(repr, names))[:200]}", f"one called {' | '.join(columns)}")
    return chosen or names[0]


def _text_of(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) and len(value) == 16 else id_of(value)
