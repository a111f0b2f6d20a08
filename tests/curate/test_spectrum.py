"""Laws of a vocabulary against exact fractions, random draws, texts whose law is known, and plain likelihoods."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import zeta

from curate.report import spectrum

SPECTRA = st.dictionaries(st.integers(1, 30), st.integers(1, 5), min_size=1, max_size=6)


def spectrum_of(frequencies: Any) -> tuple[Any, Any]:
    return np.unique(np.asarray(frequencies, np.int64), return_counts=True)


def text(exponent: float, words: int, tokens: int, seed: int = 0) -> tuple[Any, Any]:
    """The spectrum of tokens drawn one by one, a word of rank r as often as r ** -exponent."""
    likely = np.arange(1, words + 1) ** -exponent
    found = np.random.default_rng(seed).multinomial(tokens, likely / likely.sum())
    return spectrum_of(found[found > 0])


@given(SPECTRA, st.integers(0, 100))
def test_rarefied_is_the_fraction(found: dict[int, int], percent: int) -> None:
    total = sum(f * m for f, m in found.items())
    n = total * percent // 100
    exact = sum(m * (1 - Fraction(math.comb(total - f, n), math.comb(total, n))) for f, m in found.items())
    counts = np.array(sorted(found))
    types = np.array([found[f] for f in sorted(found)])
    assert spectrum.rarefied(counts, types, np.array([n]))[0] == pytest.approx(float(exact), rel=1e-10, abs=1e-10)


def test_rarefied_is_the_mean_of_draws() -> None:
    frequencies = [50, 20, 9, 9, 3, 2, 2, 1, 1, 1, 1, 1]
    tokens = np.repeat(np.arange(len(frequencies)), frequencies)
    rng, sizes = np.random.default_rng(0), np.array([1, 5, 20, 60])
    draws = np.array([[len(set(order[:n].tolist())) for n in sizes] for order in (rng.permutation(tokens) for _ in range(4000))])
    expected = spectrum.rarefied(*spectrum_of(frequencies), sizes)
    assert np.all(np.abs(draws.mean(0) - expected) <= 4 * draws.std(0) / np.sqrt(len(draws)))


def test_rarefied_keeps_its_digits_in_large_texts() -> None:
    """Of words that occur once a sample of n holds m · n / N; factorials of 10 billion would lose this in rounding."""
    total = 10**10
    sizes = np.array([10**3, 10**6, 10**9, total])
    expected = spectrum.rarefied(np.array([1, total - 10**6]), np.array([10**6, 1]), sizes)
    assert expected == pytest.approx(1 + 10**6 * (sizes / total), rel=1e-9)


def test_a_power_law_is_found_exactly() -> None:
    x = np.geomspace(10, 1e6, 17)
    k, b, off = spectrum.power_law(x, 7.5 * x**0.6)
    assert (k, b) == (pytest.approx(7.5), pytest.approx(0.6))
    assert off < 1e-12
    assert spectrum.power_law(np.array([1.0, 10, 100]), np.array([1.0, 20, 100]))[2] == pytest.approx(1 - 2 ** (-2 / 3))


def test_heaps_of_words_that_never_come_again() -> None:
    found = spectrum.heaps(*spectrum_of([1] * 5000))
    assert (found["k"], found["beta"], found["off"]) == (1.0, 1.0, 0.0)
    assert (found["from"], found["to"]) == (50, 5000)
    assert all(n == pytest.approx(v) for n, v in found["curve"])
    assert found["curve"][-1] == [5000, 5000]


@pytest.mark.parametrize("exponent", [1.5, 2.0])
def test_heaps_beta_of_an_endless_vocabulary_is_one_by_zipfs_exponent(exponent: float) -> None:
    """The asymptote of texts with exponents above 1 (van Leijenhorst and van der Weide 2005)."""
    found = spectrum.heaps(*text(exponent, 3_000_000, 1_000_000))
    assert found["beta"] == pytest.approx(1 / exponent, abs=0.015)
    assert found["off"] < 0.02


def test_a_short_text_has_a_curve_and_no_law() -> None:
    found = spectrum.heaps(*spectrum_of([3, 1]))
    assert found["curve"][0] == [1, 1.0]
    assert found["curve"][-1] == [4, 2.0]
    assert found["beta"] is None
    assert spectrum.heaps(*spectrum_of([]))["curve"] == []


@given(st.lists(st.integers(1, 50), max_size=80))
def test_ranks(frequencies: list[int]) -> None:
    in_order = sorted(frequencies, reverse=True)
    curve = spectrum.rank_frequency(*spectrum_of(frequencies))
    assert curve == [[rank, in_order[rank - 1]] for rank, _ in curve]
    assert [rank for rank, _ in curve[:1] + curve[-1:]] == ([1, len(in_order)] if in_order else [])


@pytest.mark.parametrize("gamma", [1.7, 2.0, 2.6, 3.5])
def test_a_discrete_power_law_is_found_again(gamma: float) -> None:
    draws = np.random.default_rng(1).zipf(gamma, 20_000)
    found = spectrum.zipf(*spectrum_of(draws[draws < 10**12]))
    assert abs(found["exponent"] - 1 / (gamma - 1)) < 3 * found["error"]
    assert found["exponent"] == pytest.approx(1 / (found["gamma"] - 1), abs=1e-3)
    assert found["ks"] < 0.02


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.3])
def test_zipfs_exponent_of_a_text(exponent: float) -> None:
    found = spectrum.zipf(*text(exponent, 100_000, 3_000_000))
    assert found["exponent"] == pytest.approx(exponent, rel=0.03)
    assert found["words"] >= spectrum.ZIPF_LEAST


def test_only_the_tail_need_follow_the_law() -> None:
    """Half of the words are rare ones that follow none: the fit begins above them."""
    rng = np.random.default_rng(2)
    tail = np.floor(20 * (1 - rng.random(4000)) ** -1.0).astype(np.int64)
    found = spectrum.zipf(*spectrum_of([*tail[tail < 10**9], *rng.integers(1, 15, 4000)]))
    assert 15 <= found["least"] <= 40
    assert found["gamma"] == pytest.approx(2.0, abs=0.1)


GAPS = [*[1] * 60, *[2] * 20, *[500] * 40]  # the law runs on where the data stand still


@pytest.mark.parametrize("frequencies", [np.random.default_rng(3).zipf(2.2, 500), np.array(GAPS)], ids=["drawn", "gaps"])
def test_the_fit_is_the_largest_likelihood(frequencies: Any) -> None:
    fit = spectrum._fit(*spectrum_of(frequencies))
    assert fit is not None
    grid = np.linspace(1.2, 3.2, 2001)
    likelihood = -len(frequencies) * np.log(zeta(grid)) - grid * np.log(frequencies).sum()
    assert fit[2] == pytest.approx(grid[int(np.argmax(likelihood))], abs=1e-3)
    every = np.arange(1, 200_000)
    law, data = np.cumsum(every ** -fit[2]) / zeta(fit[2]), np.searchsorted(np.sort(frequencies), every, "right") / len(frequencies)
    assert fit[0] == pytest.approx(np.abs(data - law).max(), abs=1e-9)


def test_the_error_is_how_far_fits_scatter() -> None:
    rng = np.random.default_rng(4)
    fits = [spectrum._fit(*spectrum_of(rng.zipf(2.3, 1000))) for _ in range(300)]
    scatter = np.std([fit[2] for fit in fits if fit])
    assert np.mean([fit[3] for fit in fits if fit]) == pytest.approx(scatter, rel=0.15)


def test_the_error_of_the_exponent_follows_from_gammas() -> None:
    frequencies = spectrum_of(np.random.default_rng(5).zipf(3.5, 5000))
    found, fit = spectrum.zipf(*frequencies), spectrum._fit(*frequencies)
    assert fit is not None
    assert found["least"] == 1
    low, high = (1 / (found["gamma"] + sign * fit[3] - 1) for sign in (1, -1))
    assert found["error"] == pytest.approx((high - low) / 2, rel=0.02)


@pytest.mark.parametrize("frequencies", [[], [5], [1] * 1000, [7] * 1000, list(range(1, 50))])
def test_no_law_where_none_can_be_fitted(frequencies: list[int]) -> None:
    found = spectrum.zipf(*spectrum_of(frequencies))
    assert {found[name] for name in ("exponent", "error", "gamma", "least", "words", "ks")} == {None}
