"""The steps of deciding that look at more than the measured columns: balance by concepts, duplicates by meaning, test images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from curate.balance import balance_keys, read_concepts
from curate.decide import Steps
from curate.decide.parts import ROW_BITS
from curate.decontaminate.step import test_image_losers
from curate.recipe import Balance, Recipe, Semantic
from curate.semantic import semantic_duplicates

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from curate.decontaminate.sets import ExcludedSet
    from curate.embed import Embedded


def steps_of(recipe: Recipe, embedded: list[Embedded], excluded: list[ExcludedSet], threads: int) -> Steps:
    """Return the steps that a recipe asks for."""
    concepts = recipe.balance if recipe.balance and recipe.balance.by == "concepts" else None
    semantic = recipe.dedup.semantic
    vectors = partial(Vectors, [e.images for e in embedded])
    return Steps(
        test_images=partial(test_image_losers, recipe.exclude, excluded, vectors, threads) if excluded else None,
        semantic=partial(semantic_losers, semantic, embedded, recipe.seed) if semantic else None,
        order=partial(concept_keys, concepts) if concepts else None,
    )


def concept_keys(spec: Balance, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the balance key of every sample that is still alive: columns uid and key."""
    import numpy as np
    import pyarrow as pa

    concepts = read_concepts(spec.concepts)
    tables = []
    scope = "source" if spec.scope == "source" else "''"
    for (name,) in con.execute(f"SELECT DISTINCT {scope}::VARCHAR AS s FROM alive ORDER BY s").fetchall():
        alive = f"(SELECT place, uid, rank_key FROM alive WHERE {scope}::VARCHAR = $1)"
        query = f"SELECT uid::VARCHAR AS uid, rank_key, caption FROM {alive} JOIN (SELECT place, caption FROM measured) USING (place)"
        rows = con.sql(query, params=[name]).to_arrow_table()
        draws = rows["rank_key"].to_numpy().astype(np.float64) / 2.0**64
        texts = (caption for batch in rows["caption"].chunks for caption in batch.to_pylist())
        tables.append(pa.table({"uid": rows["uid"], "key": balance_keys(texts, draws, concepts)}))
    return pa.concat_tables(tables) if tables else pa.table({"uid": pa.array([], pa.string()), "key": pa.array([], pa.float64())})


def semantic_losers(spec: Semantic, embedded: list[Embedded], seed: int, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the images that say what a kept, preferred one says: columns image_id, scope, winner, detail."""
    import numpy as np
    import pyarrow as pa

    rows = con.sql("""
        SELECT scope::VARCHAR AS scope, image::VARCHAR AS image_id, min(uid)::VARCHAR AS uid, arg_min(place, uid) AS place
        FROM alive GROUP BY scope, image ORDER BY scope, min(preference), min(rank_key), min(uid)
    """).to_arrow_table()
    scopes, places = np.asarray(rows["scope"].to_pylist(), object), rows["place"].to_numpy()
    losers, winners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for scope in dict.fromkeys(scopes):
        own = np.flatnonzero(scopes == scope)
        images, texts = Vectors([e.images for e in embedded], places[own]), Vectors([e.texts for e in embedded], places[own])
        found = semantic_duplicates(images, texts if spec.captions else None, spec.epsilon, spec.clusters, seed)
        losers.append(own[found >= 0])
        winners.append(own[found[found >= 0]])
    lost, kept = np.concatenate(losers), np.concatenate(winners)
    every = Vectors([e.images for e in embedded], places)
    cosine = (every[lost].astype(np.float32) * every[kept]).sum(axis=1)
    gone = rows.take(pa.array(lost))
    return pa.table({
        "image_id": gone["image_id"], "scope": gone["scope"], "winner": rows.take(pa.array(kept))["uid"],
        "detail": [f"cosine {c:.3f}" for c in cosine],
    })  # fmt: skip


class Vectors:
    """Rows of embeddings that stand in one array file per part, read as they are asked for."""

    def __init__(self, files: list[str], places: NDArray[np.int64]) -> None:
        self.files, self.places = files, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, wanted: Any) -> NDArray[np.float16]:
        """Return rows by slice or by an array of positions, in that order."""
        import numpy as np

        places = self.places[wanted]
        parts = places >> ROW_BITS
        found: Any = None
        for part in np.unique(parts):
            array = np.load(self.files[part], mmap_mode="r", allow_pickle=False)
            found = np.empty((len(places), array.shape[1]), array.dtype) if found is None else found
            found[parts == part] = array[places[parts == part] & ((1 << ROW_BITS) - 1)]
        return np.empty((0, 1), np.float16) if found is None else found
