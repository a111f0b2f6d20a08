"""Heads on a tower's features: the projections of SimCLR, SLIP, BYOL and MoCo-v3, and a linear classifier.

None of them is part of the model that is evaluated: transfer uses the tower's features. First weights follow torch's generator.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

HIDDEN, OUT = 4096, 256


def projection_mlp(width: int, hidden: int = HIDDEN, out: int = OUT) -> nn.Sequential:
    """Return SLIP's projection for SimCLR, (n, width) to (n, out): three linear layers with biases, BatchNorm and ReLU between them.

    Mu et al. 2022, `_build_mlp` of their models.py, whose names the layers have (`layer1`, `bn1`, …). There is no BatchNorm
    behind the last layer. The BatchNorms become synchronised, or grouped, by `train.models.norm`.
    """
    return nn.Sequential(
        OrderedDict(
            layer1=nn.Linear(width, hidden),
            bn1=nn.BatchNorm1d(hidden),
            relu1=nn.ReLU(inplace=True),
            layer2=nn.Linear(hidden, hidden),
            bn2=nn.BatchNorm1d(hidden),
            relu2=nn.ReLU(inplace=True),
            layer3=nn.Linear(hidden, out),
        )
    )


def byol_mlp(width: int, hidden: int = HIDDEN, out: int = OUT) -> nn.Sequential:
    """Return BYOL's projector or predictor, (n, width) to (n, out): linear, BatchNorm, ReLU, linear.

    Grill et al. 2020, §3.3. The paper says nothing about biases; as in its code the first layer has one, the last has none.
    The predictor is the same network with `width` = `out`.
    """
    return nn.Sequential(
        OrderedDict(
            layer1=nn.Linear(width, hidden),
            bn1=nn.BatchNorm1d(hidden),
            relu1=nn.ReLU(inplace=True),
            layer2=nn.Linear(hidden, out, bias=False),
        )
    )


def moco_v3_mlp(width: int, hidden: int = HIDDEN, out: int = OUT, layers: int = 3, last_bn: bool = True) -> nn.Sequential:
    """Return MoCo-v3's MLP, (n, width) to (n, out): linear layers without biases, BatchNorm and ReLU between them.

    Chen et al. 2021, `_build_mlp` of their builder.py: a ViT has 3 layers as projector and 2 as predictor, a ResNet 2 and 2.

    Args:
        last_bn: end with a BatchNorm without gain and bias (theirs always does, except a ResNet's predictor).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, layers + 1):
        is_last = number == layers
        inputs = width if number == 1 else hidden
        outputs = out if is_last else hidden
        parts[f"layer{number}"] = nn.Linear(inputs, outputs, bias=False)
        if not is_last:
            parts[f"bn{number}"] = nn.BatchNorm1d(outputs)
            parts[f"relu{number}"] = nn.ReLU(inplace=True)
        elif last_bn:
            parts[f"bn{number}"] = nn.BatchNorm1d(outputs, affine=False)
    return nn.Sequential(parts)


def linear_classifier(width: int, classes: int, init: Literal["zero", "normal"] = "zero", std: float = 0.01) -> nn.Linear:
    """Return a linear layer, (n, width) to (n, classes), its bias 0.

    Args:
        init: first weights 0, or normal with deviation `std` (0.01, as in SLIP's and MoCo-v3's linear probes).
    """
    layer = nn.Linear(width, classes)
    if init == "zero":
        nn.init.zeros_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
