"""Who is held out, the order of the survivors, and the first N of them: the table `decided`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.listing import scalar, sql_text
from curate.recipe import Recipe
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

HOLDOUT_SALT = "holdout"
_NOT_HELD = "('0x' || left(sha256('{salt}:' || replace(image::VARCHAR, '-', '')), 16))::UBIGINT / 18446744073709551616.0 >= {share}"

_DECIDED = """
CREATE TABLE decided AS
SELECT place, s.uid, source, class_index, rank_key, coalesce(rank, -1) AS rank,
       (CASE WHEN d.reason IS NOT NULL OR refusal <> '' THEN 'dropped' WHEN rank IS NULL THEN 'holdout'
             WHEN rank < {limit} THEN 'kept' ELSE 'spare' END)::decision AS decision,
       coalesce(d.reason, refusal) AS reason, coalesce(d.detail, s.detail) AS detail, duplicate_of
FROM samples s LEFT JOIN (SELECT place, row_number() OVER (ORDER BY {order}) - 1 AS rank FROM survivors) USING (place)
LEFT JOIN (FROM drops LEFT JOIN (SELECT place AS winner, uid AS duplicate_of FROM samples) USING (winner)) d USING (place)
"""


def rank_survivors(con: duckdb.DuckDBPyConnection, recipe: Recipe, keys: pa.Table | None = None) -> None:
    """Hold out, rank and cut; make the table `decided`.

    Survivors stand by rank key; balanced ones by their balance key first. With quotas a source's k-th survivor in that
    order stands at (k - 1/2) / quota.

    Args:
        keys: `uid` and `key` (double), the balance key of each survivor; one without a key stands last.
    """
    held = f"WHERE {_NOT_HELD.format(salt=HOLDOUT_SALT, share=recipe.holdout)}" if recipe.holdout > 0 else ""
    con.execute(f"CREATE VIEW standing AS SELECT place, source, class_index, rank_key, uid FROM alive {held}")
    quotas = {s.name: s.samples for s in recipe.sources if s.samples}
    rows, by = "standing", "rank_key, uid"
    if keys is not None:
        con.register("balance_keys", keys)
        con.execute("CREATE TEMP TABLE balance AS SELECT uid::UUID AS uid, key FROM balance_keys")
        con.unregister("balance_keys")
        rows, by = "(FROM standing LEFT JOIN balance USING (uid))", "key NULLS LAST, rank_key, uid"
    elif recipe.balance and recipe.balance.by == "class":
        _check_classes(con)
        of = "class_index" if recipe.balance.scope == "all" else "source, class_index"
        rows = f"(SELECT *, row_number() OVER (PARTITION BY {of} ORDER BY rank_key, uid) AS key FROM standing)"
        by = "key, rank_key, uid"
    if quotas:
        quota = " ".join(f"WHEN {sql_text(name)} THEN {quota}" for name, quota in quotas.items())
        share = f"(row_number() OVER (PARTITION BY source ORDER BY {by}) - 0.5)::DOUBLE / CASE source {quota} END"
        rows = f"(SELECT *, {share} AS share FROM {rows})"
        by = "share, uid"
    con.execute(f"CREATE VIEW survivors AS FROM {rows}")
    con.execute("CREATE TYPE decision AS ENUM ('kept', 'holdout', 'spare', 'dropped')")
    limit = recipe.samples if isinstance(recipe.samples, int) else 2**62
    con.execute(_DECIDED.format(limit=limit, order=by))


def _check_classes(con: duckdb.DuckDBPyConnection) -> None:
    unlabelled = scalar(con, "SELECT count(*) FROM standing WHERE class_index < 0")
    if unlabelled:
        raise UsageError(f"balance by class: {unlabelled:,} survivors have no class", "labelled sources only", "balance: {by: concepts}")
