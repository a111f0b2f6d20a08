"""What is decayed, one AdamW step by hand, and the groups that a training's optimiser has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from shards.core.errors import UsageError
from tests.train import runs
from train.models.load import build_model
from train.optim.build import build
from train.optim.groups import Grouping, decays, make_groups, set_lr


def open_clip_excludes(name: str, parameter: torch.Tensor) -> bool:
    """The rule of open_clip_train 3.3's main, written down a second time."""
    return parameter.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name


def adamw(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    groups = make_groups(model.named_parameters(), Grouping(lr=lr, weight_decay=weight_decay))
    return build("adamw", groups, lr)


@pytest.mark.parametrize("name", ["tiny-vit-32", "tiny-rn-32"])
def test_groups_are_open_clips(name: str) -> None:
    model = build_model(name)
    decay_of = {p: group["weight_decay"] for group in adamw(model, 1e-3, 0.2).param_groups for p in group["params"]}
    for parameter_name, parameter in model.named_parameters():
        assert decay_of[parameter] == (0.0 if open_clip_excludes(parameter_name, parameter) else 0.2), parameter_name
    assert decay_of[model.logit_scale] == 0.0


def test_one_step_is_adamws_formula() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -2.0]]))
        model.bias.fill_(1.0)
    model.weight.grad, model.bias.grad = torch.tensor([[0.1, -3.0]]), torch.tensor([4.0])
    optimizer = adamw(model, 9.0, 0.1)
    set_lr(optimizer, 0.01)
    optimizer.step()
    # The first step's moments cancel their bias correction: it moves by lr times the gradient's sign.
    expected = [[0.5 * (1 - 0.01 * 0.1) - 0.01, -2.0 * (1 - 0.01 * 0.1) + 0.01]]
    torch.testing.assert_close(model.weight.detach(), torch.tensor(expected))
    torch.testing.assert_close(model.bias.detach(), torch.tensor([1.0 - 0.01]))


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    (group,) = adamw(model, 1.0, 1.0).param_groups
    assert [parameter is model.bias for parameter in group["params"]] == [True]
    assert decays("x.weight", model.weight)


def groups_of(make_shards: Callable[..., str], task: str, **options: Any) -> dict[str, dict[str, Any]]:
    """Return the options of each parameter's group in a training's optimiser."""
    made, _ = runs.built(task, make_shards(20, classes=True), **options)
    names = {p: name for name, p in made.trained.named_parameters()}
    grouped = {names[p]: group for group in made.optimizer.param_groups for p in group["params"]}
    assert grouped.keys() == {name for name, p in made.trained.named_parameters() if p.requires_grad}
    return grouped


@pytest.mark.parametrize(("task", "model"), [("clip", "tiny-vit-32"), ("slip", "tiny-rn-32")])
def test_a_trainings_optimiser_has_open_clips_groups(task: str, model: str, make_shards: Callable[..., str]) -> None:
    grouped = groups_of(make_shards, task, model=model, weight_decay=0.2, lr=3e-3, beta1=0.8, beta2=0.95, eps=1e-7)
    made, _ = runs.built(task, make_shards(20), model=model)
    for name, parameter in made.trained.named_parameters():
        assert grouped[name]["weight_decay"] == (0.0 if open_clip_excludes(name, parameter) else 0.2), name
        assert (grouped[name]["lr"], grouped[name]["betas"], grouped[name]["eps"]) == (3e-3, (0.8, 0.95), 1e-7)


def test_heads_learn_at_their_own_rate(make_shards: Callable[..., str]) -> None:
    grouped = groups_of(make_shards, "supervised", model="tiny-vit-32", lr=1e-3, head_lr=5e-3, head_weight_decay=0.0, weight_decay=0.2)
    for name, group in grouped.items():
        is_head = name.startswith("heads.")
        assert group["lr"] == pytest.approx(5e-3 if is_head else 1e-3)
        if is_head or name == "model.visual.conv1.weight":
            assert group["weight_decay"] == (0.0 if is_head else 0.2)


def test_lower_layers_learn_slower(make_shards: Callable[..., str]) -> None:
    """tiny-vit-32 has 4 blocks, so that the embedding is 5 layers below the top."""
    grouped = groups_of(make_shards, "supervised", model="tiny-vit-32", lr=1.0, layer_decay=0.5)
    assert grouped["model.visual.conv1.weight"]["lr"] == pytest.approx(0.5**5)
    for block in range(4):
        assert grouped[f"model.visual.transformer.resblocks.{block}.mlp.c_fc.weight"]["lr"] == pytest.approx(0.5 ** (4 - block))
    assert grouped["heads.classifier.weight"]["lr"] == 1.0


def test_what_is_frozen_is_not_trained(make_shards: Callable[..., str]) -> None:
    grouped = groups_of(make_shards, "byol", model="tiny-vit-32", frozen_patch_embed=True, sincos=True)
    assert not any("conv1" in name or "positional_embedding" in name or "teacher" in name for name in grouped)
    with pytest.raises(UsageError, match="no head"):
        groups_of(make_shards, "clip", model="tiny-vit-32", head_lr=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_other_optimisers_train_too(optimizer: str, make_shards: Callable[..., str]) -> None:
    grouped = groups_of(make_shards, "simclr", optimizer=optimizer, momentum=0.8, model="tiny-vit-32")
    assert {group["momentum"] for group in grouped.values()} == {0.8}
