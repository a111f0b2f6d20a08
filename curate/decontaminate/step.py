"""The step of deciding that takes images of test sets out of a build."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from curate.decontaminate.search import near_embeddings, near_views
from curate.decontaminate.views import VIEWS
from curate.recipe import Exclude

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from curate.decontaminate.sets import ExcludedSet

    I64 = NDArray[np.int64]

SAME_BYTES = "same bytes"
HOW = """
    CASE WHEN distance IS NOT NULL THEN view || ', ' || distance || ' of 64 bits differ'
         WHEN cosine IS NOT NULL THEN format('cosine distance {:.3f}', cosine) ELSE view END
"""
# The order of a sample's test images: the same bytes, then what is near by hash, then by embedding.
NEAREST = "coalesce(distance, 100 + cosine, -1), number, test"


def test_image_losers(
    spec: Exclude, sets: list[ExcludedSet], vectors: Callable[[I64], Any], threads: int, con: duckdb.DuckDBPyConnection
) -> pa.Table:
    """Return the images that are, or are near, images of test sets: columns image_id, scope, winner (none), detail.

    All pairs go to the table `contamination`: place, number (of the set), test (of the image in it), view, distance (bits),
    cosine (distance); both are NULL where the bytes are the same. The hash of a low-information image, on either side,
    is near everything that is as flat: it is not looked at.

    Args:
        vectors: returns the embeddings of samples by their places, where the recipe asks for them.
    """
    con.execute("CREATE TABLE contamination (place BIGINT, number BIGINT, test BIGINT, view VARCHAR, distance BIGINT, cosine DOUBLE)")
    _same_bytes(con, sets)
    _near(con, sets, spec.radius, threads)
    if spec.embedding is not None:
        _near_by_embedding(con, sets, vectors, spec.embedding)
    con.register("names", names_of(sets))
    losers = con.sql(f"""
        SELECT image::VARCHAR AS image_id, scope::VARCHAR AS scope, '' AS winner, first(detail ORDER BY nearest) AS detail
        FROM (SELECT place, set_name || '/' || test_name || ': ' || {HOW} AS detail, row({NEAREST}) AS nearest
              FROM contamination JOIN names USING (number, test))
        JOIN alive USING (place) GROUP BY image, scope
    """).to_arrow_table()
    con.unregister("names")
    return losers


def _same_bytes(con: duckdb.DuckDBPyConnection, sets: list[ExcludedSet]) -> None:
    import pyarrow as pa

    rows = [(sha256[:32], number, test) for number, s in enumerate(sets) for test, sha256 in enumerate(s.sha256) if sha256]
    contents, numbers, tests = zip(*rows, strict=True) if rows else ((), (), ())
    con.register("given", pa.table({"content": pa.array(contents, pa.string()), "number": pa.array(numbers, pa.int64()), "test": tests}))
    con.execute(f"""
        INSERT INTO contamination SELECT place, number, test, '{SAME_BYTES}', NULL, NULL
        FROM alive JOIN (SELECT content::UUID AS content, number, test FROM given) USING (content)
    """)
    con.unregister("given")


def _near(con: duckdb.DuckDBPyConnection, sets: list[ExcludedSet], radius: int, threads: int) -> None:
    """Add the pairs whose hashes are near, save those that have the same bytes."""
    import numpy as np
    import pyarrow as pa

    build = np.asarray(con.execute("SELECT DISTINCT phash FROM alive WHERE NOT low").fetchnumpy()["phash"], np.uint64)
    for number, s in enumerate(sets):
        found = near_views(build, s.views, s.usable, radius, threads)
        names = pa.array(VIEWS).take(pa.array(found.view))
        con.register("given", pa.table({"phash": build[found.build], "test": found.image, "view": names, "distance": found.distance}))
        con.execute(f"""
            INSERT INTO contamination
            FROM (SELECT place, {number} AS number, g.test, g.view, g.distance, NULL::DOUBLE AS cosine
                  FROM (FROM alive WHERE NOT low) JOIN given g USING (phash))
            ANTI JOIN contamination USING (place, number, test)
        """)
        con.unregister("given")


def _near_by_embedding(con: duckdb.DuckDBPyConnection, sets: list[ExcludedSet], vectors: Callable[[I64], Any], distance: float) -> None:
    """Add the pairs whose embeddings are near, save those that are there."""
    import numpy as np
    import pyarrow as pa

    rows = con.execute("SELECT min(place) AS place FROM alive GROUP BY scope, image ORDER BY place").fetchnumpy()
    places = np.asarray(rows["place"], np.int64)
    for number, s in enumerate(sets):
        build, test, cosine = near_embeddings(vectors(places), np.load(s.vectors, mmap_mode="r", allow_pickle=False), distance)
        con.register("given", pa.table({"first": places[build], "test": test, "cosine": cosine.astype(np.float64)}))
        con.execute(f"""
            INSERT INTO contamination
            FROM (SELECT a.place, {number} AS number, g.test, 'embedding' AS view, NULL::BIGINT AS distance, g.cosine
                  FROM given g JOIN alive f ON f.place = g.first JOIN alive a ON a.image = f.image AND a.scope = f.scope)
            ANTI JOIN contamination USING (place, number, test)
        """)
        con.unregister("given")


def names_of(sets: list[ExcludedSet]) -> pa.Table:
    """Return what set and image a pair names, and where the image's bytes are."""
    import pyarrow as pa

    rows = [
        (i, test, s.name, name, *pointer)
        for i, s in enumerate(sets)
        for test, (name, pointer) in enumerate(zip(s.names, s.pointers, strict=True))
    ]
    kinds = (pa.int64(), pa.int64(), pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64())
    names = ("number", "test", "set_name", "test_name", "test_path", "test_offset", "test_size")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)], names)
