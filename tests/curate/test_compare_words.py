"""The words of sets against scipy, Counters, and plain resampling; the interval's coverage against draws of known sources."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from curate import cli
from curate.compare import load, vocabulary
from curate.compare.loops import counted, divergence
from curate.compare.vocabulary import Words, compared, growth, terms
from curate.report.wordcount import tokens
from shards.manifest import read_manifest
from shards.reader import read_samples


def rows(folder: str) -> list[dict[str, Any]]:
    return [s.row for s in read_samples(read_manifest(folder), [], ["uid", "caption"])]


def lowest(folder: str, n: int) -> list[dict[str, Any]]:
    """Return the n samples whose uids have the lowest md5, read as a little-endian number."""

    def md5(row: dict[str, Any]) -> int:
        return int.from_bytes(hashlib.md5(row["uid"].encode(), usedforsecurity=False).digest(), "little")

    return sorted(rows(folder), key=md5)[:n]


def scipys(a: Counter[str], b: Counter[str]) -> float:
    names = sorted(a | b)
    return float(jensenshannon([a[w] for w in names], [b[w] for w in names], base=2) ** 2)


counts = arrays(np.float64, 12, elements=st.integers(0, 50).map(float)).filter(lambda v: v.sum() > 0)


@settings(deadline=None)  # the first call compiles
@given(counts, counts)
def test_divergence_is_scipys(a: Any, b: Any) -> None:
    assert divergence(a, b) == pytest.approx(jensenshannon(a, b, base=2) ** 2, abs=1e-12)
    assert np.abs(terms(a, b)).sum() == pytest.approx(divergence(a, b), abs=1e-12)


def test_divergence_at_its_ends() -> None:
    assert divergence(np.array([3.0, 1, 0]), np.array([6.0, 2, 0])) == 0
    assert divergence(np.array([3.0, 1, 0]), np.array([0, 0, 7.0])) == 1


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=9), st.data())
def test_counted_is_a_loop(captions: list[list[int]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(captions), max_size=len(captions)))
    expected = Counter(word for caption, weight in zip(captions, weights, strict=True) for word in caption * weight)
    stream, lengths = np.array(list(itertools.chain(*captions)), np.int32), np.array([len(c) for c in captions], np.int64)
    assert counted(stream, lengths, np.array(weights, float), 6).tolist() == [expected[i] for i in range(6)]


def test_growth_is_that_of_a_set() -> None:
    rng = random.Random(3)
    captions = [[rng.randrange(40) for _ in range(rng.randrange(5))] for _ in range(70)]
    found = growth(Words([], np.array(list(itertools.chain(*captions)), np.int32), np.array([len(c) for c in captions], np.int64)))
    assert found["captions"][0] == 1
    assert found["captions"][-1] == 70
    assert found["distinct"] == [len({w for c in captions[:n] for w in c}) for n in found["captions"]]


def test_words_of_equally_many_captions_are_those_of_counters(make_shards, capsys) -> None:
    one, two = make_shards(30, "one"), make_shards(80, "two", seed=5, source="other")
    a, b = (Counter(w for r in lowest(f, 30) for w in tokens(r["caption"])) for f in (one, two))
    assert cli.main(["compare", one, two, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["vocabulary"]
    (pair,) = found["pairs"]
    assert found["captions"] == 30
    assert pair["divergence"] == pytest.approx(scipys(a, b), abs=1e-12)
    assert [(s["name"], s["words"], s["distinct"]) for s in found["sets"]] == [("one", a.total(), len(a)), ("two", b.total(), len(b))]
    assert pair["shared"] == len(set(a) & set(b))
    assert pair["more_a"]
    assert all((w["a"], w["b"]) == (a[w["word"]], b[w["word"]]) for w in pair["more_a"] + pair["more_b"])
    assert all(w["a"] / a.total() > w["b"] / b.total() for w in pair["more_a"])
    for mine, theirs, side in ((a, b, "a"), (b, a, "b")):
        alone = sorted(((-n, w) for w, n in mine.items() if n >= 2 and w not in theirs))[:20]
        assert [(w["word"], w["count"]) for w in pair[f"only_{side}"]] == [(w, -n) for n, w in alone]
        assert pair[f"distinct_only_{side}"] == len(set(mine) - set(theirs))
    assert {row[0]: row[1:] for row in found["listed"]["rows"]} == {w: [a[w], b[w]] for w in a | b if a[w] / a.total() != b[w] / b.total()}


def test_captions_are_drawn_by_md5(make_shards, monkeypatch) -> None:
    folder = make_shards(90, per_shard=7)
    monkeypatch.setattr(load, "DRAWN", 10)  # with 90 samples, the draw is cut down twice on the way
    con, (one,), _ = load.load((folder,), look=False)
    con.close()
    assert one.drawn is not None
    assert one.drawn.to_pylist() == [{"uid": r["uid"], "caption": r["caption"]} for r in lowest(folder, 10)]


def drawn(rng: np.random.Generator, shares: Any, n: int, name: str, length: int = 8) -> Words:
    words = rng.choice(len(shares), (n, length), p=shares).astype(np.int32)
    return Words([f"{name}{i}" for i in range(n)], words.ravel(), np.full(n, length))


def zipf(words: int, mixed: float, seed: int = 1) -> tuple[Any, Any]:
    """Return two distributions: Zipf's law, and the same with a share of it on other words."""
    a = 1 / np.arange(1, words + 1) ** 1.05
    a /= a.sum()
    return a, (1 - mixed) * a + mixed * np.random.default_rng(seed).permutation(a)


def plain_twin(a: Words, b: Words, times: int, seed: int) -> tuple[list[float], list[float]]:
    """Resample and deal out captions as lists, with Python's own generator; returns the divergences of both."""
    rng = random.Random(seed)
    texts = [dict(zip(one.uids, np.split(one.stream, one.lengths.cumsum()[:-1]), strict=True)) for one in (a, b)]
    twins = [u for u in a.uids if u in texts[1]]
    alone = [[u for u in one.uids if u not in other] for one, other in ((a, texts[1]), (b, texts[0]))]

    def between(first: list[Any], second: list[Any]) -> float:
        return scipys(*(Counter(np.concatenate(one).tolist()) for one in (first, second)))

    again, chance = [], []
    for _ in range(times):
        both = rng.choices(twins, k=len(twins))
        again.append(between(*([texts[i][u] for u in rng.choices(alone[i], k=len(alone[i])) + both] for i in (0, 1))))
        pool = [texts[i][u] for i in (0, 1) for u in alone[i]]
        rng.shuffle(pool)
        cut = len(alone[0])
        chance.append(between(pool[:cut] + [texts[0][u] for u in twins], pool[cut:] + [texts[1][u] for u in twins]))
    return again, chance


@pytest.mark.parametrize("shared", [0, 60])
def test_interval_and_chance_are_those_of_plain_resampling(shared: int) -> None:
    rng = np.random.default_rng(7)
    p, q = zipf(400, 0.3)
    a, b = drawn(rng, p, 150, "a"), drawn(rng, q, 150, "b")
    b = Words([*a.uids[:shared], *b.uids[shared:]], np.concatenate([a.stream[: 8 * shared], b.stream[8 * shared :]]), b.lengths)
    found = compared(a, b, key=(0, 1))
    again, chance = plain_twin(a, b, 400, seed=5)
    spread = float(np.std(again))
    low, high = (found["divergence"] + np.mean(again) - np.quantile(again, share) for share in (0.975, 0.025))
    # The Monte-Carlo error of such a quantile of 400 is 0.13 of the spread, of a difference of two 0.19.
    assert found["interval"] == pytest.approx([low, high], abs=0.7 * spread)
    assert found["by_chance"] == pytest.approx(np.mean(chance), abs=5 * np.std(chance) / 400**0.5 * 2**0.5)
    assert found["by_chance_high"] == pytest.approx(np.quantile(chance, 0.975), abs=0.7 * np.std(chance))
    assert found["beyond_chance"] == found["divergence"] - found["by_chance"]
    assert compared(a, b, key=(0, 1)) == found


def test_a_caption_that_both_have_counts_in_both(make_shards) -> None:
    """Against itself, with other captions under the same uids, and half of each."""
    rng = np.random.default_rng(2)
    p, _ = zipf(300, 0)
    a, b = drawn(rng, p, 100, "a"), drawn(rng, p, 100, "a")
    same = compared(a, a, key=(0, 1))
    assert (same["divergence"], same["interval"], same["by_chance_high"], same["alone_by_chance"]) == (0, [0, 0], 0, 0)
    retold = compared(a, b, key=(0, 1))
    assert 0 < retold["interval"][0] < retold["divergence"] < retold["interval"][1]
    assert retold["divergence"] < retold["by_chance_high"]


def test_a_set_without_words_is_not_known(make_shards) -> None:
    blank = pa.table({"uid": ["x", "y"], "caption": ["", "…"]})
    some = pa.table({"uid": ["v", "w"], "caption": ["a cat", "a dog"]})
    found = vocabulary.vocabulary({"blank": blank, "some": some})
    assert found["captions"] == 2
    assert found["pairs"][0]["divergence"] is None
    assert found["pairs"][0]["interval"] is None
    assert found["sets"][0] == {"name": "blank", "words": 0, "distinct": 0, "growth": {"captions": [1, 2], "distinct": [0, 0]}}
    assert vocabulary.vocabulary({"blank": blank.slice(0, 0), "some": some})["captions"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("words", "n", "mixed"), [(3000, 500, 0.0), (3000, 500, 0.1), (3000, 500, 0.5), (30000, 2000, 0.1)])
def test_the_interval_covers_and_equal_sources_stay_within_chance(words: int, n: int, mixed: float) -> None:
    """150 pairs of draws from two known sources: the interval holds the mean of what such draws show in 95% of them."""
    p, q = zipf(words, mixed)
    rng = np.random.default_rng(11)
    found = [compared(drawn(rng, p, n, "a"), drawn(rng, q, n, "b"), key=(0, i)) for i in range(150)]
    expected = np.mean([f["divergence"] for f in found])
    covered = np.mean([f["interval"][0] <= expected <= f["interval"][1] for f in found])
    assert covered >= 0.91  # 0.95 less two standard errors
    within = np.mean([f["divergence"] <= f["by_chance_high"] for f in found])
    true = divergence(p, q)
    estimated = np.mean([f["beyond_chance"] for f in found])
    if mixed:
        assert within == 0
        assert 0.82 * true < estimated < 1.02 * true
    else:
        assert within >= 0.93
        assert abs(estimated) < 0.001
