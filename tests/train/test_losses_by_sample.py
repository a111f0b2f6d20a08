"""The loss of each sample, and weights: every loss against loops over pairs, every task against the loss that it minimises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.train import runs
from train.losses.base import global_mean
from train.losses.byol import byol_loss
from train.losses.classification import cross_entropy, multi_label_loss, soft_cross_entropy
from train.losses.clip import clip_loss
from train.losses.fastclip import FastClip
from train.losses.nt_xent import nt_xent
from train.losses.siglip import siglip_loss
from train.run import Run
from train.step import Outcome, gradient
from train.tasks.base import Step

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]
Rows = list[torch.Tensor]
N, SCALE, BIAS = 6, 4.0, -2.0
WEIGHTS = torch.tensor([0.0, 2.0, 0.5, 1.0, 0.0, 3.0], dtype=torch.float64)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two sets of features with gradients, (N, 5) float64, of unit length."""
    generator = torch.Generator().manual_seed(4)
    first, second = (F.normalize(torch.randn(N, 5, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


def dots(a: torch.Tensor, b: torch.Tensor) -> list[Rows]:
    """Return all products of rows, one by one."""
    return [[(a[i] * b[j]).sum() for j in range(N)] for i in range(N)]


def log_sum(terms: Rows) -> torch.Tensor:
    return torch.log(sum((torch.exp(term) for term in terms), torch.zeros((), dtype=torch.float64)))


def naive_clip(a: torch.Tensor, b: torch.Tensor) -> Rows:
    s = dots(SCALE * a, b)
    return [(log_sum(s[i]) + log_sum([s[j][i] for j in range(N)])) / 2 - s[i][i] for i in range(N)]


def naive_siglip(a: torch.Tensor, b: torch.Tensor) -> Rows:
    s = dots(SCALE * a, b)
    costs = [[torch.log1p(torch.exp((-1 if i == j else 1) * (s[i][j] + BIAS))) for j in range(N)] for i in range(N)]
    return [sum((costs[i][j] + costs[j][i]) / 2 for j in range(N)) for i in range(N)]  # type: ignore[misc]


def unit(row: torch.Tensor) -> torch.Tensor:
    """Return a row over its length, which is 1 here: the gradient is another one."""
    return row / (row * row).sum().sqrt()


def naive_nt_xent(a: torch.Tensor, b: torch.Tensor) -> Rows:
    views = [unit(row) for row in (*a, *b)]
    losses = []
    for i in range(N):
        of_views = []
        for view, partner in ((i, i + N), (i + N, i)):
            others = [(views[view] * views[k]).sum() / 0.5 for k in range(2 * N) if k != view]
            of_views.append(log_sum(others) - (views[view] * views[partner]).sum() / 0.5)
        losses.append((of_views[0] + of_views[1]) / 2)
    return losses


def naive_byol(a: torch.Tensor, b: torch.Tensor) -> Rows:
    towards = [((unit(a[i]) - b[i].detach()).square().sum(), (unit(b[i]) - a[i].detach()).square().sum()) for i in range(N)]
    return [of_first + of_second for of_first, of_second in towards]


def naive_fastclip(a: torch.Tensor, b: torch.Tensor) -> Rows:
    """γ = 1: u is g itself, so the estimate is the mini-batch loss; v0 has no temperature term."""
    s = dots(SCALE * a, b)
    losses = []
    for i in range(N):
        of_image = log_sum([s[i][j] - s[i][i] for j in range(N) if j != i]) - math.log(N - 1)
        of_text = log_sum([s[j][i] - s[i][i] for j in range(N) if j != i]) - math.log(N - 1)
        losses.append((of_image + of_text) / 2)
    return losses


def fastclip(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return FastClip(N, "v0", eps=1e-300).double()(a, b, torch.arange(N), torch.tensor(SCALE, dtype=torch.float64), 1.0)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


LOSSES: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., Rows]]] = {
    "clip": (lambda a, b: clip_loss(a, b, scalar(SCALE)), naive_clip),
    "siglip": (lambda a, b: siglip_loss(a, b, scalar(SCALE), scalar(BIAS)), naive_siglip),
    "nt_xent": (lambda a, b: nt_xent(a, b, 0.5), naive_nt_xent),
    "byol": (lambda a, b: byol_loss(a, b, a, b), naive_byol),
    "fastclip": (fastclip, naive_fastclip),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_sample_is_a_loop_over_its_pairs(name: str) -> None:
    loss_of, naive = LOSSES[name]
    first, second = inputs()
    losses = loss_of(first, second)
    torch.testing.assert_close(losses, torch.stack(naive(first, second)), rtol=1e-10, atol=1e-10)
    assert losses.std() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_weights_are_those_of_the_loop(name: str) -> None:
    """Values and gradients of Σ w·loss / Σ w, the sums taken one by one."""
    loss_of, naive = LOSSES[name]
    first, second = inputs()
    ours = global_mean(loss_of(first, second), WEIGHTS)
    weighted = sum(float(w) * loss for w, loss in zip(WEIGHTS, naive(first, second), strict=True)) / 6.5
    torch.testing.assert_close(ours, weighted, rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(ours, [first, second])
    for gradient_of, expected in zip(gradients, torch.autograd.grad(weighted, [first, second]), strict=True):
        torch.testing.assert_close(gradient_of, expected, rtol=1e-9, atol=1e-10)


def test_a_sample_of_weight_0_is_a_negative_and_nothing_else() -> None:
    """CLIP's rows and columns of the other samples, over all N candidates."""
    first, second = inputs()
    weights = torch.ones(N, dtype=torch.float64)
    weights[2] = 0
    ours = torch.autograd.grad(global_mean(clip_loss(first, second, scalar(SCALE)), weights), [first, second])
    others = torch.tensor([0, 1, 3, 4, 5])
    logits = SCALE * first @ second.T
    expected = (F.cross_entropy(logits[others], others) + F.cross_entropy(logits.T[others], others)) / 2
    for gradient_of, wanted in zip(ours, torch.autograd.grad(expected, [first, second]), strict=True):
        torch.testing.assert_close(gradient_of, wanted, rtol=1e-10, atol=1e-12)
        assert gradient_of[2].norm() > 1e-3  # it is still pushed away


def test_losses_of_classifiers_are_by_sample() -> None:
    logits = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = -F.log_softmax(logits, dim=-1)
    labelled = cross_entropy(logits, torch.tensor([2, -1, 0, 1]))
    torch.testing.assert_close(labelled.values, torch.stack([each[0, 2], 0 * each[1, 0], each[2, 0], each[3, 1]]))
    assert labelled.counts.tolist() == [1, 0, 1, 1]
    soft = soft_cross_entropy(logits, torch.tensor([[0.5, 0.0, 1.5], [0, 0, 0], [0, 1, 0], [0, 0, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(soft.values, torch.stack([(each[0, 0] + 3 * each[0, 2]) / 4, 0 * each[1, 0], each[2, 1], each[3, 2]]))
    assert soft.counts.tolist() == [2, 0, 1, 0.25]
    several = multi_label_loss(logits, torch.tensor([[1, 0, -1], [-1, -1, -1], [0, 0, 1], [1, -1, -1]]))
    costs = F.softplus(logits), F.softplus(-logits)
    first = (costs[1][0, 0] + costs[0][0, 1]) / 2
    third = (costs[0][2, 0] + costs[0][2, 1] + costs[1][2, 2]) / 3
    torch.testing.assert_close(several.values, torch.stack([first, 0 * first, third, costs[1][3, 0]]))
    assert several.counts.tolist() == [2, 0, 3, 1]


def test_where_nothing_counts_loss_and_gradient_are_0() -> None:
    first, second = inputs()
    loss = global_mean(clip_loss(first, second, scalar(SCALE)), torch.zeros(N, dtype=torch.float64))
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, first)[0].any()


def a_step(task: str, build: str, weights: torch.Tensor | None, **options: Any) -> tuple[Run, Outcome]:
    """Return a training after one backward pass over a batch with weights, and what its loss came to."""
    made, batch = runs.built(task, build, **options)
    weighted = dataclasses.replace(batch, weights=weights)
    return made, gradient(made.module().train(), made.trained, weighted, Step(3, 10, 0.0), made.scaler)


def gradients_of(made: Run) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in made.trained.parameters() if p.grad is not None])


CASES = [
    ("clip", {"model": "micro-vit"}),
    ("clip", {"model": "micro-vit", "loss": "siglip"}),
    ("clip", {"model": "micro-vit", "loss": "fastclip"}),
    ("simclr", {"bn_group": 4}),
    ("slip", {"bn_group": 4, "ssl_scale": 0.5}),
    ("byol", {"bn_group": 4}),
    ("supervised", {"bn_group": 4, "smoothing": 0.1}),
    ("supervised", {"bn_group": 4, "mix": {"mixup": 0.4, "cutmix": 1.0}}),
]


@pytest.mark.parametrize(("task", "options"), CASES)
def test_weights_of_1_change_no_bit(task: str, options: dict[str, Any], make_shards: MakeShards) -> None:
    build = make_shards(20, classes=True)
    for accum in (1, 4):
        plain, of_plain = a_step(task, build, None, accum=accum, **options)
        ones, of_ones = a_step(task, build, torch.ones(16), accum=accum, **options)
        assert torch.equal(gradients_of(plain), gradients_of(ones))
        assert torch.equal(of_plain.by_sample, of_ones.by_sample)
        assert torch.equal(of_plain.terms["loss"], of_ones.terms["loss"])
        # float32: 16 terms added in another order
        assert float(of_plain.by_sample.mean()) == pytest.approx(float(of_plain.terms["loss"]), rel=1e-6)


@pytest.mark.parametrize(("task", "options"), CASES)
def test_a_task_minimises_the_weighted_mean(task: str, options: dict[str, Any], make_shards: MakeShards) -> None:
    build = make_shards(20, classes=True)
    weights = torch.arange(16).float().remainder(5) / 2
    whole, outcome = a_step(task, build, weights, **options)
    parts, in_parts = a_step(task, build, weights, accum=4, **options)
    assert float(in_parts.terms["loss"]) == pytest.approx(float(outcome.terms["loss"]), rel=1e-5)
    torch.testing.assert_close(in_parts.by_sample, outcome.by_sample, rtol=1e-5, atol=1e-6, equal_nan=True)
    apart = (gradients_of(whole) - gradients_of(parts)).norm() / gradients_of(whole).norm()
    assert float(apart) < 3e-5  # 1.9e-5 on one processor; parts that know nothing of each other are over 1e-2 apart
    plain, of_plain = a_step(task, build, None, **options)
    assert float((gradients_of(whole) - gradients_of(plain)).norm() / gradients_of(plain).norm()) > 1e-2
    if "mix" not in options:  # there the weights go with the labels
        assert torch.equal(outcome.by_sample, of_plain.by_sample)
        weighted = sum(w * loss for w, loss in zip(weights.tolist(), outcome.by_sample.tolist(), strict=True)) / float(weights.sum())
        assert float(outcome.terms["loss"]) == pytest.approx(weighted, rel=1e-5)


def test_a_mixed_images_labels_count_by_share_and_weight(make_shards: MakeShards) -> None:
    """Mixup by hand: each label of a mixed image costs share · weight · −log p, over the sum of share · weight."""
    from train.data.augment.mixup import draw
    from train.step import mixed

    build = make_shards(20, classes=True)
    options: dict[str, Any] = {"mix": {"mixup": 0.4}, "bn_group": 4}
    weights = torch.arange(16).float().remainder(3)
    made, outcome = a_step("supervised", build, weights, **options)
    _, batch = runs.built("supervised", build, **options)
    assert made.task.mix is not None
    assert batch.labels is not None
    shares = draw(made.task.mix, 0, 0, first=0, n=16, side=32).lam.tolist()
    again, _ = runs.built("supervised", build, **options)
    images, _ = mixed(again.trained, again.trained.views(batch), batch)
    again.trained.train()
    with torch.no_grad():
        logs = F.log_softmax(again.task.features(images, batch)["logits"], dim=-1).double()
    cost = total = 0.0
    for row in range(16):
        for other, share in ((row, shares[row // 2]), (row ^ 1, 1 - shares[row // 2])):
            counts = share * float(weights[other])
            cost -= counts * float(logs[row, int(batch.labels[other])])
            total += counts
    assert float(outcome.terms["loss"]) == pytest.approx(cost / total, rel=1e-5)
