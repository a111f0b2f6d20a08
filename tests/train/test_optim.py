"""What is decayed, and one AdamW step by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.model import build_model
from train.optim import adamw, decays, set_lr


def open_clip_excludes(name: str, parameter: torch.Tensor) -> bool:
    """The rule of open_clip_train 3.3's main, written down a second time."""
    return parameter.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name


@pytest.mark.parametrize("name", ["tiny-vit-32", "tiny-rn-32"])
def test_groups_are_open_clips(name: str) -> None:
    model = build_model(name)
    optimizer = adamw(model, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    plain, decayed = optimizer.param_groups
    names = {p: n for n, p in model.named_parameters()}
    assert {names[p] for p in plain["params"]} == {n for n, p in model.named_parameters() if open_clip_excludes(n, p)}
    assert {names[p] for p in decayed["params"]} == {n for n, p in model.named_parameters() if not open_clip_excludes(n, p)}
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.2)
    assert "logit_scale" in {names[p] for p in plain["params"]}


def test_one_step_is_adamws_formula() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -2.0]]))
        model.bias.fill_(1.0)
    model.weight.grad, model.bias.grad = torch.tensor([[0.1, -3.0]]), torch.tensor([4.0])
    optimizer = adamw(model, lr=9.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    set_lr(optimizer, 0.01)
    optimizer.step()
    # The first step's moments cancel their bias correction: it moves by lr times the gradient's sign.
    expected = [[0.5 * (1 - 0.01 * 0.1) - 0.01, -2.0 * (1 - 0.01 * 0.1) + 0.01]]
    torch.testing.assert_close(model.weight.detach(), torch.tensor(expected))
    torch.testing.assert_close(model.bias.detach(), torch.tensor([1.0 - 0.01]))


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    optimizer = adamw(model, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=1.0)
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 0]
    assert decays("x.weight", model.weight)
