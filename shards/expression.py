"""A condition over the columns of samples, in SQL: `laion.similarity > 0.3 AND width >= 200`.

DuckDB's own parser reads it, and only what it understood is ever run: one expression, over columns, constants and pure
scalar functions. No sub-query, no function that reads files, settings, clocks or dice; a column's name may hold a dot.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards import layers
from shards.core.engines.local import threads_of
from shards.core.errors import UsageError, closest
from shards.core.notices import note
from shards.manifest import Manifest
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_ALLOWED = {"COLUMN_REF", "CONSTANT", "FUNCTION", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "TYPE", "LAMBDA"}
_RULE = "one condition over columns and constants, such as width >= 200 AND caption NOT LIKE '%stock%'"


@dataclass(frozen=True)
class Condition:
    """A condition that was understood: as SQL over columns quoted by name, and the columns that it names."""

    sql: str
    columns: tuple[str, ...]


def parse(text: str) -> Condition:
    """Return the condition that a text says.

    Raises:
        UsageError: it is no expression, more than one, or more than an expression over columns may be.
    """
    con = _connection()
    tree = json.loads(con.execute("SELECT json_serialize_sql($1::VARCHAR)", [f"SELECT ({text}\n)"]).fetchall()[0][0])
    if tree["error"]:
        raise UsageError(f"condition {text!r}: {tree['error_message']}", _RULE)
    empty = json.loads(con.execute("SELECT json_serialize_sql('SELECT (TRUE)')").fetchall()[0][0])
    expressions = [s["node"].get("select_list", []) for s in tree["statements"]]
    if len(expressions) != 1 or len(expressions[0]) != 1:
        raise UsageError(f"condition {text!r}: more than one expression", _RULE)
    names: dict[str, None] = {}
    for node in _nodes(expressions[0][0]):
        _check(node, text)
        if node.get("class") == "COLUMN_REF":
            node["column_names"] = [".".join(node["column_names"])]
            names[node["column_names"][0]] = None
    bound = {n.get("column_names", [""])[0] for e in _nodes(expressions[0][0]) if e.get("class") == "LAMBDA" for n in _nodes(e.get("lhs"))}
    # What is run is the expression alone, in a statement of ours: whatever else the text had around it is gone.
    empty["statements"][0]["node"]["select_list"] = expressions[0]
    sql = con.execute("SELECT json_deserialize_sql($1::JSON)", [json.dumps(empty)]).fetchall()[0][0]
    if _shape(tree) != _shape(empty):
        raise UsageError(f"condition {text!r}: more than an expression", _RULE)
    return Condition(sql.removeprefix("SELECT "), tuple(n for n in names if n not in bound))


def _shape(statement: dict[str, Any]) -> Any:
    """Return what stands around the expression of a parsed statement, places in the text aside."""
    if isinstance(statement, dict):
        return {k: _shape(v) for k, v in statement.items() if k not in ("select_list", "query_location", "query_location_length")}
    return [_shape(v) for v in statement] if isinstance(statement, list) else statement


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _check(node: dict[str, Any], text: str) -> None:
    kind = node.get("class")
    if kind is not None and kind not in _ALLOWED:
        raise UsageError(f"condition {text!r}: {str(kind).lower().replace('_', ' ')}", _RULE)
    if kind == "FUNCTION" and (node["function_name"] not in _functions() or node["schema"] or node["catalog"]):
        name = node["function_name"]
        raise UsageError(f"condition {text!r}: function {name}", "DuckDB's pure scalar functions", closest(name, _functions()))


@functools.cache
def _functions() -> frozenset[str]:
    """Return the functions whose value depends on nothing but their arguments."""
    rows = (
        _connection()
        .execute("""
        SELECT function_name FROM duckdb_functions() WHERE function_type = 'scalar' AND function_name NOT LIKE '\\_\\_%' ESCAPE '\\'
        GROUP BY 1 HAVING bool_and(stability = 'CONSISTENT') OR function_name IN ('+', '-')
    """)
        .fetchall()
    )  # + and - are also those of dates with the clock's zone
    return frozenset(name for (name,) in rows)


@functools.cache
def _connection() -> Any:
    import duckdb

    return duckdb.connect(config={"enable_external_access": "false", "threads": str(threads_of())})


class Filter:
    """A condition bound to columns that exist; gives for each row of a table whether it holds."""

    def __init__(self, condition: Condition, schema: pa.Schema) -> None:
        """Take the columns that there are, in all.

        Raises:
            UsageError: a column that is not there, or the types do not fit, or the value is not true or false.
        """
        import duckdb
        import pyarrow as pa

        self.columns = [_column(name, schema.names) for name in condition.columns]
        self._names = condition.columns  # as the condition spells them
        self.schema = schema
        self.unknown = 0
        self._sql = f"SELECT ({condition.sql}) AS it FROM samples"
        self._con = duckdb.connect(config={"enable_external_access": "false", "threads": str(threads_of())})
        self._con.register("samples", pa.schema([(n, schema.field(c).type) for n, c in self._pairs()]).empty_table())
        try:
            kind = str(self._con.sql(self._sql).types[0])
        except duckdb.Error as error:
            advice = "TRY_CAST(column AS DOUBLE) makes a number of text" if "explicit cast" in str(error) else ""
            raise UsageError(f"condition {condition.sql}: {error}", _RULE, advice) from error
        if kind != "BOOLEAN":
            raise UsageError(f"condition {condition.sql} gives {kind}", "true or false")

    def _pairs(self) -> list[tuple[str, str]]:
        """Return the columns as the condition spells them, each with its name; where there is none, any column, to count rows by."""
        by_lower = {name.lower(): (name, column) for name, column in zip(self._names, self.columns, strict=True)}  # SQL knows no case
        return list(by_lower.values()) or [(name, name) for name in self.schema.names[:1]]

    def holds(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return for each row whether the condition holds; where it is NULL it does not, and `unknown` counts it.

        Columns that are missing are NULL.

        Raises:
            UsageError: a value cannot be computed, such as a cast of text that is no number.
        """
        import duckdb
        import pyarrow as pa

        arrays = {
            name: table[column] if column in table.column_names else pa.nulls(table.num_rows, self.schema.field(column).type)
            for name, column in self._pairs()
        }
        self._con.register("samples", pa.table(arrays))
        try:
            answers = self._con.sql(self._sql).to_arrow_table()["it"]
        except duckdb.Error as error:
            raise UsageError(f"condition {self._sql}: {error}", "a value for every sample; TRY_CAST gives NULL where CAST fails") from error
        self.unknown += answers.null_count
        return answers.fill_null(False).to_numpy()


def _column(name: str, names: list[str]) -> str:
    """Return the column that a name means, in any letter case; `Photographer` may stand for `table.Photographer`.

    Raises:
        UsageError: there is none, or several such.
    """
    whole = {known.lower(): known for known in names}
    if name.lower() in whole:
        return whole[name.lower()]
    ends = [known for known in names if known.lower().partition(".")[2] == name.lower()]
    if len(ends) != 1:
        advice = f"one of {', '.join(ends)}" if ends else closest(name, names) or "`--keep-columns` of a build keeps a source's own columns"
        raise UsageError(f"no column {name!r}", ", ".join(names), advice)
    return ends[0]


class Bound:
    """A condition over the columns of one set, asked shard by shard."""

    def __init__(self, filter: Filter) -> None:
        self._filter = filter

    def holds(self, shard: Shard) -> NDArray[np.bool_]:
        """Return for each sample in use of a shard whether the condition holds."""
        import pyarrow as pa

        table = shard.sidecar(self._filter.columns)
        return self._filter.holds(table if table.num_columns else pa.table({"key": pa.nulls(len(shard), pa.string())}))

    def note(self) -> None:
        """Have told how many samples the condition had no value for: they were left out as if it did not hold."""
        note(self._filter.unknown, "[sample|samples] left out: the condition has no value for [it|them]", "a column of it is empty there")


def bound(manifest: Manifest, text: str) -> Bound:
    """Return a condition over the columns of a set.

    Raises:
        UsageError: it cannot be understood, names a column that is not there, or the set has no columns.
    """
    return Bound(Filter(parse(text), known_columns(manifest)))


def known_columns(manifest: Manifest) -> pa.Schema:
    """Return the columns of a set's sidecars and layers: `caption`, `<filter>.<column>`, `<layer>.<column>` …

    Raises:
        UsageError: there is none.
    """
    import pyarrow as pa

    first = {manifest.folder_of(entry): entry for entry in reversed(manifest.shards)}
    kinds: dict[str, pa.DataType] = {}
    for folder, entry in reversed(first.items()):
        with Shard(manifest, entry) as shard:
            kinds_of_sidecar = {field.name: field.type for field in shard.sidecar().schema}
        kinds = layers.columns_of(folder) | kinds_of_sidecar | kinds
    if not kinds:
        raise UsageError(f"{manifest.folder!r} has neither sidecars nor layers: no columns to choose by", advice="--uids FILE")
    return pa.schema(list(kinds.items()))
