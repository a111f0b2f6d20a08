"""Read the results and print them: one line each, or a pivot with intervals; gathered, compared, sorted and filtered as asked."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval import results
from eval.compare import against, detectable_alone
from eval.config import SelectConfig, TableConfig
from eval.fields import DIGESTS, FIELDS, chance, covers, is_data_unknown, parse, text, value_of, where
from eval.gather import LEVELS, best, over
from eval.metrics import NO_SHARES
from shards.core.console import emit, say, table, warn
from shards.core.errors import UsageError

# Numbers of a row that may be sorted by, the largest first.
_NUMBERS = ("value", "low", "high", "chance", "mean", "difference", "p")
_LEAST_P = 0.0005  # what 10,000 replicates can tell from 0
ON_TEST, UNKNOWN = "†", "?"
_NOT_IN_CSV = ("settings", "undecodable", "runs", "version", "labels", "predictions")


def show(config: TableConfig) -> None:
    """Print the table of results.

    Raises:
        UsageError: no results, unknown fields, or nothing left to show.
    """
    rows = selected(config)
    if config.json:
        emit([{key: value for key, value in row.items() if key != "members"} for row in rows])
    elif config.csv:
        emit(csv_text(rows))
    else:
        placed = rows if config.sort else sorted(rows, key=_place)
        emit(_pivoted(placed, config) if config.rows or config.columns else long_table(placed))
    _explain(rows)


def _pivoted(rows: Sequence[dict[str, Any]], config: TableConfig) -> str:
    lines = parse(config.rows, rows, "--rows") or ["name"]
    return pivot(rows, lines, parse(config.columns, rows, "--columns") or None)


def selected(config: SelectConfig) -> list[dict[str, Any]]:
    """Return the rows that the flags ask for: filtered, the best of grids, means over levels, compared, sorted.

    Raises:
        UsageError: no results, unknown fields, or nothing left.
    """
    rows = _latest(results.read(config.results))
    rows = where([row for row in rows if _wanted(row, config)], config.where)
    if not rows:
        raise UsageError(f"{config.results}: no such result", advice="evaluate table without --metric, --protocol and --where")
    levels = parse(config.over, rows, "--over", tuple(LEVELS))
    if config.best:
        rows = best(rows, parse(config.best, rows, "--best"))
    if levels:
        rows = over(rows, levels, config.results)
    if config.against:
        rows = against(rows, config.against, levels, config.results)
    rows = [{**row, "chance": chance(row), "detectable": detectable_alone(row), "covers": covers(row)} for row in rows]
    return _sorted(rows, config.sort)


def _wanted(row: Mapping[str, Any], config: SelectConfig) -> bool:
    metric = not config.metric or row["metric"] == config.metric or (config.metric == "main" and bool(row.get("main")))
    return metric and config.protocol in ("", row["protocol"])


def _sorted(rows: list[dict[str, Any]], fields: str) -> list[dict[str, Any]]:
    """Return rows by fields, numbers of the result the largest first; as they are where there are no fields."""
    if not fields:
        return rows
    for field in reversed(parse(fields, rows, "--sort", _NUMBERS)):
        rows = sorted(rows, key=_sort_key(field))
    return rows


def _sort_key(field: str) -> Callable[[dict[str, Any]], tuple[float, str]]:
    if field in _NUMBERS:
        return lambda row: (-_number(row, field), "")
    return lambda row: _rank(value_of(row, field))


def _number(row: Mapping[str, Any], field: str) -> float:
    facts = {**(row.get("against") or {}), **row, "mean": (row.get("chosen") or {}).get("mean")}
    value = facts.get(field)
    return float("-inf") if value is None else float(value)


def _rank(value: Any) -> tuple[float, str]:
    try:
        return float(value), ""
    except (TypeError, ValueError):
        return float("inf"), text(value)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Results that compare stand together, whichever was appended first; k in the order of numbers."""
    return text(row.get("data")), text(row.get("protocol")), _rank(row.get("k")), text(row.get("metric")), text(row.get("name"))


def _latest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop rows that a later row repeats: the same model, data, metric and settings under the same names and labels."""
    keys = ("name", "data", "protocol", "k", "metric", "checkpoint", "dataset", "classes", "config", "labels")
    last = {tuple(str(row.get(key) or "") for key in keys): i for i, row in enumerate(rows)}
    return [rows[i] for i in sorted(last.values())]


def long_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per result; values in percent, intervals at 95%. Columns that no row fills are left out."""
    labels = [field for field in _labels_that_vary(rows) if field not in FIELDS]
    unit = "% (nll, barriers in nats)" if any(row.get("metric") in NO_SHARES for row in rows) else "%"
    header = ["name", *labels, "data", "protocol", "k", "metric", unit, "95% interval", "of", "n"]
    lines = [_line(row, labels) for row in rows]
    for name, cells in _more_columns(rows).items():
        header.append(name)
        lines = [[*line, cell] for line, cell in zip(lines, cells, strict=True)]
    return table(header, lines)


def _line(row: Mapping[str, Any], labels: Sequence[str]) -> list[Any]:
    sign = _signs(row)
    name = f"{text(row.get('name'))}{' ' if sign else ''}{sign}"
    said = [text((row.get("labels") or {}).get(field)) for field in labels]
    return [name, *said, *(text(row.get(field)) for field in FIELDS[1:]), *_value(row), row.get("interval", ""), row.get("n", 0)]


def _labels_that_vary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the labels in which rows differ, but for what the name says already."""
    names = dict.fromkeys(name for row in rows for name in row.get("labels") or {})
    varying = [name for name in names if len({text((row.get("labels") or {}).get(name)) for row in rows}) > 1]
    gathered_over = {name for row in rows for name in row.get("over") or {}}
    return [name for name in varying if name != "data" and name not in gathered_over]


def _more_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the columns that only some tables have, by name."""
    metrics = [str(row.get("metric")) for row in rows]
    columns = {"chance": [_shown_or_none(metric, row.get("chance")) for metric, row in zip(metrics, rows, strict=True)]}
    means = [(row.get("chosen") or {}).get("mean") for row in rows]
    columns["mean of grid"] = [_shown_or_none(metric, mean) for metric, mean in zip(metrics, means, strict=True)]
    columns["best"] = [_chosen(row) for row in rows]
    facts = [row.get("against") or {} for row in rows]
    name = next((entry["name"] for entry in facts if entry), "")
    columns[f"less {name}"] = [_difference(metric, entry) for metric, entry in zip(metrics, facts, strict=True)]
    columns["p"] = [_p_value(entry.get("p")) for entry in facts]
    columns["sees"] = [_shown_or_none(metric, entry.get("detectable")) for metric, entry in zip(metrics, facts, strict=True)]
    columns["paired"] = [str(entry.get("how", "")) for entry in facts]
    return {name: cells for name, cells in columns.items() if any(cells)}


def _shown_or_none(metric: str, value: float | None) -> str:
    return "" if value is None else shown(metric, value)


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    return f"{p:.2g}" if p >= _LEAST_P else f"<{_LEAST_P:g}"


def _chosen(row: Mapping[str, Any]) -> str:
    chosen = row.get("chosen")
    if not chosen:
        return ""
    values = ", ".join(f"{name} {text(value)}" for name, value in chosen["values"].items())
    if chosen["of"] == 1:
        return f"{values}, the only one"
    return f"{values} of {chosen['of']}, {'best on test' if chosen['by'] == 'test' else 'by validation'}"


def _difference(metric: str, entry: Mapping[str, Any]) -> str:
    if not entry:
        return ""
    scale, digits = (1, 3) if metric in NO_SHARES else (100, 1)
    bounds = ""
    if entry.get("low") is not None:
        bounds = f" [{scale * entry['low']:+.{digits}f}, {scale * entry['high']:+.{digits}f}]"
    return f"{scale * entry['difference']:+.{digits}f}{bounds}"


def shown(metric: str, value: float) -> str:
    """Return a value as tables have it: in percent with a decimal, or in its own unit with three where it is no share."""
    return f"{value:.3f}" if metric in NO_SHARES else f"{100 * value:.1f}"


def _value(row: Mapping[str, Any]) -> list[str]:
    metric, low, high = str(row.get("metric")), row.get("low"), row.get("high")
    bounds = "" if low is None or high is None else f"{shown(metric, low)} – {shown(metric, high)}"
    return [shown(metric, row["value"]), bounds]


def pivot(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], columns: Sequence[str] | None = None) -> str:
    """Return a table with a line per value of `fields` and a column per combination that occurs of `columns`.

    A cell holds `63.2 [60.1, 66.2]`, with † where it is the best on test and ? where nothing is known of the model's data. Where
    several results fall into a cell the last one stands, and a warning says so.

    Args:
        columns: fields; None takes what tells results apart for a reader and is not among `fields`.
    """
    across = list(columns) if columns is not None else _columns_left(rows, fields)
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    ranks: dict[str, tuple[Any, ...]] = {}
    hidden = 0
    for row in rows:
        column = " ".join(_headed(row, field) for field in across if text(value_of(row, field))) or "%"
        key = tuple(text(value_of(row, field))[: 12 if field in DIGESTS else None] for field in fields)
        line = cells.setdefault(key, {})
        hidden += column in line
        line[column] = cell(row)
        ranks[column] = tuple(_rank(value_of(row, field)) for field in across)
    if hidden:
        warn(f"{hidden} earlier results fall into the same cells and are not shown; add checkpoint or config to --rows")
    ordered = sorted(ranks, key=lambda name: ranks[name]) if columns is not None else list(ranks)
    return table([*fields, *ordered], [[*key, *(line.get(name, "") for name in ordered)] for key, line in cells.items()])


def cell(row: Mapping[str, Any]) -> str:
    """Return a result as a cell of a pivot."""
    value, interval = _value(row)
    bounds = f" [{interval.replace(' – ', ', ')}]" if interval else ""
    return f"{value}{_signs(row)}{bounds}"


def _signs(row: Mapping[str, Any]) -> str:
    return f"{ON_TEST if is_best_on_test(row) else ''}{UNKNOWN if is_data_unknown(row) else ''}"


def is_best_on_test(row: Mapping[str, Any]) -> bool:
    """Return whether a row was chosen among several by its test value, here or by whoever published it (settings.selected_on)."""
    chosen = row.get("chosen") or {}
    if (row.get("settings") or {}).get("selected_on") == "test":
        return True
    return chosen.get("by") == "test" and chosen.get("of", 0) > 1


def _columns_left(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[str]:
    return [f for f in FIELDS if f not in fields and (f == "metric" or len({text(row.get(f)) for row in rows}) > 1)]


def _headed(row: Mapping[str, Any], field: str) -> str:
    value = text(value_of(row, field))
    return f"k={value}" if field == "k" else value


def _explain(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say on stderr what signs mean, and what intervals leave out."""
    unknown = sum(is_data_unknown(row) for row in rows)
    if unknown:
        say(f"{UNKNOWN}: nothing is known of what the model was trained on ({unknown} of {len(rows)} rows)")
    chosen = sum(is_best_on_test(row) for row in rows)
    if chosen:
        say(f"{ON_TEST}: best on test: chosen by the value shown, which is too high for that ({chosen} of {len(rows)} rows)")
    if any("over" in row or "members" in row for row in rows):
        kinds = {", ".join(covers(row)) or "nothing" for row in rows}
        say(f"intervals cover: {'; '.join(sorted(kinds))}")
    compared = [row for row in rows if row.get("against")]
    if compared:
        say(f"sees: the smallest true difference found in 4 of 5 such studies; p is of one comparison, not of all {len(compared)}")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV without its last line end: a line per result, labels in columns of their own."""
    header = [f for f in results.Row.__dataclass_fields__ if f not in _NOT_IN_CSV]
    labels = list(dict.fromkeys(name for row in rows for name in row.get("labels") or {}))
    more = ["chance", "detectable", "covers"]
    facts = ["difference", "low", "high", "p", "how", "detectable"] if any(row.get("against") for row in rows) else []
    grid = ["by", "of", "mean"] if any(row.get("chosen") for row in rows) else []
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([*header, *(f"labels.{n}" for n in labels), *more, *(f"best.{n}" for n in grid), *(f"against.{n}" for n in facts)])
    for row in rows:
        cells = [_plain(row.get(field)) for field in header]
        cells += [_plain((row.get("labels") or {}).get(name)) for name in labels]
        cells += [_plain(row.get(name)) for name in more]
        cells += [_plain((row.get("chosen") or {}).get(name)) for name in grid]
        writer.writerow([*cells, *(_plain((row.get("against") or {}).get(name)) for name in facts)])
    return content.getvalue().rstrip("\n")


def _plain(value: Any) -> str:
    """Return a value for CSV: all digits of a number."""
    return str(value) if isinstance(value, float) else text(value)
