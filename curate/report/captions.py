"""Caption lengths and top words per source, counted by DuckDB over the sidecars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

TOP = 30
MAX_BINS = 32
# RE2's \s and \w know ASCII alone; these are Python's `\S+` and `\w+` over Unicode.
WHITE_SPACE_WORDS = r"[^\s\p{Z}]+"
TOKENS = r"[\p{L}\p{N}_]+"
_COMMON = """
a about above after again all also am an and another any are around as at be because been before behind being below between
both but by can could d did do does doing down during each few for from further get had has have having he her here hers
him his how i if in into is it its itself just ll m me more most my near next no nor not now of off on once one only onto
or other our out over own re s same she should so some such t than that the their theirs them then there these they this
those through to too two under until up upon us ve very was we were what when where which while who whom why will with
would you your yours
"""
STOP_WORDS = frozenset(_COMMON.split())


def lengths(con: duckdb.DuckDBPyConnection, sources: Sequence[str]) -> dict[str, Any]:
    """Return per source, in the order given, the distribution of caption lengths, in words between white space and in characters.

    Quantiles are exact, by nearest rank: the smallest length that at least that share of the captions do not exceed.
    """
    measures = {"words": f"len(regexp_extract_all(caption, '{WHITE_SPACE_WORDS}'))", "characters": "length(caption)"}
    return {name: _distribution(con, sql, sources) for name, sql in measures.items()}


def _distribution(con: duckdb.DuckDBPyConnection, measure: str, sources: Sequence[str]) -> dict[str, Any]:
    query = f"SELECT source, {measure} AS length, count(*) FROM (SELECT source, coalesce(caption, '') AS caption FROM kept) GROUP BY ALL"
    counts: dict[str, dict[int, int]] = {}
    for source, length, n in con.execute(query).fetchall():
        counts.setdefault(source, {})[length] = n
    pooled: dict[int, int] = {}
    for per_source in counts.values():
        for length, n in per_source.items():
            pooled[length] = pooled.get(length, 0) + n
    width = _bin_width(pooled)
    return {"bin_width": width, "sources": {name: _summary(counts[name], width) for name in sources if name in counts}}


def _summary(counts: dict[int, int], width: int) -> dict[str, Any]:
    n = sum(counts.values())
    total = sum(length * k for length, k in counts.items())
    values: dict[str, Any] = {"captions": n, "mean": round(total / n, 2), "min": min(counts)}
    values |= {name: quantile(counts, share) for name, share in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))}
    values["max"] = max(counts)
    bins = [0] * MAX_BINS
    for length, k in counts.items():
        bins[min(length // width, MAX_BINS - 1)] += k
    return {**values, "bins": bins}


def quantile(counts: dict[int, int], share: float) -> int:
    """Return the nearest-rank quantile of a histogram {value: count}: the smallest value with cumulative count >= share * n."""
    needed, seen = share * sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= needed:
            break
    return value


def _bin_width(pooled: dict[int, int]) -> int:
    """Return the smallest round width with which all bins but the last, open one hold 99.5% of the captions."""
    if not pooled:
        return 1
    far = quantile(pooled, 0.995)
    return next(w for k in range(12) for w in (10**k, 2 * 10**k, 5 * 10**k) if far < w * (MAX_BINS - 1))


def top_words(con: duckdb.DuckDBPyConnection, sources: Sequence[str]) -> dict[str, Any]:
    """Return per source, in the order given, how many words, how many distinct ones, and the commonest, with and without stop words."""
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE words AS
        SELECT source, word, count(*) AS n
        FROM (SELECT source, unnest(regexp_extract_all(lower(caption), '{TOKENS}')) AS word FROM kept) GROUP BY ALL""")
    totals = con.execute("SELECT source, sum(n)::BIGINT, count(*) FROM words GROUP BY source ORDER BY source").fetchall()
    result: dict[str, Any] = {source: {"words": n, "distinct": distinct, "all": [], "content": []} for source, n, distinct in totals}
    for name, condition in (("all", "true"), ("content", "NOT list_contains($1, word)")):
        parameters = [sorted(STOP_WORDS)] if "$1" in condition else []
        rows = con.execute(
            f"""SELECT source, word, n FROM words WHERE {condition}
            QUALIFY row_number() OVER (PARTITION BY source ORDER BY n DESC, word) <= {TOP} ORDER BY source, n DESC, word""",
            parameters,
        )
        for source, word, n in rows.fetchall():
            result[source][name].append({"word": word, "count": n})
    return {name: result[name] for name in sources if name in result}
