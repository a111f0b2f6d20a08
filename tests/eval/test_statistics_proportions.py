"""Shares and bootstraps over test images: against closed forms, scipy, naive loops, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from eval.statistics.proportions import detectable_paired, detectable_unpaired, mcnemar, wilson
from eval.statistics.resampling import paired_bootstrap, stratified_bootstrap


def by_formula(correct: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval by its closed form."""
    z = norm.ppf(0.975)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (7, 10), (10, 10), (500, 1000), (1, 5000)])
def test_wilson_is_the_score_tests_interval(correct: int, n: int) -> None:
    low, high = wilson(correct, n)
    assert (low, high) == pytest.approx(by_formula(correct, n), abs=1e-12)
    for bound in (low, high):
        if 0 < bound < 1:  # the score test at a bound is just significant
            assert abs(correct / n - bound) / (bound * (1 - bound) / n) ** 0.5 == pytest.approx(norm.ppf(0.975))


def test_mcnemar_counts_the_images_on_which_two_models_disagree() -> None:
    first = np.array([1] * 50 + [1] * 12 + [0] * 4 + [0] * 30, bool)
    second = np.array([1] * 50 + [0] * 12 + [1] * 4 + [0] * 30, bool)
    by_hand = 2 * sum(binom.pmf(k, 16, 0.5) for k in range(5))
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(by_hand)
    assert mcnemar(first, first) == 1.0


def test_the_multinomial_bootstrap_is_a_loop_over_redrawn_images() -> None:
    rng = np.random.default_rng(0)
    values, strata = rng.random(60) < 0.6, rng.integers(0, 4, 60)
    looped = []
    for _ in range(4000):
        means = [rng.choice(values[strata == c], (strata == c).sum()).mean() for c in range(4)]
        looped.append(np.mean(means))
    found = stratified_bootstrap(values, strata, per_stratum=True)
    assert found == pytest.approx(tuple(np.quantile(looped, [0.025, 0.975])), abs=0.012)
    assert stratified_bootstrap(values, strata) != found
    whole = stratified_bootstrap(values)
    assert whole == pytest.approx(
        tuple(np.array([binom.ppf(0.025, 60, values.mean()), binom.ppf(0.975, 60, values.mean())]) / 60), abs=0.017
    )


def test_a_paired_difference_by_bootstrap_is_the_normal_one_of_many_images() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(4000) < 0.62, rng.random(4000) < 0.58
    found = paired_bootstrap(first, second)
    differences = first.astype(float) - second
    error = differences.std(ddof=1) / 4000**0.5
    assert found.value == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), abs=0.0015)
    assert found.p == pytest.approx(2 * norm.sf(abs(found.value) / error), abs=0.005)
    back = paired_bootstrap(second, first)
    assert back.value == -found.value
    assert back.p == pytest.approx(found.p, abs=0.005)


def test_equal_models_have_no_difference() -> None:
    same = np.arange(50) % 3 == 0
    found = paired_bootstrap(same, same)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert paired_bootstrap(np.ones(50), np.zeros(50)).p < 0.001


def _paired_worlds(studies: int, n: int, first: float, second: float, alike: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Answers of two models, (studies, n) each; with probability `alike` an image asks both the same question."""
    rng = np.random.default_rng(seed)
    difficulty, own = rng.random((studies, n)), rng.random((studies, n))
    shared = rng.random((studies, n)) < alike
    return difficulty < first, np.where(shared, difficulty, own) < second


@pytest.mark.parametrize(("studies", "tolerance"), [(400, 0.035), pytest.param(4000, 0.02, marks=pytest.mark.slow)])
def test_intervals_over_images_cover(studies: int, tolerance: float) -> None:
    first, second = _paired_worlds(studies, 300, 0.7, 0.66, 0.6)
    inside = [
        found.low <= 0.04 <= found.high
        for found in (paired_bootstrap(a, b, replicates=1000, seed=at) for at, (a, b) in enumerate(zip(first, second, strict=True)))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=tolerance)
    low, high = np.array([wilson(int(row.sum()), 300) for row in first[:1000]]).T
    assert np.mean((low <= 0.7) & (high >= 0.7)) == pytest.approx(0.95, abs=tolerance)
    strata = np.arange(300) % 6
    stratified = np.array([stratified_bootstrap(row, strata, per_stratum=True, replicates=1000, seed=at) for at, row in enumerate(first)])
    assert np.mean((stratified[:, 0] <= 0.7) & (stratified[:, 1] >= 0.7)) == pytest.approx(0.95, abs=tolerance)


@pytest.mark.parametrize(("studies", "tolerance"), [(1500, 0.04), pytest.param(8000, 0.02, marks=pytest.mark.slow)])
def test_detectable_differences_are_found_four_times_in_five(studies: int, tolerance: float) -> None:
    """Power by simulation: the normal tests that the closed forms are of find the difference in 80% of the studies."""
    n, base, alike = 1000, 0.7, 0.5
    independent = detectable_unpaired(base, n)
    rng = np.random.default_rng(3)
    one, other = rng.binomial(n, base, studies) / n, rng.binomial(n, base - independent, studies) / n
    error = np.sqrt((one * (1 - one) + other * (1 - other)) / n)
    assert np.mean(np.abs(one - other) / error > 1.96) == pytest.approx(0.8, abs=tolerance)
    difference = 0.04
    for _ in range(20):  # discordance depends on the difference
        discordance = alike * difference + (1 - alike) * (base * (1 - base + difference) + (1 - base) * (base - difference))
        difference = detectable_paired(discordance, n)
    first, second = _paired_worlds(studies, n, base, base - difference, alike, seed=4)
    gain, loss = (first & ~second).sum(axis=1), (second & ~first).sum(axis=1)
    assert np.mean(np.abs(gain - loss) / np.sqrt(gain + loss) > 1.96) == pytest.approx(0.8, abs=tolerance)
    assert difference < independent


def test_detectable_differences_by_connors_formula() -> None:
    found = detectable_paired(0.2, 1500)
    z, power = norm.ppf(0.975), norm.ppf(0.8)
    assert (z * 0.2**0.5 + power * (0.2 - found**2) ** 0.5) ** 2 / found**2 == pytest.approx(1500)
    assert detectable_paired(0.2, 6000) == pytest.approx(found / 2, rel=0.01)
    assert detectable_paired(0.01, 20) == 0.01
    assert detectable_unpaired(0.5, 784) == pytest.approx(2.8016 * (0.5 / 784) ** 0.5, rel=0.005)
