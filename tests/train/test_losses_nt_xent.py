"""NT-Xent against loops over the paper's equation, SLIP's definition, lightly's figures and a closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from train.losses.nt_xent import nt_xent


def grid(rows: int, columns: int, phase: float) -> torch.Tensor:
    """Return features that need no random generator, so that figures of another package stay valid."""
    values = [[math.sin(0.7 * (i + 1) * (k + 1) + phase) for k in range(columns)] for i in range(rows)]
    return torch.tensor(values, dtype=torch.float64)


def naive(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Chen et al. 2020, equation 1, pair by pair."""
    views = [*first.tolist(), *second.tolist()]
    n = len(first)
    total = 0.0
    for i, view in enumerate(views):
        partner = (i + n) % (2 * n)
        similar = [math.exp(cosine(view, other) / temperature) for k, other in enumerate(views) if k != i]
        total -= math.log(math.exp(cosine(view, views[partner]) / temperature) / sum(similar))
    return total / (2 * n)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slips(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """SLIP's definition: two cross-entropies over 2N logits, a view's similarity with itself lowered by 1e9."""
    a, b = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    lowered = 1e9 * torch.eye(len(a), dtype=a.dtype)
    labels = torch.arange(len(a))
    loss_a = F.cross_entropy(torch.cat([a @ b.T / temperature, a @ a.T / temperature - lowered], 1), labels)
    loss_b = F.cross_entropy(torch.cat([b @ a.T / temperature, b @ b.T / temperature - lowered], 1), labels)
    return (loss_a + loss_b) / 2


@pytest.mark.parametrize(("n", "d", "temperature"), [(1, 3, 0.1), (2, 3, 1.0), (9, 16, 0.1), (16, 4, 0.5)])
def test_equals_a_loop_over_views(n: int, d: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(n)
    first, second = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    assert float(nt_xent(first, second, temperature).mean()) == pytest.approx(naive(first, second, temperature), abs=1e-10)


# lightly 1.6.0: NTXentLoss(temperature)(grid(6, 5, 0.0), grid(6, 5, 0.4)), in float64.
@pytest.mark.parametrize(("temperature", "expected"), [(0.1, 0.012061807014919719), (0.5, 0.8789879263801624)])
def test_equals_lightlys_figure(temperature: float, expected: float) -> None:
    assert float(nt_xent(grid(6, 5, 0.0), grid(6, 5, 0.4), temperature).mean()) == pytest.approx(expected, abs=1e-12)


def test_equals_slips_definition_and_its_gradients() -> None:
    results = []
    for function in (nt_xent, slips):
        first, second = grid(12, 8, 0.0).requires_grad_(), grid(12, 8, 1.3).requires_grad_()
        loss = function(first, second, 0.1).mean()
        loss.backward()
        results.append((loss.detach(), first.grad, second.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_orthogonal_images_have_a_closed_form() -> None:
    n, temperature = 5, 0.1
    views = 3 * torch.eye(n, dtype=torch.float64)
    # The partner has cosine 1, the 2n - 2 other views 0.
    expected = math.log(math.exp(1 / temperature) + 2 * n - 2) - 1 / temperature
    assert float(nt_xent(views, 7 * views, temperature).mean()) == pytest.approx(expected, abs=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    first, second = grid(4, 5, 0.2).requires_grad_(), grid(4, 5, 0.9).requires_grad_()
    assert torch.autograd.gradcheck(nt_xent, (first, second))
