"""Write results for other tools: DataComp's eval_results.jsonl, CSV, a LaTeX table, Parquet.

datacomp   one line for each data set of one model: {"key", "dataset", "metrics": {metric: value, …, "main_metric"}}, as the evaluation of
           mlfoundations/datacomp writes and reads; its name of mean_per_class is mean_per_class_recall
csv        one line per result, as `evaluate table --csv`
latex      a booktabs table, a line per model and a column per data set and shots, each cell with its 95% interval
parquet    all rows with all fields; labels and settings as JSON text
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eval import results
from eval.config import SelectConfig
from eval.fields import parse, text, value_of
from eval.tables import csv_text, is_best_on_test, selected, shown
from shards.core import fs
from shards.core.config import option
from shards.core.console import say
from shards.core.errors import UsageError
from shards.core.notices import note

_OF_DATACOMP = {"mean_per_class": "mean_per_class_recall"}
_IN_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", **{c: f"\\{c}" for c in "&%$#_{}"}}
_NUMBERS = ("value", "low", "high", "chance", "detectable")
_AS_JSON = ("settings", "labels", "manifests", "runs", "predictions", "undecodable", "covers", "chosen", "over", "against")


@dataclass(frozen=True)
class ExportConfig(SelectConfig):
    """Flags of `evaluate export`: those of `evaluate table`, which choose the rows, a format and a place."""

    format: Literal["datacomp", "csv", "latex", "parquet"] = option("csv", "what to write")
    output: str = option("", "file to write", metavar="FILE")
    overwrite: bool = option(False, "replace the file if there is one")


def export(config: ExportConfig) -> None:
    """Write the rows that the flags choose.

    Raises:
        UsageError: no output, one that exists, no rows, or for datacomp rows of several models, protocols or shots.
    """
    if not config.output:
        raise UsageError("no --output", "a file to write", "--output FILE")
    if fs.exists(config.output) and not config.overwrite:
        raise UsageError(f"--output {config.output}: there already", "a name that is free, or --overwrite")
    rows = selected(config)
    content = {"datacomp": _datacomp, "csv": _csv, "latex": _latex, "parquet": parquet}[config.format](rows, config)
    with fs.atomic_write(config.output) as file:
        file.write(content)
    say(f"{config.output}: {len(rows)} results as {config.format}")


def _csv(rows: Sequence[dict[str, Any]], _: ExportConfig) -> bytes:
    return (csv_text(rows) + "\n").encode()


def _datacomp(rows: Sequence[dict[str, Any]], _: ExportConfig) -> bytes:
    """Return a line per data set.

    Raises:
        UsageError: the rows are of several models, or several rows give one metric of one data set.
    """
    models = list(dict.fromkeys(text(row.get("name")) for row in rows))
    if len(models) > 1:
        raise UsageError(f"--format datacomp: {len(models)} models, {', '.join(models[:5])}", "one", "--where name=NAME")
    sets: dict[str, dict[str, float]] = {}
    main: dict[str, float] = {}
    for row in rows:
        metrics = sets.setdefault(row["data"], {})
        name = _OF_DATACOMP.get(row["metric"], row["metric"])
        if name in metrics:
            found = f"--format datacomp: several rows give {name} of {row['data']}"
            raise UsageError(found, "one protocol and one number of shots", "--protocol NAME --where k=K")
        metrics[name] = row["value"]
        if row.get("main"):
            main[row["data"]] = row["value"]
    note(len(sets) - len(main), "data [set has no row of its|sets have no row of their] main metric", "main_metric is null")
    lines = [{"key": key, "dataset": key, "metrics": {**metrics, "main_metric": main.get(key)}} for key, metrics in sets.items()]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _latex(rows: Sequence[dict[str, Any]], config: ExportConfig) -> bytes:
    """Return a booktabs table; † marks the best on test."""
    lines = parse(config.rows, rows, "--rows") or ["name"]
    across = parse(config.columns, rows, "--columns") or _across(rows, lines)
    cells: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
    columns: dict[tuple[str, ...], None] = {}
    for row in rows:
        key = tuple(text(value_of(row, field)) for field in lines)
        column = tuple(text(value_of(row, field)) for field in across)
        line = cells.setdefault(key, {})
        note(
            int(column in line),
            "[result falls|results fall] into the cell of another one and [is|are] not shown",
            "--where, --rows or --columns part them",
        )
        line[column] = latex_cell(row)
        columns[column] = None
    body = [" & ".join([*map(escaped, key), *(line.get(column, "--") for column in columns)]) + r" \\" for key, line in cells.items()]
    heads = [_head(across, column) for column in columns]
    head = " & ".join([*map(escaped, lines), *heads]) + r" \\"
    frame = [rf"\begin{{tabular}}{{{'l' * len(lines)}{'c' * len(columns)}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    signs = [r"% $^\dagger$: best on test"] if any(is_best_on_test(row) for row in rows) else []
    intervals = list(dict.fromkeys(str(row.get("interval")) for row in rows if row.get("interval")))
    told = [f"% 95% intervals over: {'; '.join(intervals)}"] if intervals else []
    return ("\n".join([r"% needs \usepackage{booktabs}", *told, *signs, *frame, r"\end{tabular}"]) + "\n").encode()


def _across(rows: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> list[str]:
    """Return the fields that tell columns apart: the data set, and what else differs."""
    candidates = ("data", "protocol", "k", "metric")
    return [f for f in candidates if f not in lines and (f == "data" or len({text(row.get(f)) for row in rows}) > 1)]


def _head(fields: Sequence[str], values: Sequence[str]) -> str:
    words = [f"$k={escaped(value)}$" if field == "k" else escaped(value) for field, value in zip(fields, values, strict=True) if value]
    return " ".join(words) or r"\%"


def latex_cell(row: Mapping[str, Any]) -> str:
    r"""Return such as `63.2\,{\scriptsize [60.1, 66.2]}`, in percent."""
    sign = r"$^\dagger$" if is_best_on_test(row) else ""
    metric, low, high = str(row.get("metric")), row.get("low"), row.get("high")
    bounds = "" if low is None or high is None else rf"\,{{\scriptsize [{shown(metric, low)}, {shown(metric, high)}]}}"
    return f"{shown(metric, row['value'])}{sign}{bounds}"


def escaped(word: str) -> str:
    """Return a text as LaTeX sets it."""
    return "".join(_IN_LATEX.get(character, character) for character in word)


def parquet(rows: Sequence[dict[str, Any]], _: ExportConfig | None = None) -> bytes:
    """Return the rows as a Parquet file: numbers as numbers, what is nested as JSON text, k as text since it may be `all`."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [*results.Row.__dataclass_fields__, *_more(rows)]
    columns = {field: [_flat(field, row.get(field)) for row in rows] for field in fields}
    file = io.BytesIO()
    kinds = {name: pa.float64() for name in _NUMBERS} | {name: pa.string() for name in (*_AS_JSON, "k")}  # also where all are null
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), file, compression="zstd")
    return file.getvalue()


def _more(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in results.Row.__dataclass_fields__ and name != "members"]


def _flat(field: str, value: Any) -> Any:
    if field in _AS_JSON and value is not None:
        return json.dumps(value, ensure_ascii=False, default=list)
    return text(value) if field == "k" and value is not None else value
