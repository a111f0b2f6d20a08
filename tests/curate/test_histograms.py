"""Quantiles against NumPy's, bins against a plain loop; every value stands in one bin."""

from __future__ import annotations

import bisect
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.report.histograms import BINS, QUANTILES, Histogram, bin_edges, binned, described, draw, pooled, summary

WHOLE = st.lists(st.integers(0, 300) | st.integers(0, 10**9), min_size=1, max_size=300)
PARTS = st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=1, max_size=100)


def histogram(values: list[int] | list[float]) -> Histogram:
    found = sorted(Counter(values).items())
    return Histogram(np.array([v for v, _ in found], np.float64), np.array([n for _, n in found], np.int64))


@given(WHOLE)
@settings(deadline=None)
def test_quantiles_are_numpys(values: list[int]) -> None:
    found = summary(histogram(values))
    expected = {name: int(np.quantile(values, q / 100, method="inverted_cdf")) for name, q in QUANTILES.items()}
    assert {name: found[name] for name in QUANTILES} == expected
    assert (found["n"], found["min"], found["max"]) == (len(values), min(values), max(values))
    assert found["mean"] == pytest.approx(np.mean(values), abs=0.00501, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 19, 20, 21, 99, 100, 101, 1000])
def test_quantiles_are_by_nearest_rank(n: int) -> None:
    values = list(range(1, n + 1))
    for percent in (1, 5, 25, 50, 75, 95, 99, 100):
        at_least = [v for v in values if 100 * sum(w <= v for w in values) >= percent * n]
        assert histogram(values).quantile(percent) == min(at_least)


@given(WHOLE | PARTS, st.booleans())
@settings(deadline=None)
def test_every_value_is_in_its_bin(values: list[float], log: bool) -> None:
    one = histogram(values)
    edges = bin_edges(one, log=log, smallest=0.01 if max(values) < 1 else 1.0)
    assert 2 <= len(edges) <= BINS + 1
    assert edges == sorted(set(edges))
    expected = [0] * (len(edges) - 1)
    for value in values:
        expected[min(max(bisect.bisect_right(edges, value) - 1, 0), len(expected) - 1)] += 1
    assert binned(one, edges) == expected
    within = sum((edges[0] <= value or value <= 0) and value < edges[-1] for value in values)
    assert within >= (0.98 if log else 0.99) * len(values) - 1


def test_bins_are_round() -> None:
    assert bin_edges(histogram(list(range(1, 41)))) == list(range(42))
    assert bin_edges(histogram(list(range(1001))))[:3] == [0, 20, 40]
    assert bin_edges(histogram([0.0, 0.07, 0.5]), smallest=0.01)[:8] == [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    assert bin_edges(histogram([1.0, 1.33, 1.5]), log=True) == [1, 1.06, 1.12, 1.19, 1.26, 1.33, 1.41, 1.5, 1.58]
    assert bin_edges(histogram([0.57]), smallest=0.01)[-2:] == [0.57, 0.58]
    assert bin_edges(histogram([0]), log=True) == [1, 10]
    assert bin_edges(histogram([0])) == [0, 1]


def test_sources_share_their_edges_and_lack_what_they_lack() -> None:
    short, long = histogram([1, 2, 2]), histogram([1, 90])
    found = described({"a": short, "b": long}, ("a", "none", "b"))
    assert found["none"] is None
    assert list(found) == ["a", "none", "b"]
    assert found["a"]["histogram"]["edges"] == found["b"]["histogram"]["edges"] == bin_edges(pooled([short, long]))
    assert [sum(found[s]["histogram"]["counts"]) for s in "ab"] == [3, 2]
    assert described({}, ("a",)) == {"a": None}


def test_limits() -> None:
    one = histogram([1, 2, 2, 3])
    assert (one.above(2), one.below(2), one.above(3), one.below(1)) == (1, 1, 0, 0)


def test_a_chart_is_small_and_says_n() -> None:
    known = described({f"s{i}": histogram(list(range(1, 500))) for i in range(8)}, [f"s{i}" for i in range(8)])
    colours = dict.fromkeys(known, "#0072b2")
    svg = draw("x", "Length", known, colours, x="words", what="captions", log_y=True, mark=77)
    assert "Length (n = 3,992)" in svg
    assert "% of captions per 10" in svg
    assert len(svg) < 40_000
    short = draw("y", "Size", described({"s0": histogram([1000, 90_000])}, ["s0"], log=True), colours, x="bytes", what="images", log_x=True)
    assert [tick for tick in ("1,000", "2,000", "5,000", "50 k") if f">{tick}<" in short] == ["1,000", "2,000", "5,000", "50 k"]
    near = draw("z", "Aspect", described({"s0": histogram([0.66, 1.5])}, ["s0"], 2, log=True), colours, x="", what="images", log_x=True)
    assert sum(f">{tick}<" in near for tick in ("0.6", "0.75", "0.8", "1", "1.2", "1.25", "1.4", "1.5")) >= 3
    assert svg == draw("x", "Length", known, colours, x="words", what="captions", log_y=True, mark=77)
