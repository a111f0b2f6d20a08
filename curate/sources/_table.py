"""What sources ask of a table: that its URLs are where their column says, which source it looks like, values of a column's type."""

from __future__ import annotations

import math
from typing import Any

from curate.sources import _guess
from curate.sources.base import URL
from shards.core.errors import UsageError
from shards.tables.table import Table
from shards.tables.values import storable, value_of

_TRUTHS = {**dict.fromkeys(("true", "yes", "y", "1"), True), **dict.fromkeys(("false", "no", "n", "0"), False)}


def advice(table: Table) -> str:
    """Return which source the file looks like, as advice."""
    if table.headless:
        first = table.first(table.columns)
        return _guess.advice(_guess.by_line("\t".join(map(storable, first[0].values()))) if first else "")
    return _guess.advice(_guess.by_columns(table.columns))


def refuse_swapped(table: Table, url: str, text: str, allowed: str) -> None:
    """Refuse a table whose first rows have no URL in the column `url`; say if they stand in `text`, or are pictures in base64.

    Both may be dotted names that reach into JSON.
    """
    first = table.first(tuple(dict.fromkeys(column_of(table, name) for name in (url, text))))
    cells = [_first_text(value_of(row, url)) for row in first]
    texts = [_first_text(value_of(row, text)) for row in first]
    if not any(cells) or any(map(URL.match, cells)):
        return
    where = f"; they stand in {text!r}" if any(map(URL.match, texts)) else ""
    problem = f"{table.path}: no URL in the first {len(first)} rows of {url!r}{where}"
    if any(cell.startswith("data:image/") for cell in cells):
        raise UsageError(f"{problem}: it holds pictures as data URIs", allowed, f"--source table --image-column {url}")
    raise UsageError(problem, allowed, "rename the columns")


def column_of(table: Table, name: str) -> str:
    """Return the column that a name or a dotted name reaches into."""
    return name if name in table.columns else name.partition(".")[0]


def _first_text(value: Any) -> str:
    """Return a cell as text, of a list its first part."""
    return storable(value[0] if isinstance(value, list) and value else value).strip()


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
