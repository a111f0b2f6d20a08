"""Mean softmax, diversity, soups, barriers and cycles against loops, closed forms and scikit-learn, on numbers alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from published_rates import published_rates
from sklearn.metrics import brier_score_loss, cohen_kappa_score, log_loss, matthews_corrcoef

from eval import metrics
from eval.ensembles import cycles, diversity, lines, softmax, soups
from eval.ensembles.cycles import Cycle
from shards.core import notices
from shards.core.errors import UsageError

CLASSES, N, M = 7, 60, 5


def members(count: int = M, seed: int = 0, classes: int = CLASSES) -> tuple[list[np.ndarray], np.ndarray]:
    """Return logits of members that are right rather often, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, N)
    truth = np.eye(classes)[labels] * 1.5
    return [(truth + rng.normal(size=(N, classes))).astype(np.float32) for _ in range(count)], labels


def chances(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).double().softmax(-1).numpy()


def test_the_mean_softmax_is_a_mean_of_softmaxes() -> None:
    logits, _ = members()
    expected = sum(chances(member) for member in logits) / M
    assert np.exp(softmax.mean_softmax(logits)) == pytest.approx(expected, abs=1e-12)
    far = np.array([[0.0, -60_000.0]])
    assert np.isfinite(softmax.mean_softmax([far, far])).all()  # exp(-60,000) is no number above 0


def test_identical_members_are_one_member() -> None:
    logits, labels = members(1)
    alone = metrics.classification(logits[0], labels, probabilistic=True)
    for size in (1, 2, 3):
        together = softmax.scores(logits * 3, labels, size)
        assert together.keys() == alone.keys()
        for metric, score in together.items():
            assert score.value == pytest.approx(alone[metric].value, abs=1e-12), (size, metric)
    answers = np.stack([logits[0].argmax(1)] * 3)
    same = diversity.between(answers, labels)
    assert {metric: value.value for metric, value in same.items()} == pytest.approx({"disagreement": 0, "error_correlation": 1, "kappa": 1})


def test_a_curve_is_the_mean_over_all_subsets() -> None:
    logits, labels = members()
    together = softmax.scores(logits, labels, 3)
    by_subset: dict[str, list[Any]] = {"acc1": [], "nll": [], "brier": [], "mean_per_class": [], "acc5": [], "ece": []}
    for subset in itertools.combinations(range(M), 3):
        mean = np.mean([chances(logits[at]) for at in subset], axis=0)
        right = mean.argmax(1) == labels
        by_subset["acc1"].append(right.mean())
        by_subset["acc5"].append(np.mean([label in np.argsort(-row)[:5] for row, label in zip(mean, labels, strict=True)]))
        by_subset["mean_per_class"].append(np.mean([right[labels == label].mean() for label in range(CLASSES)]))
        by_subset["nll"].append(log_loss(labels, mean, labels=range(CLASSES)))
        by_subset["brier"].append(brier_score_loss(labels, mean, labels=list(range(CLASSES)), scale_by_half=False))
        by_subset["ece"].append(metrics.ece(np.log(mean), labels).value)
    for metric, values in by_subset.items():
        assert len(values) == 10
        assert together[metric].value == pytest.approx(np.mean(values), abs=1e-9), metric
        assert metric == "ece" or together[metric].low < together[metric].value < together[metric].high  # type: ignore[operator]
    assert softmax.scores(logits, labels, M)["acc1"].interval == "wilson over test images"


def test_subsets_are_all_or_as_many_as_allowed() -> None:
    assert softmax.subsets(4, 2) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    drawn = softmax.subsets(20, 10, 50)
    assert len(set(drawn)) == len(drawn) == 50
    assert drawn == softmax.subsets(20, 10, 50)
    assert all(len(set(subset)) == 10 for subset in drawn)


def test_diversity_is_a_naive_loops_and_scikit_learns() -> None:
    logits, labels = members()
    answers = np.stack([member.argmax(1) for member in logits])
    measured = diversity.between(answers, labels)
    for i, j in itertools.combinations(range(M), 2):
        differing = sum(answers[i, at] != answers[j, at] for at in range(N)) / N
        assert measured["disagreement"].pairs[i, j] == pytest.approx(differing)
        assert measured["kappa"].pairs[i, j] == pytest.approx(cohen_kappa_score(answers[i], answers[j]))
        wrong = answers != labels
        assert measured["error_correlation"].pairs[i, j] == pytest.approx(matthews_corrcoef(wrong[i], wrong[j]))  # φ of two 0/1 vectors
        assert measured["error_correlation"].pairs[i, j] == pytest.approx(np.corrcoef(wrong[i], wrong[j])[0, 1])
    assert measured["kappa"].value == pytest.approx(np.mean(list(measured["kappa"].pairs.values())))


def test_pairs_without_a_value_are_left_out_and_counted() -> None:
    labels = np.array([0, 1, 2, 0])
    answers = np.stack([labels, np.array([0, 1, 1, 0]), np.array([0, 0, 2, 0])])  # the first is never wrong
    measured = diversity.between(answers, labels)
    assert list(measured["error_correlation"].pairs) == [(1, 2)]
    assert measured["error_correlation"].undefined == 2
    assert "kappa" not in diversity.between(np.zeros((2, 4), int), labels)
    with pytest.raises(UsageError, match="two members or more"):
        diversity.between(answers[:1], labels)


def test_cka_is_hsic_of_gram_matrices() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 8))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        centre = np.eye(30) - 1 / 30
        return float(np.trace(a @ a.T @ centre @ b @ b.T @ centre))

    assert diversity.linear_cka(x, y) == pytest.approx(hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y)))
    turned = x @ np.linalg.qr(rng.normal(size=(5, 5)))[0] * 3 + 1
    assert diversity.cka([x, turned, y]).pairs[0, 1] == pytest.approx(1)  # neither turning, scaling nor shifting counts
    with pytest.raises(UsageError, match="do not vary"):
        diversity.cka([np.ones((4, 2)), x[:4]])


def test_a_barrier_is_what_rises_above_the_line_of_the_ends() -> None:
    alphas = lines.points(3)
    assert alphas == (0, 0.25, 0.5, 0.75, 1)
    assert lines.barrier(alphas, [0, 1, 2, 3, 4]) == 0  # a slope is none
    assert lines.barrier(alphas, [1, 1, 3, 2, 2]) == pytest.approx(3 - 1.5)
    assert lines.barrier(alphas, [1, 0, 0, 0, 1]) == 0
    assert lines.Line(alphas, (0,) * 5, (0.9, 0.9, 0.5, 0.7, 0.7)).error_barrier == pytest.approx(0.8 - 0.5)


def test_a_walk_is_a_direct_evaluation_at_each_point() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = [{"w": torch.randn((4, 3), generator=generator)} for _ in range(2)]
    images, labels = [torch.randn((n, 4), generator=generator) for n in (20, 30)], [np.arange(20) % 3, np.arange(30) % 3]

    def logits(weights: lines.Weights) -> list[np.ndarray]:
        return [(part @ weights["w"]).relu().numpy() for part in images]

    walked = lines.walk(ends[0], ends[1], lines.points(4), logits, labels)
    for part, label, line in zip(images, labels, walked, strict=True):
        for alpha, loss, accuracy in zip(line.alphas, line.losses, line.accuracies, strict=True):
            answers = (part @ ((1 - alpha) * ends[0]["w"] + alpha * ends[1]["w"])).relu()
            assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(answers, torch.from_numpy(label))), abs=1e-5)
            assert accuracy == pytest.approx(float((answers.argmax(1).numpy() == label).mean()))
        direct = [loss - ((1 - a) * line.losses[0] + a * line.losses[-1]) for a, loss in zip(line.alphas, line.losses, strict=True)]
        assert line.barrier == pytest.approx(max(direct))


def test_soups_are_hand_averaged_weights() -> None:
    states = [{"w": torch.tensor([value, 2 * value])} for value in (1.0, 2.0, 6.0, 3.0)]
    assert torch.equal(soups.uniform(states)["w"], torch.tensor([3.0, 6.0]))

    def nearness(target: float) -> Callable[[soups.Weights], float]:
        return lambda weights: 1 - abs(float(weights["w"][0]) - target) / 10

    # Aim 2.5: alone 0.85 0.95 0.65 0.95; order 2, 4, 1, 3. {2, 4} is 2.5 (1.0), and neither {2, 4, 1} nor {2, 4, 3} is better.
    alone = [nearness(2.5)(state) for state in states]
    weights, chosen, accuracy = soups.greedy(states, alone, nearness(2.5))
    assert (chosen, accuracy) == ([1, 3], 1.0)
    assert torch.equal(weights["w"], (states[1]["w"] + states[3]["w"]) / 2)
    # Equal is not better: a judge that sees no difference leaves the best member alone.
    assert soups.greedy(states, [0.5, 0.7, 0.7, 0.1], lambda _: 0.7)[1] == [1]


def test_rates_are_the_published_formulas_step_by_step() -> None:
    cycle, per_epoch = Cycle(0.02, 3), 4
    by_epoch = list(published_rates(0.01, 5, cycle, 3, per_epoch, "epoch"))
    assert len(by_epoch) == (5 + 2 * 3) * per_epoch  # epochs + (num_fge - 1)·fge_epochs
    for step, value in enumerate(by_epoch):
        epoch = step // per_epoch
        if epoch < 5:
            expected = 0.01 * 0.5 * (1 + math.cos(math.pi * epoch / 5))
        else:
            expected = 0.02 * 0.5 * (1 + math.cos(math.pi * ((epoch - 5) % 3) / 3))
        assert value == pytest.approx(expected)
    by_step = list(published_rates(0.01, 5, cycle, 3, per_epoch, "step"))
    for step, value in enumerate(by_step):
        base, at, whole = (0.01, step, 20) if step < 20 else (0.02, (step - 20) % 12, 12)
        assert value == pytest.approx(base * 0.5 * (1 + math.cos(math.pi * at / whole)))


def test_the_grid_of_cycles_is_the_published_one() -> None:
    grid = cycles.grid(0.005, 25, cycles.RATIOS_LR, cycles.RATIOS_EPOCHS)
    assert sorted({cycle.lr for cycle in grid}) == pytest.approx([0.00125, 0.0025, 0.005, 0.01, 0.02])
    assert {cycle.epochs for cycle in grid} == {12, 25, 50, 100}  # int(0.5 · 25) is 12
    assert len(grid) == 20
    assert cycles.grid(1.0, 3, (1.0,), (0.5,)) == [Cycle(1.0, 1)]  # cut, not rounded
    assert cycles.middle(grid, 0.005, 25) == Cycle(0.005, 25)
    notices.clear()
    assert cycles.grid(1.0, 1, (1.0,), (0.5, 1.0)) == [Cycle(1.0, 1)]
    assert notices.lines() == ["1 length of a cycle comes to no epoch, and is left out: int(0.5 · 1) = 0"]
    notices.clear()
    with pytest.raises(UsageError, match="no epoch"):
        cycles.grid(1.0, 1, (1.0,), (0.5,))
    notices.clear()


@pytest.mark.parametrize(("star", "starts"), [(True, [0, 0, 0]), (False, [0, 1, 2])])
def test_star_starts_each_cycle_at_the_first_snapshot(star: bool, starts: list[int]) -> None:
    asked: list[tuple[int, int]] = []

    def cycle(start: int, number: int) -> int:
        asked.append((start, number))
        return number

    made = cycles.snapshots(0, 4, star=star, cycle=cycle)  # type: ignore[arg-type]
    assert made == [0, 1, 2, 3]  # type: ignore[comparison-overlap]
    assert asked == list(zip(starts, [1, 2, 3], strict=True))
    assert cycles.snapshots(0, 4, star=star, cycle=lambda *_: None) is None  # type: ignore[arg-type]
