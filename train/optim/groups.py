"""Parameter groups: what is decayed, what learns faster or slower than the trunk, what LARS adapts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from shards.core.errors import UsageError, closest

DecayRule = Literal["open_clip", "all", "ndim"]
NEVER_DECAYED = ("bn", "ln", "bias", "logit_scale")  # open_clip's, matched anywhere in a name
TEMPERATURES = ("logit_scale", "logit_bias")
_BLOCK = re.compile(r"\.resblocks\.(\d+)\.")  # open_clip's transformers, of the image and of the text


@dataclass(frozen=True)
class Grouping:
    """How parameters are divided into groups.

    Attributes:
        lr: base learning rate, which a schedule changes later.
        weight_decay: of what is decayed.
        rule: what is decayed. `open_clip`: two or more dimensions and no bn, ln, bias or logit_scale in the name;
            `ndim`: two or more dimensions (timm); `all`: everything (wise-ft).
        heads: the first part of the names of heads, such as `head.`.
        head_lr: base learning rate of the heads; the trunk's where it is None.
        head_weight_decay: weight decay of the heads; the trunk's where it is None.
        temperature_lr: constant learning rate of logit_scale and logit_bias; scheduled with the trunk's where it is None.
        layer_decay: factor of the learning rate from each layer to the one below; 1 for none.
        layers: layer number of each parameter (`layers_of`), needed where layer_decay is not 1. A parameter without a
            number is part of the topmost layer.
    """

    lr: float
    weight_decay: float
    rule: DecayRule = "open_clip"
    heads: tuple[str, ...] = ()
    head_lr: float | None = None
    head_weight_decay: float | None = None
    temperature_lr: float | None = None
    layer_decay: float = 1.0
    layers: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            UsageError: a rate or a decay below 0, a layer decay outside (0, 1], a layer decay without layers, an unknown
                rule, or heads' rates without heads.
        """
        if self.rule not in get_args(DecayRule):
            known = get_args(DecayRule)
            raise UsageError(f"unknown weight-decay rule {self.rule!r}", ", ".join(known), closest(self.rule, known))
        if self.lr <= 0:
            raise UsageError(f"lr: {self.lr:g}", "more than 0")
        for name in ("weight_decay", "head_lr", "head_weight_decay", "temperature_lr"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name}: {value:g}", "0 or more")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay: {self.layer_decay:g}", "0 < layer_decay <= 1")
        if self.layer_decay != 1 and not self.layers:
            raise UsageError("layer_decay for a model whose layers are not known", "1, or a timm or open_clip model")
        if not self.heads and (self.head_lr is not None or self.head_weight_decay is not None):
            raise UsageError("a learning rate or weight decay of the head, but no head", "only tasks with a head have one")


def make_groups(named: Iterable[tuple[str, nn.Parameter]], grouping: Grouping) -> list[dict[str, Any]]:
    """Return parameter groups for a torch optimiser, in the order in which their first parameter comes.

    Beside `params`, `weight_decay` and `lr`, each group has

    - `name`: what it holds, such as `trunk.decayed`;
    - `lr_scale`: its learning rate over the schedule's, which `set_lr` multiplies by;
    - `lr_fixed`: whether `set_lr` leaves it alone;
    - `adapt`: whether LARS adapts its learning rate; not with fewer than two dimensions, that is biases and norms.

    Args:
        named: a model's or a task's `named_parameters()`; frozen ones are left out.
        grouping: the rules.

    Raises:
        UsageError: nothing to train, or a head's name that no parameter has.
    """
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if not trained:
        raise UsageError("no parameter to train", "at least one that is not frozen")
    for head in grouping.heads:
        if not any(name.startswith(head) for name, _ in trained):
            raise UsageError(f"head {head!r}: no trained parameter has this name")
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in trained:
        options = _options(name, parameter, grouping)
        key = tuple(options.values())
        groups.setdefault(key, options | {"params": []})["params"].append(parameter)
    return list(groups.values())


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group this learning rate times its `lr_scale` (1 by default); a group with `lr_fixed` keeps its own."""
    for group in optimizer.param_groups:
        if not group.get("lr_fixed", False):
            group["lr"] = lr * group.get("lr_scale", 1.0)


def decays(name: str, parameter: torch.Tensor, rule: DecayRule = "open_clip") -> bool:
    """Return whether weight decay applies to a parameter.

    The rules are those of open_clip 3.3's trainer (`open_clip`), of timm's `param_groups_layer_decay` (`ndim`) and of
    wise-ft, which decays everything (`all`).
    """
    if rule == "all":
        return True
    named_otherwise = rule == "ndim" or not any(part in name for part in NEVER_DECAYED)
    return parameter.ndim >= 2 and named_otherwise


def layers_of(model: nn.Module) -> dict[str, int]:
    """Return the layer number of each parameter, from 0 at the input, for layer-wise learning-rate decay.

    timm's models number themselves (`group_matcher`): embedding 0, block k is k + 1, which the last norm shares
    with the last block, then the head.
    open_clip's transformers, of image and text, are numbered likewise by their `resblocks`: embeddings 0, block k is
    k + 1, what follows the blocks is topmost. Towers of different depth end at the same topmost number.

    Raises:
        UsageError: a model of neither kind.
    """
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        matcher: Any = model.group_matcher
        numbers: dict[str, int] = group_parameters(model, matcher(coarse=False), reverse=True)
        return numbers
    names = [name for name, _ in model.named_parameters()]
    depths: dict[str, int] = {}
    for name in names:
        if block := _BLOCK.search(name):
            tower = name[: block.start()]
            depths[tower] = max(depths.get(tower, 0), int(block[1]) + 1)
    if not depths:
        raise UsageError(f"layer_decay for {type(model).__name__}", "a timm model, or a transformer of open_clip")
    return {name: _layer(name, depths) for name in names}


def _layer(name: str, depths: Mapping[str, int]) -> int:
    """Return a parameter's layer in open_clip's towers, the deepest of which has max(depths) blocks."""
    top = max(depths.values()) + 1
    block = _BLOCK.search(name)
    if block:
        return top - depths[name[: block.start()]] + int(block[1])
    is_input = any(part in name for part in ("conv1", "class_embedding", "positional_embedding", "token_embedding", "ln_pre"))
    return 0 if is_input else top


def _options(name: str, parameter: nn.Parameter, grouping: Grouping) -> dict[str, Any]:
    """Return a parameter's group without its list of parameters."""
    is_head = name.startswith(grouping.heads) if grouping.heads else False
    is_temperature = name.rpartition(".")[2] in TEMPERATURES
    decayed = decays(name, parameter, grouping.rule)
    weight_decay = grouping.weight_decay
    if is_head and grouping.head_weight_decay is not None:
        weight_decay = grouping.head_weight_decay
    fixed = is_temperature and grouping.temperature_lr is not None
    part = "head" if is_head else "temperature" if fixed else "trunk"
    lr_scale, layer = _lr_scale(name, is_head, is_temperature, grouping)
    lr = grouping.temperature_lr if fixed else grouping.lr * lr_scale
    return {
        "name": ".".join([part, *layer, "decayed" if decayed else "plain"]),
        "lr": lr,
        "lr_scale": lr_scale,
        "lr_fixed": fixed,
        "weight_decay": weight_decay if decayed else 0.0,
        "adapt": parameter.ndim >= 2,
    }


def _lr_scale(name: str, is_head: bool, is_temperature: bool, grouping: Grouping) -> tuple[float, list[str]]:
    """Return the learning rate over the schedule's, and the layer's name where layers differ."""
    if is_head:
        return (1.0 if grouping.head_lr is None else grouping.head_lr / grouping.lr), []
    if grouping.layer_decay == 1 or not grouping.layers or is_temperature:
        return 1.0, []
    top = max(grouping.layers.values())
    layer = grouping.layers.get(name, top)
    return grouping.layer_decay ** (top - layer), [f"layer{layer}"]
