"""Heads are their papers' networks: layer by layer, and by what they compute in plain tensor arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.models.heads import byol_mlp, linear_classifier, moco_v3_mlp, projection_mlp


def layers(head: nn.Module) -> list[tuple[object, ...]]:
    """Return each layer as (kind, width in, width out, bias), or what else defines it."""
    rows: list[tuple[object, ...]] = []
    for part in head.children():
        if isinstance(part, nn.Linear):
            rows.append(("linear", part.in_features, part.out_features, part.bias is not None))
        elif isinstance(part, nn.BatchNorm1d):
            rows.append(("bn", part.num_features, part.affine))
        else:
            rows.append((type(part).__name__,))
    return rows


def test_the_default_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        heads = projection_mlp(1024), byol_mlp(2048), byol_mlp(256), moco_v3_mlp(384), moco_v3_mlp(256, layers=2, last_bn=False)
    bn, relu = ("bn", 4096, True), ("ReLU",)
    assert layers(heads[0]) == [
        ("linear", 1024, 4096, True), bn, relu, ("linear", 4096, 4096, True), bn, relu, ("linear", 4096, 256, True),
    ]  # fmt: skip
    assert layers(heads[1]) == [("linear", 2048, 4096, True), bn, relu, ("linear", 4096, 256, False)]
    assert layers(heads[2]) == [("linear", 256, 4096, True), bn, relu, ("linear", 4096, 256, False)]
    assert layers(heads[3]) == [
        ("linear", 384, 4096, False), bn, relu, ("linear", 4096, 4096, False), bn, relu, ("linear", 4096, 256, False), ("bn", 256, False),
    ]  # fmt: skip
    assert layers(heads[4]) == [("linear", 256, 4096, False), bn, relu, ("linear", 4096, 256, False)]


def naive_norm(x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(0)
    return (x - mean) / ((x - mean).square().mean(0) + 1e-5).sqrt()


@pytest.mark.parametrize("last_bn", [True, False])
def test_outputs_equal_plain_arithmetic(last_bn: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 5, dtype=torch.float64)
    head = projection_mlp(5, 7, 3).double()
    hidden = (naive_norm(x @ head.layer1.weight.T + head.layer1.bias)).relu()
    hidden = (naive_norm(hidden @ head.layer2.weight.T + head.layer2.bias)).relu()
    torch.testing.assert_close(head(x), hidden @ head.layer3.weight.T + head.layer3.bias, rtol=1e-10, atol=1e-12)

    moco = moco_v3_mlp(5, 7, 3, layers=2, last_bn=last_bn).double()
    out = naive_norm(x @ moco.layer1.weight.T).relu() @ moco.layer2.weight.T
    torch.testing.assert_close(moco(x), naive_norm(out) if last_bn else out, rtol=1e-10, atol=1e-12)


def test_names_are_slips() -> None:
    names = set(projection_mlp(4, 4, 4).state_dict())
    assert {"layer1.weight", "bn1.running_mean", "layer2.bias", "bn2.weight", "layer3.bias"} <= names


def test_a_classifier_starts_at_zero_or_at_a_small_normal() -> None:
    assert linear_classifier(8, 3).weight.abs().sum() == 0
    torch.manual_seed(0)
    layer = linear_classifier(1000, 100, "normal")
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.01)  # 100,000 draws: the deviation's own error is 0.2 %
    assert layer.bias.abs().sum() == 0
