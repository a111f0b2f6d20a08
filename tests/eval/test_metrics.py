"""Metrics against scikit-learn, scipy, and loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from eval import metrics


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 193)])
    scores = rng.normal(size=(200, 7)) + 1.2 * np.eye(7)[labels]
    return scores, labels


def test_ranks_are_places_in_a_stable_sort(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = scored
    scores = np.round(scores)  # many ties
    naive = [sorted(range(7), key=lambda c: (-row[c], c)).index(label) for row, label in zip(scores, labels, strict=True)]
    assert metrics.ranks(scores, labels).tolist() == naive


def test_a_model_that_scores_all_alike_is_at_chance() -> None:
    labels = np.repeat(np.arange(4), 5)
    assert metrics.accuracy(metrics.ranks(np.zeros((20, 4)), labels)).value == 0.25


def test_accuracies_equal_sklearns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = scored
    ranked = metrics.ranks(scores, labels)
    assert metrics.accuracy(ranked).value == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert metrics.accuracy(ranked, 5).value == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert metrics.mean_per_class(ranked == 0, labels).value == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


def test_classes_without_images_do_not_count() -> None:
    labels = np.array([0, 0, 5])
    assert metrics.mean_per_class(np.array([True, False, True]), labels).value == 0.75


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (3, 8), (870, 1000)])
def test_wilson_equals_scipys(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    score = metrics.accuracy(np.array([0] * correct + [1] * (n - correct)))
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_t_interval_equals_scipys() -> None:
    values = [0.31, 0.29, 0.35, 0.30, 0.33]
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert metrics.t_interval(values) == pytest.approx(expected)
    score = metrics.over_seeds(values, "acc1")
    assert (score.value, score.low, score.high) == pytest.approx((np.mean(values), *expected))
    assert score.runs == tuple(values)


def test_intervals_end_where_values_do() -> None:
    values = [0.1, 0.9]
    low, high = stats.t.interval(0.95, 1, loc=0.5, scale=stats.sem(values))
    assert (low, high) == pytest.approx((-4.58, 5.58), abs=0.01)
    ends = {metric: metrics.over_seeds(values, metric) for metric in ("acc1", "nll", "error_barrier", "barrier")}
    assert (ends["acc1"].low, ends["acc1"].high) == (0, 1)
    assert (ends["nll"].low, ends["nll"].high) == pytest.approx((0, high))
    assert (ends["error_barrier"].low, ends["error_barrier"].high) == (-1, 1)
    assert (ends["barrier"].low, ends["barrier"].high) == pytest.approx((low, high))


def test_one_seed_has_no_interval() -> None:
    score = metrics.over_seeds([0.5], "acc1")
    assert (score.value, score.low, score.high, score.interval) == (0.5, None, None, "")


def test_runs_without_spread_keep_the_interval_over_images() -> None:
    scores = [metrics.Score(value, 0.4, 0.6, "wilson over test images", n=90, chance=0.1) for value in (0.5, 0.5, 0.5, 0.6)]
    same = metrics.over_runs(scores[:3], "acc1")
    assert (same.low, same.high, same.runs) == (0.4, 0.6, (0.5, 0.5, 0.5))
    assert same.interval == "wilson over test images (all 3 draws give the same)"
    spread = metrics.over_runs(scores, "acc1")
    assert (spread.low, spread.high) == metrics.t_interval([0.5, 0.5, 0.5, 0.6])
    assert (spread.n, spread.chance) == (90, 0.1)
    alone = metrics.over_runs(scores[:1], "acc1")
    assert (alone.low, alone.high, alone.interval, alone.runs) == (None, None, "", (0.5,))


def test_bootstrap_is_that_of_a_loop_over_images(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = scored
    correct = metrics.ranks(scores, labels) == 0
    rng = np.random.default_rng(3)
    groups = [np.flatnonzero(labels == c) for c in range(7)]
    draws = [np.mean([correct[rng.choice(g, len(g))].mean() for g in groups]) for _ in range(2000)]
    score = metrics.mean_per_class(correct, labels)
    assert (score.low, score.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)
    assert score == metrics.mean_per_class(correct, labels)


def test_calibration_is_scikit_learns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    logits, labels = scored
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert metrics.nll(logits, labels).value == pytest.approx(log_loss(labels, chances))
    ours = metrics.brier(logits, labels)
    assert ours.value == pytest.approx(brier_score_loss(labels, chances, labels=range(7), scale_by_half=False))
    errors = ((chances - np.eye(7)[labels]) ** 2).sum(axis=1)
    assert (ours.low, ours.high) == pytest.approx(stats.t.interval(0.95, 199, loc=errors.mean(), scale=stats.sem(errors)))


def test_calibration_error_is_that_of_a_loop_over_bins(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, correct = chances.max(axis=1), chances.argmax(axis=1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert metrics.ece(logits, labels).value == pytest.approx(total)


def test_calibration_of_known_cases() -> None:
    labels = np.array([0, 0, 0, 1])
    even = np.log(np.tile([0.75, 0.25], (4, 1)))  # right in 3 of 4: calibrated
    assert metrics.ece(even, labels).value == pytest.approx(0, abs=1e-12)
    assert metrics.nll(np.zeros((4, 2)), labels).value == pytest.approx(np.log(2)) == metrics.chance_of("nll", 2)
    assert metrics.brier(np.zeros((4, 2)), labels).value == pytest.approx(0.5) == metrics.chance_of("brier", 2)
    sure = np.array([[1e4, 0.0]] * 4)  # softmax without overflow
    assert metrics.ece(sure, labels).value == pytest.approx(0.25)
    assert metrics.brier(sure, labels).value == pytest.approx(0.5)


def test_calibration_does_not_depend_on_the_order_of_images(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scored
    order = np.random.default_rng(1).permutation(200)
    for metric in (metrics.nll, metrics.brier, metrics.ece):
        assert metric(logits, labels) == metric(logits[order], labels[order])
