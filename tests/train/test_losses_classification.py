"""Supervised losses against loops, timm's and torch's; samples without a label are left out and counted."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from train.data.augment.mixup import soft_targets
from train.losses.base import Counted, global_mean
from train.losses.classification import count_unlabelled, cross_entropy, multi_label_loss, soft_cross_entropy


def logits_of(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([3, 0, 6, 6, 1])
GAPS = torch.tensor([3, -1, 6, -1, 1])
KEPT = [0, 2, 4]


def mean(losses: Counted) -> torch.Tensor:
    return global_mean(losses.values, losses.counts)


def naive(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> float:
    classes, terms = logits.shape[1], []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label == -1:
            continue
        normaliser = math.log(sum(math.exp(x) for x in row))
        targets = [smoothing / classes + (1 - smoothing) * (k == label) for k in range(classes)]
        terms.append(sum(t * (normaliser - x) for t, x in zip(targets, row, strict=True)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("labels", [LABELS, GAPS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy_equals_a_loop(labels: torch.Tensor, smoothing: float) -> None:
    logits = logits_of(5, 7)
    expected = naive(logits, labels, smoothing)
    assert float(mean(cross_entropy(logits, labels, smoothing))) == pytest.approx(expected, abs=1e-12)
    as_soft = mean(soft_cross_entropy(logits, soft_targets(labels, 7, smoothing).double()))
    assert float(as_soft) == pytest.approx(expected, abs=1e-6)  # the targets are float32


def test_cross_entropy_equals_timms() -> None:
    from timm.loss import LabelSmoothingCrossEntropy

    logits = logits_of(5, 7)
    theirs = LabelSmoothingCrossEntropy(0.1)(logits, LABELS)
    torch.testing.assert_close(mean(cross_entropy(logits, LABELS, 0.1)), theirs, rtol=1e-12, atol=1e-12)


def test_soft_cross_entropy_equals_timms() -> None:
    from timm.loss import SoftTargetCrossEntropy

    logits = logits_of(5, 7)
    targets = F.softmax(logits_of(5, 7, seed=1), dim=-1)
    theirs = SoftTargetCrossEntropy()(logits, targets)
    torch.testing.assert_close(mean(soft_cross_entropy(logits, targets)), theirs, rtol=1e-12, atol=1e-12)


def test_soft_targets_are_timms_of_mixup() -> None:
    from timm.data.mixup import mixup_target

    ours = 0.3 * soft_targets(LABELS, 7, 0.1) + 0.7 * soft_targets(LABELS.flip(0), 7, 0.1)
    theirs = mixup_target(LABELS, 7, lam=0.3, smoothing=0.1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_sample_mixed_with_an_unlabelled_one_counts_by_its_share() -> None:
    logits = logits_of(2, 4)
    targets = torch.tensor([[0.25, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.float64)
    each = -F.log_softmax(logits, dim=-1)
    expected = (0.25 * each[0, 0] + each[1, 2]) / 1.25
    torch.testing.assert_close(mean(soft_cross_entropy(logits, targets)), expected)


def test_multi_label_equals_timms_and_torchs() -> None:
    from timm.loss import BinaryCrossEntropy

    logits = logits_of(6, 5)
    targets = (logits_of(6, 5, seed=2) > 0).double()
    ours = mean(multi_label_loss(logits, targets))
    torch.testing.assert_close(ours, BinaryCrossEntropy(smoothing=0.0)(logits, targets), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours, mean(multi_label_loss(logits, targets.to(torch.int64))), rtol=0, atol=0)


def test_multi_label_leaves_unknown_entries_out() -> None:
    logits = logits_of(3, 4)
    targets = torch.tensor([[1, 0, -1, 0], [-1, -1, -1, -1], [0, 1, 1, -1]])
    terms = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        for x, t in zip(row, wanted, strict=True):
            if t != -1:
                terms.append(math.log(1 + math.exp(-x if t else x)))
    assert float(mean(multi_label_loss(logits, targets))) == pytest.approx(sum(terms) / 6, abs=1e-12)
    assert int(count_unlabelled(targets)) == 1


def test_unlabelled_samples_change_neither_loss_nor_gradient() -> None:
    logits = logits_of(5, 7).requires_grad_()
    mean(cross_entropy(logits, GAPS, 0.1)).backward()
    kept = logits_of(5, 7)[KEPT].requires_grad_()
    F.cross_entropy(kept, GAPS[KEPT], label_smoothing=0.1).backward()
    assert logits.grad is not None
    assert not logits.grad[[1, 3]].any()
    torch.testing.assert_close(logits.grad[KEPT], kept.grad, rtol=1e-12, atol=1e-12)
    assert int(count_unlabelled(GAPS)) == 2


def test_a_batch_without_labels_has_loss_0_and_gradient_0() -> None:
    none = torch.full((3,), -1)
    for loss_of in (
        lambda x: cross_entropy(x, none, 0.1),
        lambda x: soft_cross_entropy(x, soft_targets(none, 4).double()),
        lambda x: multi_label_loss(x, torch.full((3, 4), -1)),
    ):
        logits = logits_of(3, 4).requires_grad_()
        loss = mean(loss_of(logits))
        loss.backward()
        assert float(loss.detach()) == 0
        assert logits.grad is not None
        assert not logits.grad.any()


def test_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(IndexError):
        cross_entropy(logits_of(2, 3), torch.tensor([0, 3]))
