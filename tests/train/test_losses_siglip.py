"""SigLIP's loss against a loop over pairs, open_clip's own, a closed form and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from train.losses.siglip import siglip_loss


def features(n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2))
    return images, texts


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def naive(images: torch.Tensor, texts: torch.Tensor, scale: float, bias: float) -> float:
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            logit = scale * float(image @ text) + bias
            total += math.log(1 + math.exp(-logit if i == j else logit))
    return total / len(images)


@pytest.mark.parametrize(("n", "d", "scale", "bias"), [(1, 4, 10.0, -10.0), (2, 3, 1.0, 0.5), (7, 16, 10.0, -10.0), (16, 8, 100.0, -8.0)])
def test_equals_a_loop_over_pairs(n: int, d: int, scale: float, bias: float) -> None:
    images, texts = features(n, d, seed=n)
    ours = float(siglip_loss(images, texts, scalar(scale), scalar(bias)).mean())
    assert ours == pytest.approx(naive(images, texts, scale, bias), abs=1e-9)


def test_at_scale_0_every_pair_costs_the_same() -> None:
    images, texts = features(6, 4, seed=0)
    at_half = float(siglip_loss(images, texts, scalar(0.0), scalar(0.0)).mean())
    assert at_half == pytest.approx(6 * math.log(2), abs=1e-12)
    # At bias b a right pair costs log(1 + e^-b), and each of the 5 others log(1 + e^b).
    at_minus_two = float(siglip_loss(images, texts, scalar(0.0), scalar(-2.0)).mean())
    assert at_minus_two == pytest.approx(math.log1p(math.exp(2)) + 5 * math.log1p(math.exp(-2)), abs=1e-12)


def test_equals_open_clips_loss_and_gradients() -> None:
    from open_clip.loss import SigLipLoss

    results = []
    for function in (siglip_loss, SigLipLoss()):
        images, texts = (x.requires_grad_() for x in features(24, 32, seed=9))
        scale, bias = scalar(12.0).requires_grad_(), scalar(-9.0).requires_grad_()
        loss = function(images, texts, scale, bias).mean()
        loss.backward()
        results.append((loss.detach(), images.grad, texts.grad, scale.grad, bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    images, texts = features(5, 6, seed=3)
    scale, bias = scalar(7.0).requires_grad_(), scalar(-3.0).requires_grad_()
    assert torch.autograd.gradcheck(siglip_loss, (images.requires_grad_(), texts.requires_grad_(), scale, bias))
