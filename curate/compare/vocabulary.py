"""How the words of two sets of captions differ, at equal size, and how much of that is chance.

Unigram frequencies of lower-case words; Jensen–Shannon divergence in bits (0: equal, 1: no word shared). It grows as sets
shrink, even between draws of one source, so both sets are cut to the same number of captions, and beside it stands the
divergence of two random halves of the two sets joined: what equal sources would show at this size.
"""

from __future__ import annotations

from typing import Any

from curate.listing import scalar
from curate.report.captions import TOKENS

TOP = 15

_COUNT = """
CREATE OR REPLACE TEMP TABLE {table} AS
SELECT word, count(*) FILTER (side = 0) AS a, count(*) FILTER (side = 1) AS b
FROM (SELECT side, unnest(regexp_extract_all(lower(caption), '{tokens}')) AS word FROM ({captions})) GROUP BY word
"""
_PART = "(CASE WHEN {x} > 0 THEN {x} * log2({x} / ((p + q) / 2)) ELSE 0 END)"
_TERMS = f"""
SELECT word, a, b, p, q, ({_PART.format(x="p")} + {_PART.format(x="q")}) / 2 AS term
FROM (SELECT *, a / sum(a) OVER () AS p, b / sum(b) OVER () AS q FROM {{table}})
"""


def vocabulary(con: Any) -> dict[str, Any]:
    """Compare the captions of the tables `a` and `b` (uid, caption, nth: the order in the set).

    Returns:
        `captions` compared of each; `words` and `distinct` of each, `shared` words; `divergence` and `divergence_of_halves`
        in bits (null where a side has no words); the words that weigh most in it, by side, with their counts.
    """
    n = min(scalar(con, "SELECT count(*) FROM a"), scalar(con, "SELECT count(*) FROM b"))
    both = " UNION ALL ".join(f"SELECT {side} AS side, uid, caption FROM {name} WHERE nth < {n}" for side, name in enumerate("ab"))
    con.execute(_COUNT.format(table="words", tokens=TOKENS, captions=both))
    halves = f"SELECT (row_number() OVER (ORDER BY md5(uid || side), uid, side) % 2) AS side, caption FROM ({both})"
    con.execute(_COUNT.format(table="halves", tokens=TOKENS, captions=halves))
    counts = "sum(a)::BIGINT, sum(b)::BIGINT, count(*) FILTER (a > 0), count(*) FILTER (b > 0), count(*) FILTER (a > 0 AND b > 0)"
    total_a, total_b, distinct_a, distinct_b, shared = con.execute(f"SELECT {counts} FROM words").fetchall()[0]
    found: dict[str, Any] = {"captions": n, "words": [total_a or 0, total_b or 0], "distinct": [distinct_a, distinct_b], "shared": shared}
    found |= {"divergence": divergence(con, "words"), "divergence_of_halves": divergence(con, "halves")}
    for name, side in (("more_in_a", "p > q"), ("more_in_b", "q > p")):
        rows = con.execute(
            f"SELECT word, a, b FROM ({_TERMS.format(table='words')}) WHERE {side} ORDER BY term DESC, word LIMIT {TOP}"
        ).fetchall()
        found[name] = [{"word": word, "a": a, "b": b} for word, a, b in rows]
    return found


def divergence(con: Any, table: str) -> float | None:
    """Return the Jensen–Shannon divergence (Lin 1991), in bits, of two columns of counts `a` and `b`; None if one sums to 0."""
    value = scalar(
        con, f"SELECT CASE WHEN sum(a) > 0 AND sum(b) > 0 THEN (SELECT sum(term) FROM ({_TERMS.format(table=table)})) END FROM {table}"
    )
    return None if value is None else max(0.0, float(value))
