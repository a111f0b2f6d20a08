"""Duplicates by meaning: against a naive twin that compares every pair; clusters against scikit-learn's own assignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.semantic import BLOCK, clusters_of, semantic_duplicates


def unit(rng: np.random.Generator, n: int, d: int, spread: float) -> np.ndarray:
    """Return unit rows around a few centres, so that some are near each other."""
    centres = rng.normal(size=(max(1, n // 5), d))
    rows = centres[rng.integers(len(centres), size=n)] + spread * rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive(images: np.ndarray, texts: np.ndarray | None, epsilon: float, cluster: np.ndarray) -> list[int]:
    """Go through all samples in order; each goes if an earlier kept one of its cluster is near, in all that counts."""
    winner = [-1] * len(images)
    for j in range(len(images)):
        for i in range(j):
            near = all(float(v[i] @ v[j]) > 1 - epsilon for v in (images, texts) if v is not None)
            if winner[i] == -1 and cluster[i] == cluster[j] and near:
                winner[j] = i
                break
    return winner


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.sampled_from([0.0, 0.05, 0.3]), st.booleans(), st.sampled_from([1, 4]))
def test_equals_the_naive_twin(seed: int, n: int, epsilon: float, captions: bool, count: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = unit(rng, n, 8, 0.2), unit(rng, n, 8, 0.2)
    said = texts if captions else None
    cluster = clusters_of(images, count, seed=0)
    assert semantic_duplicates(images, said, epsilon, count).tolist() == naive(images, said, epsilon, cluster)


def test_blocks_do_not_change_the_result() -> None:
    rng = np.random.default_rng(5)
    images = unit(rng, BLOCK + 300, 16, 0.1)
    found = semantic_duplicates(images, None, 0.1, clusters=1)
    assert found.tolist() == naive(images, None, 0.1, np.zeros(len(images)))
    assert 0 < (found >= 0).sum() < len(images)


def test_captions_save_what_is_said_differently() -> None:
    image = np.repeat([[1.0, 0.0]], 3, axis=0).astype(np.float32)
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    assert semantic_duplicates(image, None, 0.05).tolist() == [-1, 0, 0]
    assert semantic_duplicates(image, texts, 0.05).tolist() == [-1, -1, 0]


def test_clusters_are_those_of_scikit_learn() -> None:
    from sklearn.cluster import MiniBatchKMeans

    images = unit(np.random.default_rng(1), 500, 8, 0.1)
    means = MiniBatchKMeans(6, random_state=3, n_init=1, batch_size=4096).fit(images[np.sort(np.random.default_rng(3).permutation(500))])
    assert clusters_of(images, 6, seed=3).tolist() == means.predict(images).tolist()


def test_nothing_and_one() -> None:
    assert semantic_duplicates(np.empty((0, 4), np.float32), None, 0.1).tolist() == []
    assert semantic_duplicates(np.ones((1, 1), np.float32), None, 0.1).tolist() == [-1]


@pytest.mark.slow
def test_planted_copies_are_found_through_clusters() -> None:
    """1,000 rows and near copies of them: the default clusters find nearly all, and no far pair."""
    rng = np.random.default_rng(7)
    first = rng.normal(size=(1000, 64))
    rows = np.concatenate([first, first + 0.02 * rng.normal(size=first.shape)])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    found = semantic_duplicates(rows, None, 0.05)
    assert (found[:1000] == -1).all()
    assert (found[1000:] == np.arange(1000)).mean() > 0.9
    assert set(np.flatnonzero(found >= 0) - 1000) <= set(range(1000))
