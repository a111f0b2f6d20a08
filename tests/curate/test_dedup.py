"""The near-duplicate join against brute force, and the greedy choice against its naive definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import bands, near_duplicates, pairs_within


def brute_pairs(hashes: np.ndarray, radius: int) -> list[tuple[int, int]]:
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return [(i, j) for j in range(len(hashes)) for i in range(j) if distance[i, j] <= radius]


def naive_choice(hashes: np.ndarray, radius: int) -> list[int]:
    """Keep a sample unless a kept, preferred one lies within the radius; name the most preferred such one."""
    result: list[int] = []
    for j in range(len(hashes)):
        near = [i for i in range(j) if result[i] == -1 and int(hashes[i] ^ hashes[j]).bit_count() <= radius]
        result.append(near[0] if near else -1)
    return result


def clustered(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(1, n // 6), dtype=np.uint64)
    hashes = rng.choice(centres, n)
    for _ in range(6):
        flip = rng.random(n) < 0.4
        hashes = np.where(flip, hashes ^ (np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64)), hashes)
    return hashes


@pytest.mark.parametrize("radius", range(9))
def test_bands_cover_all_bits(radius: int) -> None:
    layout = bands(radius)
    assert len(layout) == radius + 1
    assert sorted(bit for shift, width in layout for bit in range(shift, shift + width)) == list(range(64))


@pytest.mark.parametrize("radius", [1, 2, 4, 6, 10])
def test_the_join_finds_exactly_the_pairs_of_brute_force(radius: int) -> None:
    hashes = np.unique(clustered(1500, radius))
    np.random.default_rng(0).shuffle(hashes)
    left, right = pairs_within(hashes, radius)
    expected = brute_pairs(hashes, radius)
    assert len(expected) > 50
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=60), st.integers(0, 6))
def test_the_choice_is_the_naive_one(values: list[int], radius: int) -> None:
    hashes = np.array(values, np.uint64)
    assert near_duplicates(hashes, radius).tolist() == naive_choice(hashes, radius)


def test_the_choice_on_clusters_with_ties() -> None:
    hashes = clustered(900, 7)
    hashes[::5] = hashes[0]
    for radius in (0, 2, 4):
        assert near_duplicates(hashes, radius).tolist() == naive_choice(hashes, radius)


def test_chains_are_not_followed() -> None:
    chain = np.array([0b1, 0b1111, 0b1111111], np.uint64)  # 3 bits from one to the next, 6 from end to end
    assert near_duplicates(chain, 3).tolist() == [-1, 0, -1]
