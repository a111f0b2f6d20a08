"""The near-duplicate join against brute force, and the greedy choice against its naive definition."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dedup import COLOURS_APART, near_duplicates, pairs_between, pairs_within
from curate.join import Column, blocks, choose_k, join

Pairs = tuple[np.ndarray, np.ndarray]
MANY = 4500  # more than numpy alone is left to do


def brute_pairs(a: np.ndarray, b: np.ndarray | None, radius: int) -> set[tuple[int, int]]:
    near = np.bitwise_count(a[:, None] ^ (a if b is None else b)[None, :]) <= radius
    i, j = np.nonzero(np.triu(near, 1) if b is None else near)
    return set(zip(i.tolist(), j.tolist(), strict=True))


def listed(pairs: Pairs) -> list[tuple[int, int]]:
    """Return pairs as a list, which must be sorted by (j, i)."""
    found = list(zip(*(side.tolist() for side in pairs), strict=True))
    assert found == sorted(found, key=lambda pair: pair[::-1])
    return found


def naive_choice(hashes: np.ndarray, radius: int) -> list[int]:
    """Keep a sample unless a kept, preferred one lies within the radius; name the most preferred such one."""
    result: list[int] = []
    for j, x in enumerate(hashes.tolist()):
        near = (i for i in range(j) if result[i] == -1 and (int(hashes[i]) ^ x).bit_count() <= radius)
        result.append(next(near, -1))
    return result


def clustered(n: int, seed: int) -> np.ndarray:
    """Hashes around a sixth as many centres, none to six bits away from them; some are equal."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(1, n // 6), dtype=np.uint64)
    hashes = rng.choice(centres, n)
    for _ in range(6):
        flip = rng.random(n) < 0.4
        hashes = np.where(flip, hashes ^ (np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64)), hashes)
    return hashes


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("radius", range(1, 12))
def test_blocks_cover_all_bits(radius: int, k: int) -> None:
    layout = blocks(radius, k)
    assert len(layout) >= radius + k
    assert max(width for _, width in layout) <= 13
    assert sorted(bit for shift, width in layout for bit in range(shift, shift + width)) == list(range(64))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("radius", [1, 2, 4, 5, 8])
def test_the_join_finds_each_pair_of_brute_force_once(radius: int, k: int) -> None:
    hashes = np.unique(clustered(1500, radius))
    ids = np.random.default_rng(0).permutation(len(hashes)).astype(np.uint32) * 1000
    with ThreadPoolExecutor(3) as pool:
        pairs = np.concatenate(join(Column(hashes, ids), None, radius, pool, 3, k))
    expected = {tuple(sorted((int(ids[i]), int(ids[j])))) for i, j in brute_pairs(hashes, None, radius)}
    assert len(expected) > 50
    assert len(pairs) == len(expected)
    assert {(int(pair) & 0xFFFFFFFF, int(pair) >> 32) for pair in pairs} == expected


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("radius", [0, 1, 4, 7])
def test_the_join_of_two_sets_finds_each_pair_of_brute_force_once(radius: int, k: int) -> None:
    hashes = clustered(3000, radius)
    a, b = hashes[:2200], hashes[2200:]  # with ties, on either side and across
    left, right = (Column(h, np.arange(len(h), dtype=np.uint32)) for h in (a, b))
    with ThreadPoolExecutor(2) as pool:
        pairs = np.concatenate(join(left, right, radius, pool, 2, k))
    expected = brute_pairs(a, b, radius)
    assert len(expected) > 10
    assert len(pairs) == len(expected)
    assert {(int(pair) & 0xFFFFFFFF, int(pair) >> 32) for pair in pairs} == expected


@pytest.mark.parametrize("n", [300, MANY])
def test_pairs_of_few_and_of_many_hashes(n: int) -> None:
    hashes = clustered(n, 3)
    assert listed(pairs_within(hashes, 4)) == sorted(brute_pairs(hashes, None, 4), key=lambda pair: pair[::-1])
    a, b = hashes, clustered(n, 3)[::2] ^ np.uint64(3)
    assert listed(pairs_between(a, b, 4)) == sorted(brute_pairs(a, b, 4), key=lambda pair: pair[::-1])
    assert listed(pairs_between(a, b[:0], 4)) == listed(pairs_between(a[:0], b, 4)) == []


def test_a_crowd_of_more_pairs_than_there_is_room_for_is_found_whole() -> None:
    first, second = np.triu_indices(64, 1)
    one = np.uint64(1)
    crowd = np.uint64(0xA5) ^ (one << first.astype(np.uint64)) ^ (one << second.astype(np.uint64))  # all within 4 bits of one another
    strangers = np.random.default_rng(1).integers(0, 2**64, MANY, dtype=np.uint64)
    left, right = pairs_within(np.concatenate([crowd, strangers]), 4)
    inside = right < len(crowd)
    found = right[inside] * len(crowd) + left[inside]
    assert len(found) == len(crowd) * (len(crowd) - 1) // 2 > 1 << 16
    assert np.diff(found).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=60), st.integers(0, 6))
def test_the_choice_is_the_naive_one(values: list[int], radius: int) -> None:
    hashes = np.array(values, np.uint64)
    assert near_duplicates(hashes, radius).tolist() == naive_choice(hashes, radius)


@pytest.mark.parametrize("n", [900, MANY])
@pytest.mark.parametrize("radius", [0, 2, 4])
def test_the_choice_on_clusters_with_ties(n: int, radius: int) -> None:
    hashes = clustered(n, 7)
    hashes[::5] = hashes[0]
    assert near_duplicates(hashes, radius).tolist() == naive_choice(hashes, radius)


def test_the_choice_does_not_depend_on_threads() -> None:
    hashes = clustered(20_000, 8)
    one = near_duplicates(hashes, 4, threads=1)
    assert (one >= 0).sum() > 5000
    assert all((near_duplicates(hashes, 4, threads=t) == one).all() for t in (2, 5))


def test_crowds_of_too_many_pairs_choose_by_halves() -> None:
    hashes = clustered(MANY, 9)
    one = np.uint64(1)
    first, second = np.triu_indices(64, 1)
    crowd = hashes[7] ^ (one << first.astype(np.uint64)) ^ (one << second.astype(np.uint64))  # two million pairs
    hashes = np.concatenate([hashes, crowd])
    np.random.default_rng(2).shuffle(hashes)
    expected = near_duplicates(hashes, 4)
    assert expected.tolist() == naive_choice(hashes, 4)
    for most in (10, 1000, 100_000):
        assert (near_duplicates(hashes, 4, most_pairs=most) == expected).all()


def test_chains_are_not_followed() -> None:
    chain = np.array([0b1, 0b1111, 0b1111111], np.uint64)  # 3 bits from one to the next, 6 from end to end
    assert near_duplicates(chain, 3).tolist() == [-1, 0, -1]


def test_many_hashes_agree_on_more_blocks() -> None:
    choices = [choose_k(n, n * n / 2, 4) for n in (10**4, 10**6, 10**7, 10**8, 10**9)]
    assert choices == sorted(choices)
    assert set(choices) == {1, 2}


def test_few_hashes_need_no_compiler() -> None:
    code = """
import sys, numpy as np
from curate.dedup import COLOURS_APART, near_duplicates, pairs_between, pairs_within
hashes = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
near_duplicates(hashes, 4); pairs_within(hashes, 4); pairs_between(hashes, hashes[:9], 4)
print("numba" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def coloured(n: int, seed: int) -> np.ndarray:
    """Colours of sixteen parts around one of three palettes, so that some are alike and some are not; a few lie at the limit."""
    rng = np.random.default_rng(seed)
    palettes = rng.integers(60, 200, (3, 2, 16))
    return (palettes[rng.integers(0, 3, n)] + rng.integers(-4, 5, (n, 2, 16))).astype(np.uint8)


def naive_coloured_choice(hashes: np.ndarray, colours: np.ndarray, radius: int) -> list[int]:
    """`naive_choice`, where colours further apart than the limit in any part make no duplicate."""
    result: list[int] = []
    for j in range(len(hashes)):
        winner = -1
        for i in np.flatnonzero(np.bitwise_count(hashes[:j] ^ hashes[j]) <= radius).tolist():
            apart = max(np.hypot(*(colours[i].astype(float) - colours[j])).tolist())
            if result[i] == -1 and apart <= COLOURS_APART:
                winner = i
                break
        result.append(winner)
    return result


@pytest.mark.parametrize("n", [600, MANY])
@pytest.mark.parametrize("radius", [0, 4])
def test_the_choice_with_a_second_look_at_colours(n: int, radius: int) -> None:
    hashes, colours = clustered(n, 11), coloured(n, 12)
    hashes[::5], colours[::10] = hashes[0], colours[0]  # a crowd of one hash, half of it in one colour
    expected = naive_coloured_choice(hashes, colours, radius)
    assert near_duplicates(hashes, radius, colours=colours).tolist() == expected
    assert expected != naive_choice(hashes, radius)
    assert near_duplicates(hashes, radius, most_pairs=500, colours=colours).tolist() == expected
