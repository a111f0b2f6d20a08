"""What a build may say about its test sets: what was found, the recall of the search, and every pair with its pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.decontaminate.plant import KINDS
from curate.decontaminate.search import near_embeddings, near_views
from curate.decontaminate.step import HOW, NEAREST, names_of
from curate.decontaminate.views import VIEWS
from curate.recipe import Exclude
from shards.core import fs
from shards.core.console import table

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from curate.decontaminate.sets import ExcludedSet

PATH = "examples/contamination.parquet"
SHOWN = 100  # pairs with both pictures


def recall(s: ExcludedSet, spec: Exclude) -> dict[str, dict[str, float]]:
    """Return the share of planted copies that the search finds, by kind: with the test images as they are, with all
    views, and by embedding.

    It is what a build would have found: copies against the whole set, those of low information found by no hash.
    """
    import numpy as np

    found: dict[str, NDArray[np.bool_]] = {}
    modes = {"as it is": s.views[:, :1]} | ({f"{s.views.shape[1]} views": s.views} if s.views.shape[1] > 1 else {})
    copies = s.planted.ravel()
    for mode, seen in modes.items():
        near = np.zeros(len(copies), bool)
        near[near_views(copies, seen, s.usable, spec.radius).build] = True
        found[mode] = near & (copies != 0)
    if spec.embedding is not None:
        changed, images = (np.load(path, mmap_mode="r", allow_pickle=False) for path in (s.copies, s.vectors))
        near = np.zeros(len(copies), bool)
        near[near_embeddings(changed, images, spec.embedding)[0]] = True
        found["embedding"] = near
    count = max(1, len(s.planted))
    return {
        mode: {kind: round(float(share), 3) for kind, share in zip(KINDS, near.reshape(-1, len(KINDS)).sum(axis=0) / count, strict=True)}
        for mode, near in found.items()
    }


def claims(spec: Exclude, sets: list[ExcludedSet], con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return what the build may say about its test sets, for the manifest: what went, and the recall of the search."""
    # By the nearest image, which the detail names first; exact copies of such a sample go with it, and count.
    query = "SELECT split_part(detail, '/', 1), count(*) FROM decided WHERE reason = 'near_test_image' GROUP BY 1"
    hits = dict(con.execute(query).fetchall())
    return {
        "radius": spec.radius,
        "views": len(VIEWS) if spec.views else 1,
        "embedding": spec.embedding,
        "sets": [
            {
                "name": s.name, "digest": s.digest, "images": len(s.names), "unreadable": sum(map(bool, s.status)),
                "low_information": int((~s.usable).sum()) - sum(map(bool, s.status)), "near_test_image": hits.get(s.name, 0),
                "planted": len(s.planted), "recall": recall(s, spec),
            }
            for s in sets
        ],
    }  # fmt: skip


def in_words(said: dict[str, Any]) -> str:
    """Return the claims as text: a line per set, and the recall by kind of copy beside it."""
    lines = []
    for s in said["sets"]:
        unread = f", {s['unreadable']:,} unreadable" if s["unreadable"] else ""
        plain = f", {s['low_information']:,} too plain for a hash: only equal bytes tell" if s["low_information"] else ""
        lines.append(f"{s['name']}: {s['near_test_image']:,} samples go; {s['images']:,} test images{unread}{plain}")
    rows = [
        [s["name"], mode, s["planted"], *(f"{share:.0%}" for share in shares.values())]
        for s in said["sets"]
        for mode, shares in s["recall"].items()
    ]
    nearer = f", or embeddings nearer than {said['embedding']}" if said["embedding"] is not None else ""
    head = f"recall on planted copies, pHash within {said['radius']} bits{nearer}:"
    return "\n".join([*lines, head, table(["test set", "hashed", "copies", *KINDS], rows)])


def write_pairs(con: duckdb.DuckDBPyConnection, sets: list[ExcludedSet], output: str) -> None:
    """Write OUT/examples/contamination.parquet: every pair of a dropped sample and a test image."""
    import pyarrow.parquet as pq

    con.register("names", names_of(sets))
    pairs = con.sql(f"""
        SELECT uid, source, set_name AS "set", test_name AS test_image, view, distance, cosine
        FROM contamination JOIN names USING (number, test) JOIN (SELECT place, uid, source FROM measured) USING (place)
        ORDER BY uid, source, {NEAREST}
    """).to_arrow_table()
    con.unregister("names")
    fs.make_dirs(fs.join(output, "examples"))
    with fs.atomic_write(fs.join(output, PATH)) as file:
        pq.write_table(pairs, file, compression="zstd")


def pairs_shown(con: duckdb.DuckDBPyConnection, sets: list[ExcludedSet]) -> pa.Table:
    """Return the nearest test image of the first dropped samples by rank, as rows of the report's examples: the
    build's picture, then the test set's."""
    con.register("names", names_of(sets))
    rows = (
        con.sql(f"""
        WITH nearest AS (
            SELECT place, rank, number, test, {HOW} AS how
            FROM contamination JOIN (SELECT place, rank FROM ranked) USING (place)
            QUALIFY row_number() OVER (PARTITION BY place ORDER BY {NEAREST}) = 1),
        chosen AS (SELECT *, row_number() OVER (ORDER BY rank, place) - 1 AS pair FROM nearest QUALIFY pair < {SHOWN})
        SELECT * FROM chosen JOIN names USING (number, test)
        JOIN (SELECT place, uid, source, caption, caption_raw, path, "offset", size FROM measured) USING (place) ORDER BY pair
    """)
        .to_arrow_table()
        .to_pylist()
    )
    con.unregister("names")
    return _as_examples(rows)


def _as_examples(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    from curate.report.examples import COLUMNS, POINTER
    from shards.schema import arrow_schema

    picks = []
    for row in rows:
        both = {"kind": "test", "group": row["pair"], "group_size": 2, "reason": "near_test_image", "detail": row["how"]}
        own = {"source": row["source"], "uid": row["uid"], "caption": row["caption"], "caption_raw": row["caption_raw"]}
        theirs = {"source": row["set_name"], "uid": "", "caption": row["test_name"], "caption_raw": row["test_name"]}
        picks.append({**both, **own, "position": 0, "path": row["path"], "offset": row["offset"], "size": row["size"]})
        picks.append({**both, **theirs, "position": 1, "path": row["test_path"], "offset": row["test_offset"], "size": row["test_size"]})
    return pa.Table.from_pylist(picks, schema=arrow_schema((*COLUMNS, *POINTER)))
