"""Duplicates by meaning: SemDeDup's idea (Abbas et al., arXiv 2303.09540), exact within k-means clusters.

Images whose embeddings are nearer than epsilon in cosine distance say the same; where captions count, theirs must be
as near too, or different captions of one picture would vanish. Unlike the paper's code, a sample goes only if a *kept*,
preferred one is that near: no chains. Pairs that fall into two clusters are not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    I64 = NDArray[np.int64]

SAMPLE_PER_CLUSTER = 256  # rows that train the clusters: faiss's rule
BLOCK = 1024


def clusters_of(images: Any, count: int, seed: int) -> I64:
    """Return the k-means cluster of each row.

    Args:
        images: shape (n, d), unit-length rows; may be mapped from disk, is read in blocks.
        count: number of clusters.
        seed: of the sample and of the first centres.
    """
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans

    n = len(images)
    if count <= 1 or n <= count:
        return np.zeros(n, np.int64)
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[: count * SAMPLE_PER_CLUSTER])
    means = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096)
    centres = means.fit(np.asarray(images[drawn], np.float32)).cluster_centers_
    # |x - c|² = 1 - 2 x·c + |c|²: the first term is the same for all centres.
    half = (np.square(centres).sum(axis=1) / 2).astype(np.float32)
    found = [np.argmax(np.asarray(images[i : i + 65536], np.float32) @ centres.T - half, axis=1) for i in range(0, n, 65536)]
    return np.concatenate(found).astype(np.int64)


def semantic_duplicates(images: Any, texts: Any | None, epsilon: float, clusters: int | None = None, seed: int = 0) -> I64:
    """Return for each sample the index of the kept one that says the same, or -1 if it is kept.

    Args:
        images: shape (n, d), unit-length rows, in order of preference: the first of a pair is the one to keep.
        texts: the captions' embeddings, alike; None where captions do not count.
        epsilon: cosine distance below which two say the same.
        clusters: number of k-means clusters; by default the square root of n.
    """
    import numpy as np

    n = len(images)
    winner = np.full(n, -1, np.int64)
    if n == 0:
        return winner
    cluster = clusters_of(images, clusters or max(1, round(n**0.5)), seed)
    members = np.argsort(cluster, kind="stable")
    for own in np.split(members, np.flatnonzero(np.diff(cluster[members])) + 1):
        vectors = [np.asarray(a[own], np.float32) for a in (images, texts) if a is not None]
        found = _greedy(vectors, 1 - epsilon)
        winner[own] = np.where(found >= 0, own[found], -1)
    return winner


def _greedy(vectors: list[F32], least: float) -> I64:
    """Decide the members of one cluster in order; memory is a block of rows against the kept ones."""
    import numpy as np

    n = len(vectors[0])
    winner = np.full(n, -1, np.int64)
    kept = np.empty(0, np.int64)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        if len(kept):
            near = _near(vectors, rows, kept, least)
            hit = near.any(axis=1)
            winner[rows[hit]] = kept[near[hit].argmax(axis=1)]
            rows = rows[~hit]
        near = _near(vectors, rows, rows, least)
        stays = np.ones(len(rows), bool)
        for i in range(1, len(rows)):
            earlier = np.flatnonzero(near[i, :i] & stays[:i])
            if len(earlier):
                stays[i], winner[rows[i]] = False, rows[earlier[0]]
        kept = np.concatenate([kept, rows[stays]])
    return winner


def _near(vectors: list[F32], a: I64, b: I64, least: float) -> NDArray[np.bool_]:
    import numpy as np

    near = np.ones((len(a), len(b)), bool)
    for v in vectors:
        near &= v[a] @ v[b].T > least
    return near
