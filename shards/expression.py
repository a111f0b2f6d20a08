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

from shards.core.errors import UsageError, closest

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
    found = json.loads(con.execute("SELECT json_serialize_sql($1::VARCHAR)", [f"SELECT ({text}\n)"]).fetchall()[0][0])
    if found["error"]:
        raise UsageError(f"condition {text!r}: {found['error_message']}", _RULE)
    empty = json.loads(con.execute("SELECT json_serialize_sql('SELECT (TRUE)')").fetchall()[0][0])
    expressions = [s["node"].get("select_list", []) for s in found["statements"]]
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
    if _shape(found) != _shape(empty):
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

    return duckdb.connect(config={"enable_external_access": "false"})


class Filter:
    """A condition bound to columns that exist; gives for each row of a table whether it holds."""

    def __init__(self, condition: Condition, schema: pa.Schema) -> None:
        """Take the columns that there are, in all.

        Raises:
            UsageError: a column that is not there, or the types do not fit, or the value is not true or false.
        """
        import duckdb

        by_lower = {name.lower(): name for name in schema.names}
        for name in condition.columns:
            if name.lower() not in by_lower:
                raise UsageError(f"no column {name!r}", ", ".join(schema.names), closest(name, schema.names))
        self.columns = [by_lower[name.lower()] for name in condition.columns]
        self.schema = schema
        self._sql = f"SELECT ({condition.sql}) AS it FROM samples"
        self._con = duckdb.connect(config={"enable_external_access": "false"})
        self._con.register("samples", schema.empty_table())
        try:
            kind = str(self._con.sql(self._sql).types[0])
        except duckdb.Error as error:
            raise UsageError(f"condition {condition.sql}: {error}", _RULE) from error
        if kind != "BOOLEAN":
            raise UsageError(f"condition {condition.sql} gives {kind}", "true or false")

    def holds(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return for each row whether the condition holds; where it is NULL it does not. Columns that are missing are NULL.

        Raises:
            UsageError: a value cannot be computed, such as a cast of text that is no number.
        """
        import duckdb
        import pyarrow as pa

        columns = self.columns or self.schema.names[:1]
        given = [table[c] if c in table.column_names else pa.nulls(table.num_rows, self.schema.field(c).type) for c in columns]
        self._con.register("samples", pa.table(dict(zip(columns, given, strict=True))))
        try:
            found = self._con.sql(f"SELECT coalesce(it, FALSE) AS it FROM ({self._sql})").to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"condition {self._sql}: {error}", "a value for every sample; TRY_CAST gives NULL where CAST fails") from error
        return found["it"].to_numpy()
