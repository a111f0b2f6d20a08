"""Near duplicates within a scope, and the overlap between sources. The join itself is `curate.dedup`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from curate.decide.drop import drop
from curate.dedup import near_duplicates
from curate.recipe import Near, Recipe
from shards.core.console import warn

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

ALARM_SHARE = 0.5
# Of copies that are preferred alike, a coloured one stays before a gray one: the gray one says less.
_PREFERRED = "preference, gray, rank_key, uid"

# One row per image. Where every image has one sample, that sample's row is the image's.
_IMAGES = "SELECT scope, phash, place, preference, gray, rank_key, uid FROM alive WHERE NOT low"
_IMAGES_OF_MANY = """
    SELECT scope, arg_min(phash, place) AS phash, arg_min(place, uid) AS place, min(preference) AS preference, min(gray) AS gray,
           min(rank_key) AS rank_key, min(uid) AS uid
    FROM alive WHERE NOT low GROUP BY scope, image
"""


def drop_near(con: duckdb.DuckDBPyConnection, recipe: Recipe, near: Near, threads: int) -> None:
    """Drop images within the pHash radius of a kept, preferred one; low-information images stay out of it."""
    import numpy as np
    import pyarrow as pa

    images = _IMAGES_OF_MANY if any(spec.captions == "each" for spec in recipe.sources) else _IMAGES
    total = lost = 0
    for (scope,) in con.execute("SELECT DISTINCT scope FROM samples ORDER BY scope").fetchall():
        chosen = f"SELECT phash, place FROM ({images}) WHERE scope = $1::source_name ORDER BY {_PREFERRED}"
        columns = con.execute(chosen, [scope]).fetchnumpy()
        hashes, places = np.asarray(columns["phash"], np.uint64), np.asarray(columns["place"], np.int64)
        winner = near_duplicates(hashes, near.radius, threads, colours=_colours(con, places) if near.colour else None)
        losers = np.flatnonzero(winner >= 0)
        winner = winner[losers]
        distance = np.bitwise_count(hashes[losers] ^ hashes[winner]).astype(np.int32)
        total, lost = total + len(hashes), lost + len(losers)
        con.register("pairs", pa.table({"place": places[losers], "winner": places[winner], "distance": distance}))
        named = con.sql("""
            SELECT l.image::VARCHAR AS image_id, l.scope::VARCHAR AS scope, w.uid::VARCHAR AS winner,
                   distance || ' of 64 bits differ' AS detail
            FROM pairs p JOIN samples l ON l.place = p.place JOIN samples w ON w.place = p.winner
        """).to_arrow_table()
        con.unregister("pairs")
        drop(con, named, "near_duplicate")
    if lost > ALARM_SHARE * max(1, total) and total > 100:
        warn(f"near duplicates drop {lost:,} of {total:,} images: is the radius {near.radius} too wide, or is the pool all copies?")


def _colours(con: duckdb.DuckDBPyConnection, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the mean Cb and Cr of the parts of the pictures at some places, (n, 2, parts)."""
    import numpy as np
    import pyarrow as pa

    con.register("wanted", pa.table({"place": places, "number": np.arange(len(places))}))
    rows = con.sql("SELECT unhex(colours) AS colours FROM wanted JOIN (SELECT place, colours FROM measured) USING (place) ORDER BY number")
    values = rows.to_arrow_table()["colours"].combine_chunks()
    con.unregister("wanted")
    return np.frombuffer(b"".join(values.to_pylist()), np.uint8).reshape(len(places), 2, -1)


def overlap(con: duckdb.DuckDBPyConnection, recipe: Recipe, threads: int) -> dict[str, dict[str, int]]:
    """Count what two sources have in common, whether or not duplicates are looked for across them.

    Returns:
        `{"a + b": {"exact": n, "near": m}}`: n different images (by bytes) that both have, and m pairs of a hash of the
        one and a hash of the other within the radius, equal ones included. Refused samples and low-information images
        do not count; without near duplicates in the recipe there is no `near`.
    """
    names = [spec.name for spec in recipe.sources]
    if len(names) < 2:
        return {}
    exact = con.execute("""
        WITH shown AS (SELECT DISTINCT content, source FROM copied)
        SELECT a.source, b.source, count(*) FROM shown a JOIN shown b USING (content) WHERE a.source < b.source GROUP BY ALL
    """).fetchall()
    counts = {(a, b): {"exact": 0} for a, b in itertools.combinations(names, 2)}
    for a, b, count in exact:
        counts[a, b]["exact"] = count
    if recipe.dedup.near:
        from curate.dedup import pairs_between

        hashes = {name: _hashes(con, name) for name in names}
        for a, b in counts:
            counts[a, b]["near"] = len(pairs_between(hashes[a], hashes[b], recipe.dedup.near.radius, threads)[0])
    return {f"{a} + {b}": count for (a, b), count in counts.items()}


def _hashes(con: duckdb.DuckDBPyConnection, source: str) -> NDArray[np.uint64]:
    """Return the different hashes of one source."""
    import numpy as np

    query = "SELECT DISTINCT phash FROM samples WHERE refusal = '' AND NOT low AND source = $1::source_name"
    return np.asarray(con.execute(query, [source]).fetchnumpy()["phash"], np.uint64)
