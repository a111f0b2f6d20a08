"""The step of deciding that takes images of test sets out of a build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.decontaminate.search import near_views
from curate.decontaminate.views import VIEWS
from curate.recipe import Exclude

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from curate.decontaminate.sets import ExcludedSet

SAME_BYTES = "same bytes"
HOW = """
    CASE WHEN distance IS NULL THEN view ELSE view || ', ' || distance || ' of 64 bits differ' END
"""


def test_image_losers(spec: Exclude, sets: list[ExcludedSet], threads: int, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the images that are, or are near, images of test sets: columns image_id, scope, winner (none), detail.

    All pairs go to the table `contamination`: place, number (of the set), test (of the image in it), view, distance (NULL
    where the bytes are the same). Low-information images on either side are looked for by their bytes alone: their
    hashes are near everything that is as flat.
    """
    con.execute("CREATE TABLE contamination (place BIGINT, number BIGINT, test BIGINT, view VARCHAR, distance BIGINT)")
    _same_bytes(con, sets)
    _near(con, sets, spec.radius, threads)
    con.register("names", names_of(sets))
    losers = con.sql(f"""
        SELECT image::VARCHAR AS image_id, scope::VARCHAR AS scope, '' AS winner, first(detail ORDER BY nearest, detail) AS detail
        FROM (SELECT place, set_name || '/' || test_name || ': ' || {HOW} AS detail, coalesce(distance, -1) AS nearest
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
        INSERT INTO contamination SELECT place, number, test, '{SAME_BYTES}', NULL
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
            FROM (SELECT place, {number} AS number, g.test, g.view, g.distance FROM (FROM alive WHERE NOT low) JOIN given g USING (phash))
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
