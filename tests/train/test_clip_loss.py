"""CLIP's loss against a loop over pairs, open_clip's own, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from train.losses.clip import clip_loss


def features(n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2))
    return images, texts


def naive(images: torch.Tensor, texts: torch.Tensor, scale: float) -> float:
    """-log of the softmax of the right pair, over texts for every image and over images for every text."""
    n = len(images)
    similarity = [[scale * float(images[i] @ texts[j]) for j in range(n)] for i in range(n)]
    rows = sum(math.log(sum(math.exp(similarity[i][j]) for j in range(n))) - similarity[i][i] for i in range(n))
    columns = sum(math.log(sum(math.exp(similarity[i][j]) for i in range(n))) - similarity[j][j] for j in range(n))
    return (rows + columns) / (2 * n)


@pytest.mark.parametrize(("n", "d", "scale"), [(1, 4, 10.0), (2, 3, 1.0), (7, 16, 14.3), (32, 8, 100.0)])
def test_equals_a_loop_over_pairs(n: int, d: int, scale: float) -> None:
    images, texts = features(n, d, seed=n)
    assert float(clip_loss(images, texts, torch.tensor(scale, dtype=torch.float64)).mean()) == pytest.approx(
        naive(images, texts, scale), abs=1e-9
    )


def test_equal_features_cost_log_n() -> None:
    same = F.normalize(torch.ones(8, 5), dim=-1)
    assert float(clip_loss(same, same, torch.tensor(50.0)).mean()) == pytest.approx(math.log(8), abs=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    images, texts = features(5, 6, seed=3)
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    inputs = (images.requires_grad_(), texts.requires_grad_(), scale)
    assert torch.autograd.gradcheck(clip_loss, inputs)


def test_equals_open_clips_loss_and_gradients() -> None:
    from open_clip.loss import ClipLoss

    results = []
    for function in (clip_loss, ClipLoss()):
        images, texts = (x.requires_grad_() for x in features(24, 32, seed=9))
        loss = function(images, texts, torch.tensor(1 / 0.07, dtype=torch.float64)).mean()
        loss.backward()
        results.append((loss.detach(), images.grad, texts.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
