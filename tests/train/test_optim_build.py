"""AdamW, SGD and LARS, built by name, against their formulas in plain loops and against timm's groups."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from train.optim.build import build
from train.optim.groups import Grouping, make_groups, set_lr

RATES = (0.1, 0.3, 0.05)  # changing, so that it matters where the rate enters the momentum


class Two(nn.Module):
    """A matrix, which is decayed and adapted, and a bias, which is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -2.0, 1.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))


def gradients(step: int) -> tuple[list[float], list[float]]:
    return [math.sin(step + 1), 0.4 * step - 1, 2.0], [math.cos(step)]


def trained(name: str, **options: Any) -> Two:
    """Return the model after three steps with known gradients and rates."""
    model = Two()
    groups = make_groups(model.named_parameters(), Grouping(lr=1.0, weight_decay=0.2))
    optimizer = build(name, groups, 1.0, **options)
    for step, rate in enumerate(RATES):
        of_weight, of_bias = gradients(step)
        model.weight.grad = torch.tensor([of_weight], dtype=torch.float64)
        model.bias.grad = torch.tensor(of_bias, dtype=torch.float64)
        set_lr(optimizer, rate)
        optimizer.step()
    return model


def norm(values: list[float]) -> float:
    return math.sqrt(sum(x * x for x in values))


def momentum_steps(start: list[float], which: int, decay: float, trust: float | None, nesterov: bool) -> list[float]:
    """SGD with momentum 0.9 in plain loops; with LARS's trust ratio where there is a trust."""
    p, v = list(start), [0.0] * len(start)
    for step, rate in enumerate(RATES):
        g = gradients(step)[which]
        ratio = 1.0
        if trust is not None:
            ratio = trust * norm(p) / (norm(g) + decay * norm(p) + 1e-8)
        for i in range(len(p)):
            update = ratio * (g[i] + decay * p[i])
            v[i] = 0.9 * v[i] + update
            p[i] -= rate * (update + 0.9 * v[i] if nesterov else v[i])
    return p


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("name", "trust"), [("sgd", None), ("lars", 0.02)])
def test_sgd_and_lars_equal_plain_loops(name: str, trust: float | None, nesterov: bool) -> None:
    model = trained(name, nesterov=nesterov, **({} if trust is None else {"trust": trust}))
    weight = momentum_steps([0.5, -2.0, 1.0], 0, 0.2, trust, nesterov)
    bias = momentum_steps([0.3], 1, 0.0, None, nesterov)
    assert model.weight[0].tolist() == pytest.approx(weight, abs=1e-12)
    assert model.bias.tolist() == pytest.approx(bias, abs=1e-12)


def test_lars_without_weight_decay_still_adapts() -> None:
    model = Two()
    optimizer = build("lars", make_groups(model.named_parameters(), Grouping(lr=1.0, weight_decay=0.0)), 1.0, momentum=0.0)
    model.weight.grad, model.bias.grad = torch.ones_like(model.weight), torch.ones_like(model.bias)
    optimizer.step()
    step = 0.001 * norm([0.5, -2.0, 1.0]) / math.sqrt(3)
    assert model.weight[0].tolist() == pytest.approx([0.5 - step, -2.0 - step, 1.0 - step], abs=1e-9)
    assert model.bias.tolist() == pytest.approx([0.3 - 1.0])


def test_adamw_equals_plain_loops() -> None:
    model = trained("adamw", betas=(0.8, 0.95), eps=1e-3)
    for values, start, which, decay in ((model.weight[0], [0.5, -2.0, 1.0], 0, 0.2), (model.bias, [0.3], 1, 0.0)):
        p, m, v = list(start), [0.0] * len(start), [0.0] * len(start)
        for step, rate in enumerate(RATES):
            for i, g in enumerate(gradients(step)[which]):
                m[i] = 0.8 * m[i] + 0.2 * g
                v[i] = 0.95 * v[i] + 0.05 * g * g
                m_hat, v_hat = m[i] / (1 - 0.8 ** (step + 1)), v[i] / (1 - 0.95 ** (step + 1))
                p[i] = p[i] * (1 - rate * decay) - rate * m_hat / (math.sqrt(v_hat) + 1e-3)
        assert values.tolist() == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_a_state_that_is_saved_goes_on_with_the_same_bits(name: str) -> None:
    def parts() -> tuple[Two, torch.optim.Optimizer]:
        model = Two()
        return model, build(name, make_groups(model.named_parameters(), Grouping(lr=0.1, weight_decay=0.2)), 0.1)

    def take(model: Two, optimizer: torch.optim.Optimizer, step: int) -> None:
        of_weight, of_bias = gradients(step)
        model.weight.grad = torch.tensor([of_weight], dtype=torch.float64)
        model.bias.grad = torch.tensor(of_bias, dtype=torch.float64)
        set_lr(optimizer, RATES[step])
        optimizer.step()

    whole, optimizer = parts()
    take(whole, optimizer, 0)
    resumed, other = parts()
    resumed.load_state_dict(whole.state_dict())
    # torch takes over the tensors of a state that it is given, as after torch.load.
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in (1, 2):
        take(whole, optimizer, step)
        take(resumed, other, step)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_torchs_optimizers_are_fused(name: str) -> None:
    groups = make_groups(Two().named_parameters(), Grouping(lr=1.0, weight_decay=0.2))
    assert all(group["fused"] for group in build(name, groups, 1.0).param_groups)


def test_what_cannot_be_is_refused() -> None:
    groups = make_groups(Two().named_parameters(), Grouping(lr=1.0, weight_decay=0.2, rule="all"))
    with pytest.raises(UsageError, match="LARS with weight decay on biases"):
        build("lars", groups, 1.0)
    with pytest.raises(UsageError) as error:
        build("adam", groups, 1.0)
    assert "adamw, sgd, lars" in str(error.value)
    assert "did you mean 'adamw'?" in str(error.value)
