"""BYOL's loss against a loop, lightly's figure and its bounds."""

from __future__ import annotations

import math

import pytest
import torch

from train.losses.byol import byol_loss


def grid(rows: int, columns: int, phase: float) -> torch.Tensor:
    """Return features that need no random generator, so that figures of another package stay valid."""
    values = [[math.sin(0.7 * (i + 1) * (k + 1) + phase) for k in range(columns)] for i in range(rows)]
    return torch.tensor(values, dtype=torch.float64)


FOUR = (0.0, 0.4, 1.1, 2.0)  # phases of the two predictions and the two targets


def naive(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """Grill et al. 2020, equation 2: the squared distance of normalised vectors."""
    total = 0.0
    for p, t in zip(prediction.tolist(), target.tolist(), strict=True):
        p_norm, t_norm = math.hypot(*p), math.hypot(*t)
        total += sum((x / p_norm - y / t_norm) ** 2 for x, y in zip(p, t, strict=True))
    return total / len(prediction)


def test_equals_a_loop_over_both_directions() -> None:
    p1, p2, t1, t2 = (grid(6, 5, phase) for phase in FOUR)
    assert float(byol_loss(p1, p2, t1, t2).mean()) == pytest.approx(naive(p1, t2) + naive(p2, t1), abs=1e-12)


def test_equals_lightlys_figure() -> None:
    # lightly 1.6.0: (c(p1, t2) + c(p2, t1))/2 with c = NegativeCosineSimilarity(), in float64.
    lightlys = -0.15779983955136936
    assert float(byol_loss(*(grid(6, 5, phase) for phase in FOUR)).mean()) / 4 - 1 == pytest.approx(lightlys, abs=1e-12)


def test_equal_directions_cost_0_and_opposite_ones_8() -> None:
    p1, p2 = grid(3, 4, 0.0), grid(3, 4, 0.5)
    assert float(byol_loss(p1, p2, 2 * p2, 5 * p1).mean()) == pytest.approx(0, abs=1e-12)
    assert float(byol_loss(p1, p2, -p2, -p1).mean()) == pytest.approx(8, abs=1e-12)


def test_only_predictions_have_gradients() -> None:
    p1, p2, t1, t2 = (grid(4, 5, phase).requires_grad_() for phase in FOUR)
    byol_loss(p1, p2, t1, t2).mean().backward()
    assert (t1.grad, t2.grad) == (None, None)
    assert torch.autograd.gradcheck(lambda a, b: byol_loss(a, b, t1, t2), (p1, p2))
