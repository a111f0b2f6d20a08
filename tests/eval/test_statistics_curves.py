"""Curves, correlations, robustness and exchange rates: against scipy, planted truths, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import expit, logit
from scipy.stats import spearmanr

from eval.statistics.curves import effective_robustness, fit, spearman
from eval.statistics.exchange import Rate, exchange_rate

SIZES = np.geomspace(1e4, 1e7, 8)


def saturating(x: np.ndarray, a: float = 0.8, b: float = 4.0, c: float = 0.25) -> np.ndarray:
    return a - b * x**-c


def test_rank_correlation_is_scipys_ties_and_all() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = np.round(x + rng.normal(size=30), 1)
    found = spearman(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert spearman(x, x).value == pytest.approx(1)
    assert spearman(x[:4], y[:4]).low is None
    with pytest.raises(ValueError, match="three"):
        spearman(x, np.ones(30))


def test_a_fit_finds_what_was_planted_and_what_scipy_finds() -> None:
    assert fit(SIZES, saturating(SIZES), replicates=10).parameters == pytest.approx((0.8, 4.0, 0.25), rel=1e-4)
    noisy = saturating(SIZES) + np.random.default_rng(0).normal(0, 0.003, 8)
    found = fit(SIZES, noisy, replicates=200)
    theirs, _ = curve_fit(saturating, SIZES, noisy, p0=(0.8, 4, 0.25), maxfev=20_000)
    assert found.parameters == pytest.approx(tuple(theirs), rel=1e-3)
    line = fit(SIZES, noisy, "log-linear", replicates=200)
    assert line.parameters[::-1] == pytest.approx(tuple(np.polyfit(np.log(SIZES), noisy, 1)))
    low, high = found.interval(SIZES)
    assert ((low < found.predict(SIZES)) & (found.predict(SIZES) < high)).all()
    assert len(found.bounds()) == 3


def test_a_fit_needs_more_points_than_parameters() -> None:
    with pytest.raises(ValueError, match="3 points"):
        fit(SIZES[:3], saturating(SIZES[:3]))
    with pytest.raises(ValueError, match="above 0"):
        fit(np.array([0, 1, 2, 3, 4]), np.arange(5) / 5)
    with pytest.raises(ValueError, match="form"):
        fit(SIZES, saturating(SIZES), "cubic")


def test_a_falling_curve_is_flat_at_best() -> None:
    assert fit(SIZES, 1 - saturating(SIZES), replicates=10).parameters[1] == 0


@pytest.mark.parametrize(("studies", "tolerance"), [(60, 0.05), pytest.param(500, 0.02, marks=pytest.mark.slow)])
def test_fits_cover(studies: int, tolerance: float) -> None:
    """At the sizes themselves, on average, six to ten points."""
    rng = np.random.default_rng(0)
    for points in (6, 10):
        sizes = np.geomspace(1e4, 1e7, points)
        inside = {"saturating": [], "log-linear": []}
        truths = {"saturating": saturating(sizes), "log-linear": 0.1 + 0.04 * np.log(sizes)}
        for seed in range(studies):
            for form, truth in truths.items():
                low, high = fit(sizes, truth + rng.normal(0, 0.01, points), form, 300, seed).interval(sizes)
                inside[form].append((low <= truth) & (truth <= high))
        for form, found in inside.items():
            assert np.mean(found) == pytest.approx(0.95, abs=tolerance), (form, points)


@pytest.mark.parametrize(("studies", "tolerance"), [(150, 0.05), pytest.param(2000, 0.025, marks=pytest.mark.slow)])
def test_rank_correlations_cover(studies: int, tolerance: float) -> None:
    rng = np.random.default_rng(1)
    for rho in (0.0, 0.6):
        truth = 6 / np.pi * np.arcsin(rho / 2)
        inside = []
        for seed in range(studies):
            x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 15).T
            found = spearman(x, y, 500, seed)
            assert found.low is not None
            assert found.high is not None
            inside.append(found.low <= truth <= found.high)
        assert np.mean(inside) == pytest.approx(0.95, abs=tolerance), rho


def test_effective_robustness_is_the_distance_from_the_baselines_line() -> None:
    standard = np.array([0.5, 0.6, 0.7, 0.8])
    baseline = np.stack([standard, expit(1.2 * logit(standard) - 0.8)], axis=1)
    models = np.array([[0.65, expit(1.2 * logit(0.65) - 0.8) + 0.07], [0.55, expit(1.2 * logit(0.55) - 0.8)]])
    above, on_line = effective_robustness(baseline, models, replicates=200)
    assert above.value == pytest.approx(0.07)
    assert (on_line.value, on_line.low, on_line.high) == pytest.approx((0, 0, 0), abs=1e-9)
    wider = effective_robustness(baseline, models, (1000, 1000), 200)[0]
    assert wider.high - wider.low > 0.04
    with pytest.raises(ValueError, match="three that differ"):
        effective_robustness(baseline[:2], models)
    with pytest.raises(ValueError, match="inside 0 to 1"):
        effective_robustness(baseline, np.array([[1.0, 0.5]]))


@pytest.mark.parametrize(("studies", "tolerance"), [(80, 0.05), pytest.param(1000, 0.02, marks=pytest.mark.slow)])
def test_effective_robustness_covers(studies: int, tolerance: float) -> None:
    rng = np.random.default_rng(2)
    inside = []
    for seed in range(studies):
        standard = rng.uniform(0.5, 0.8, 15)
        baseline = np.stack([standard, expit(1.1 * logit(standard) - 1 + rng.normal(0, 0.05, 15))], axis=1)
        shifted = expit(1.1 * logit(0.7) - 1) + 0.05
        model = np.array([[rng.binomial(10_000, 0.7) / 10_000, rng.binomial(2_000, shifted) / 2_000]])
        found = effective_robustness(baseline, model, (10_000, 2_000), 300, seed)[0]
        inside.append(found.low <= 0.05 <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=tolerance)


def test_the_exchange_rate_is_what_was_planted() -> None:
    sizes = np.geomspace(1e5, 1e7, 4)
    a, b = 0.1 + 0.04 * np.log(sizes), 0.1 + 0.04 * np.log(sizes / 3)
    found = exchange_rate(sizes, a, sizes, b)
    assert found.value == pytest.approx(3)  # one sample of A does what three of B do
    assert (found.low, found.high) == pytest.approx((3, 3))
    assert found.overlap == pytest.approx((a.min(), b.max()))
    back = exchange_rate(sizes, b, sizes, a)
    assert back.value == pytest.approx(1 / 3)
    assert str(found) == "3.00 [3.00, 3.00]"


def test_where_an_exchange_rate_is_not_estimable_it_says_why() -> None:
    sizes = np.geomspace(1e5, 1e7, 3)
    a = 0.1 + 0.04 * np.log(sizes)
    for found, why in (
        (exchange_rate(sizes, a + 0.3, sizes, a), "do not overlap"),
        (exchange_rate(sizes[:1], a[:1], sizes, a), "A has one size alone"),
        (exchange_rate(sizes, a, sizes, a[::-1]), "of B does not rise"),
    ):
        assert found.value is None
        assert why in str(found)
        assert str(found).startswith("not estimable")
    two = exchange_rate(sizes[:2], a[:2], sizes[:2], a[:2])
    assert (two.value, two.low) == (pytest.approx(1), None)
    assert "no interval" in str(two)
    with pytest.raises(ValueError, match="above 0"):
        exchange_rate(np.array([0, 1]), a[:2], sizes, a)


def _rate(points: int, runs: int, scatter: float, rng: np.random.Generator, seed: int) -> Rate:
    sizes = np.repeat(np.geomspace(1e5, 1e7, points), runs)
    a = 0.1 + 0.04 * np.log(sizes) + rng.normal(0, scatter, len(sizes))
    b = 0.1 + 0.04 * np.log(sizes / 3) + rng.normal(0, scatter, len(sizes))
    return exchange_rate(sizes, a, sizes, b, 1000, seed)


@pytest.mark.parametrize(("studies", "tolerance"), [(150, 0.045), pytest.param(1500, 0.02, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("points", "runs", "scatter"), [(3, 2, 0.003), (4, 1, 0.01), (4, 3, 0.01)])
def test_exchange_rates_cover(points: int, runs: int, scatter: float, studies: int, tolerance: float) -> None:
    rng = np.random.default_rng(3)
    found = [_rate(points, runs, scatter, rng, seed) for seed in range(studies)]
    known = [rate for rate in found if rate.low is not None and rate.high is not None]
    assert len(known) > 0.97 * studies
    assert np.mean([rate.low <= 3 <= rate.high for rate in known]) == pytest.approx(0.95, abs=tolerance)
