"""What two sets share: ids, image bytes, and pictures within a pHash radius."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.compare.load import Loaded
from curate.report.histograms import share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("ids", "bytes", "near")


def overlap(con: Any, a: Loaded, b: Loaded, radius: int) -> dict[str, Any]:
    """Return what a pair of sets shares, by each of KINDS; lists have ids alone.

    Each has `known`: of how many samples of a and of b the thing is known; `a_in_b`: how many of a have a partner in b; `b_in_a`;
    and `shares`: these of the known ones.
    """
    native = a.native != b.native  # ids that are no uids are held against a set's native ids
    columns = ["native" if native and not one.native and one.manifest else "id" for one in (a, b)]
    found = {"ids": {"by": "source_id" if "native" in columns else "uid", **_shared(con, a, b, *columns)}}
    if a.manifest and b.manifest:
        found["bytes"] = _shared(con, a, b, "content", "content")
        found["near"] = {"radius": radius, **_near(con, a, b, radius)}
    return found


def _shared(con: Any, a: Loaded, b: Loaded, mine: str, theirs: str) -> dict[str, Any]:
    """Return what two sets share by one column, and the Jaccard index of the distinct values."""
    rows = f"SELECT {mine} AS v, 1 AS x, 0 AS y FROM s{a.at} UNION ALL SELECT {theirs}, 0, 1 FROM s{b.at}"
    known_a, known_b, a_in_b, b_in_a, both, either = con.execute(f"""
        SELECT sum(x), sum(y), sum(x) FILTER (y > 0), sum(y) FILTER (x > 0), count(*) FILTER (x > 0 AND y > 0), count(*)
        FROM (SELECT sum(x)::BIGINT AS x, sum(y)::BIGINT AS y FROM ({rows}) WHERE v IS NOT NULL GROUP BY v)""").fetchall()[0]
    found = _found([int(known_a or 0), int(known_b or 0)], [int(a_in_b or 0), int(b_in_a or 0)])
    return {**found, "shared": both, "jaccard": both / either if either else None}


def _found(known: list[int], partners: list[int]) -> dict[str, Any]:
    shares = [share(n, of) for n, of in zip(partners, known, strict=True)]
    return {"known": known, "a_in_b": partners[0], "b_in_a": partners[1], "shares": shares}


def _near(con: Any, a: Loaded, b: Loaded, radius: int) -> dict[str, Any]:
    """Return how many samples of each set have a picture within the radius in the other; `beyond`: and share neither id nor bytes."""
    import numpy as np
    import pyarrow as pa

    from curate.dedup import pairs_between

    hashes = [_hashes(con, one) for one in (a, b)]
    matched = [np.unique(places) for places in pairs_between(hashes[0], hashes[1], radius)]
    found: dict[str, Any] = {"known": [], "in": [], "beyond": []}
    for side, (one, other) in enumerate(((a, b), (b, a))):
        con.register("matched", pa.table({"phash": pa.array(hashes[side][matched[side]], pa.uint64())}))
        for name, n in zip(found, _near_counts(con, one, other), strict=True):
            found[name].append(n)
        con.unregister("matched")
    return {**_found(found["known"], found["in"]), "beyond": _found(found["known"], found["beyond"])}


def _near_counts(con: Any, one: Loaded, other: Loaded) -> tuple[int, int, int]:
    """Return how many samples have a hash, how many of these a near partner, and how many of these no other."""
    alike = f"coalesce(content IN (SELECT content FROM s{other.at} WHERE content IS NOT NULL), false)"
    known, near, beyond = con.execute(f"""
        SELECT count(*), count(*) FILTER (near), count(*) FILTER (near AND NOT shared)
        FROM (SELECT phash IN (SELECT phash FROM matched) AS near, id IN (SELECT id FROM s{other.at}) OR {alike} AS shared
              FROM s{one.at} WHERE phash IS NOT NULL)""").fetchall()[0]
    return known, near, beyond


def _hashes(con: Any, one: Loaded) -> NDArray[np.uint64]:
    rows = con.sql(f"SELECT DISTINCT phash FROM s{one.at} WHERE phash IS NOT NULL ORDER BY phash").to_arrow_table()
    return rows["phash"].to_numpy()
