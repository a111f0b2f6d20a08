"""Read the results and print them: one line each, or a pivot with intervals."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from eval import results
from eval.config import TableConfig
from shards.core.console import emit, table, warn
from shards.core.errors import UsageError, closest

# What tells results apart for a reader. A pivot's columns are those of them that are not its rows.
FIELDS = ("name", "data", "protocol", "k", "metric")
DIGESTS = ("checkpoint", "dataset", "config")  # shown by their first twelve digits
ROW_FIELDS = (*FIELDS, *DIGESTS, "step", "samples_seen", "manifests")


def show(config: TableConfig) -> None:
    """Print the table of results.

    Raises:
        UsageError: no results, unknown fields, or nothing left to show.
    """
    rows = _latest(results.read(config.results))
    rows = [r for r in rows if _wanted(r, config)]
    if not rows:
        raise UsageError(f"{config.results}: no such result", advice="evaluate table without --metric and --protocol")
    if config.json:
        emit(rows)
    elif config.csv:
        emit(_csv(rows))
    else:
        placed = sorted(rows, key=_place)
        emit(pivot(placed, _fields(config.rows)) if config.rows else long_table(placed))


def _wanted(row: dict[str, Any], config: TableConfig) -> bool:
    metric = not config.metric or row["metric"] == config.metric or (config.metric == "main" and bool(row.get("main")))
    return metric and config.protocol in ("", row["protocol"])


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    """Results that compare stand together, whichever was appended first; k in the order of numbers."""
    return (
        _text(row.get("data")),
        _text(row.get("protocol")),
        f"{_text(row.get('k')):>9}",
        _text(row.get("metric")),
        _text(row.get("name")),
    )


def _latest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop rows that a later row repeats: the same model, data, metric and settings under the same names."""
    keys = ("name", "data", "protocol", "k", "metric", "checkpoint", "dataset", "classes", "config")
    last = {tuple(str(row.get(key)) for key in keys): i for i, row in enumerate(rows)}
    return [rows[i] for i in sorted(last.values())]


def _fields(text: str) -> list[str]:
    fields = [word.strip() for word in text.split(",")]
    for field in fields:
        if field not in ROW_FIELDS:
            raise UsageError(f"--rows {text}: no field {field!r}", ", ".join(ROW_FIELDS), closest(field, ROW_FIELDS))
    return fields


def long_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line per result; values in percent, intervals at 95%."""
    header = ["name", "data", "protocol", "k", "metric", "%", "95% interval", "of", "n"]
    return table(header, [[*_labels(row), *_percent(row), row.get("interval", ""), row.get("n", 0)] for row in rows])


def _labels(row: dict[str, Any]) -> list[str]:
    return [_text(row.get(field)) for field in FIELDS]


def _percent(row: dict[str, Any]) -> list[str]:
    low, high = row.get("low"), row.get("high")
    return [f"{100 * row['value']:.1f}", "" if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f}"]


def pivot(rows: Sequence[dict[str, Any]], fields: Sequence[str]) -> str:
    """Return a table with a line per value of `fields` and a column per remaining combination that occurs.

    A cell holds `63.2 [60.1, 66.2]`. Where several results fall into a cell the last one stands, and a warning says so.
    """
    across = [f for f in FIELDS if f not in fields and (f == "metric" or len({_text(r.get(f)) for r in rows}) > 1)]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, None] = {}
    hidden = 0
    for row in rows:
        column = " ".join(f"k={row[f]}" if f == "k" else _text(row.get(f)) for f in across if _text(row.get(f))) or "%"
        line = cells.setdefault(tuple(_text(row.get(f))[: 12 if f in DIGESTS else None] for f in fields), {})
        hidden += column in line
        value, interval = _percent(row)
        line[column] = f"{value} [{interval.replace(' – ', ', ')}]" if interval else value
        columns[column] = None
    if hidden:
        warn(f"{hidden} earlier results fall into the same cells and are not shown; add checkpoint or config to --rows")
    return table([*fields, *columns], [[*key, *(line.get(c, "") for c in columns)] for key, line in cells.items()])


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    header = [f for f in results.Row.__dataclass_fields__ if f not in ("settings", "undecodable", "runs", "version")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_text(row.get(field)) for field in header] for row in rows)
    return text.getvalue().rstrip("\n")


def _text(value: Any) -> str:
    """Return a value as one word: null is empty, manifests are their digests."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "+".join(str(v.get("digest", ""))[:12] if isinstance(v, dict) else str(v) for v in value)
    return str(value)
