"""Mixup and CutMix against timm's formulas and plain loops; pairs that do not depend on the number of processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.mixup import mixup_target, rand_bbox

from shards.core.config import load
from shards.core.errors import UsageError
from train.data.augment.mixup import Mix, Pairs, beta, box, draw, mixed_images, mixed_targets, soft_targets

SIDE, CLASSES = 12, 7
BOTH = Mix(mixup=0.8, cutmix=1.0)


def images(n: int) -> torch.Tensor:
    return torch.randn((n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_number_of_processes_changes_nothing(ranks: int) -> None:
    batch, n = images(16), 16 // ranks
    whole = draw(BOTH, 3, 41, first=0, n=16, side=SIDE)
    together = mixed_images(batch, whole)
    for rank in range(ranks):
        part = draw(BOTH, 3, 41, first=rank * n, n=n, side=SIDE)
        assert torch.equal(mixed_images(batch[rank * n : (rank + 1) * n], part), together[rank * n : (rank + 1) * n])


def test_draws_depend_on_seed_and_step() -> None:
    base = draw(BOTH, 0, 0, first=0, n=64, side=SIDE)
    assert np.array_equal(base.lam, draw(BOTH, 0, 0, first=0, n=64, side=SIDE).lam)
    for seed, step in ((1, 0), (0, 1)):
        assert (base.lam != draw(BOTH, seed, step, first=0, n=64, side=SIDE).lam).mean() > 0.8


def test_lambda_is_a_beta_number() -> None:
    for alpha in (0.2, 0.8, 1.0):
        lam = np.concatenate([draw(Mix(mixup=alpha), 0, step, first=0, n=2000, side=SIDE).lam for step in range(4)])
        assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    u = np.linspace(0.01, 0.99, 9)
    assert np.allclose(beta(0.3, u), stats.beta(0.3, 0.3).ppf(u), atol=1e-8)


def test_shares_of_what_happens() -> None:
    pairs = draw(Mix(mixup=0.8, cutmix=1.0, mix_p=0.6, cutmix_p=0.3), 0, 0, first=0, n=8000, side=224)
    unmixed, cut = pairs.lam == 1, pairs.boxes[:, 1] > pairs.boxes[:, 0]
    assert abs(unmixed.mean() - 0.4) < 4 * math.sqrt(0.24 / 4000)
    assert abs(cut.mean() - 0.18) < 4 * math.sqrt(0.15 / 4000)
    assert not draw(Mix(), 0, 0, first=0, n=8, side=SIDE).boxes.any()
    assert (draw(Mix(), 0, 0, first=0, n=8, side=SIDE).lam == 1).all()


def test_boxes_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    for lam, y, x in ((0.3, 0.5, 0.5), (0.9, 0.02, 0.98), (0.0, 0.4, 0.7), (1.0, 0.1, 0.2)):
        centres = iter([int(y * SIDE), int(x * SIDE)])
        with monkeypatch.context() as patch:
            patch.setattr(np.random, "randint", lambda low, high, size, centres=centres: next(centres))
            theirs = rand_bbox((3, SIDE, SIDE), lam)
        ours = box(np.array([lam]), np.array([y]), np.array([x]), SIDE)[0]
        assert tuple(ours) == tuple(int(edge) for edge in theirs)


@pytest.mark.parametrize("mix", [Mix(mixup=0.4), Mix(cutmix=1.0), BOTH])
def test_images_and_targets_against_plain_loops(mix: Mix) -> None:
    batch, labels = images(32), torch.arange(32) % CLASSES
    pairs = draw(mix, 0, 5, first=0, n=32, side=SIDE)
    ours, targets = mixed_images(batch, pairs), mixed_targets(soft_targets(labels, CLASSES, 0.1), pairs)
    for i in range(32):
        j, lam, (top, bottom, left, right) = i ^ 1, float(pairs.lam[i // 2]), pairs.boxes[i // 2]
        if bottom > top:
            naive = batch[i].clone()
            naive[:, top:bottom, left:right] = batch[j][:, top:bottom, left:right]
            assert lam == pytest.approx(1 - (bottom - top) * (right - left) / SIDE**2)
        elif mix.mixup:
            naive = lam * batch[i] + (1 - lam) * batch[j]
        else:
            naive = batch[i]  # a box of no area
        assert torch.allclose(ours[i], naive, atol=1e-6), i
        # timm mixes a target with that of the flipped batch: of two samples, with each other.
        theirs = mixup_target(labels[[i, j]], CLASSES, lam, 0.1)[0]
        assert torch.allclose(targets[i], theirs, atol=1e-6), i
    assert torch.allclose(targets.sum(1), torch.ones(32), atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_multi_label_targets_are_timms() -> None:
    dense = (torch.rand((4, CLASSES), generator=torch.Generator().manual_seed(0)) < 0.3).float()
    pairs = Pairs(np.array([0.25, 0.5], np.float32), np.zeros((2, 4), np.int64))
    ours = mixed_targets(soft_targets(dense, CLASSES, 0.2), pairs)
    theirs = mixup_target(dense[:2], CLASSES, 0.25, 0.2, multi_label=True)
    assert torch.allclose(ours[:2], theirs, atol=1e-6)


def test_bfloat16_and_empty_batches() -> None:
    pairs = draw(BOTH, 0, 5, first=0, n=32, side=SIDE)
    half = mixed_images(images(32).to(torch.bfloat16), pairs)
    assert half.dtype == torch.bfloat16
    assert (half.float() - mixed_images(images(32), pairs)).abs().max() < 0.05  # 8 bits, values up to 4
    assert mixed_images(images(0), draw(BOTH, 0, 0, first=0, n=0, side=SIDE)).shape[0] == 0


def test_what_cannot_be() -> None:
    for first, n in ((1, 2), (0, 3)):
        with pytest.raises(UsageError, match="Mixup"):
            draw(BOTH, 0, 0, first=first, n=n, side=SIDE)
    for values in ({"mixup": -1.0}, {"mix_p": 1.5}, {"cutmix_p": -0.1}):
        with pytest.raises(UsageError, match=next(iter(values))):
            load(Mix, values)
