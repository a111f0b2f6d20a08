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
# open_clip's transformers, of the image and of the text: their blocks, and what stands before the first one
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")
INPUTS = ("conv1", "class_embedding", "positional_embedding", "token_embedding", "cls_emb", "ln_pre")


@dataclass(frozen=True)
class Layers:
    """Layers of a model, numbered from 0 at the input.

    Attributes:
        numbers: the layer of each parameter.
        top: the layer of what follows the towers, such as a classifier, whether or not the model has parameters there.
    """

    numbers: Mapping[str, int]
    top: int


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
        layers: layer of each parameter (`layers_of`), needed where layer_decay is not 1. A parameter without a number is
            part of the topmost layer.
    """

    lr: float
    weight_decay: float
    rule: DecayRule = "open_clip"
    heads: tuple[str, ...] = ()
    head_lr: float | None = None
    head_weight_decay: float | None = None
    temperature_lr: float | None = None
    layer_decay: float = 1.0
    layers: Layers | None = None

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
        if self.layer_decay != 1 and self.layers is None:
            raise UsageError("layer_decay for a model whose layers are not known", "layer_decay 1, or the layers of `layers_of`")
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


def layers_of(model: nn.Module, prefix: str = "") -> Layers:
    """Return the layer of each parameter, for layer-wise learning-rate decay.

    timm's models number themselves (`group_matcher`, as timm's `param_groups_layer_decay` reads it): embedding 0, block k is
    k + 1, which the last norm shares with the last block, then the head. open_clip's transformers, of image and text, are
    numbered likewise by their `resblocks`: embeddings 0, block k is k + 1, what follows the blocks is topmost. Each tower is
    numbered by itself; towers of different depth end at the same topmost number.

    Args:
        model: a timm model, or a model whose image tower is `visual`: a CLIP, a `Tower`.
        prefix: put before each name.

    Raises:
        UsageError: the image tower has no numbered blocks.
    """
    if hasattr(model, "group_matcher"):
        towers = [_timm_layers(model, "")]
    else:
        texts = [name for name, _ in model.named_parameters() if not name.startswith("visual.")]
        towers = [*_visual_layers(model), _resblock_layers(texts, "text." if hasattr(model, "text") else "")]
    top = max(tower.top for tower in towers)
    numbers = {prefix + name: number + top - tower.top for tower in towers for name, number in tower.numbers.items()}
    return Layers(numbers, top)


def _visual_layers(model: nn.Module) -> list[Layers]:
    """Return the layers of an image tower; a projection behind timm's trunk is topmost.

    Raises:
        UsageError: it has no numbered blocks.
    """
    visual: Any = getattr(model, "visual", None)
    trunk = getattr(visual, "trunk", None)
    if hasattr(trunk, "group_matcher"):
        layers = _timm_layers(trunk, "visual.trunk.")
        head = {f"visual.{name}": layers.top for name, _ in visual.named_parameters() if not name.startswith("trunk.")}
        return [layers, Layers(head, layers.top)]
    names = [] if visual is None else [f"visual.{name}" for name, _ in visual.named_parameters()]
    layers = _resblock_layers(names, "visual.")
    if layers.top == 1:
        kind = type(visual if trunk is None else trunk).__name__ if visual is not None else type(model).__name__
        raise UsageError(f"layer_decay for {kind}, whose blocks have no numbers", "open_clip's ViTs (ViT-B-32, …), timm/NAME")
    return [layers]


def _timm_layers(trunk: Any, prefix: str) -> Layers:
    """Return the layers of a timm model; the topmost is that of its classifier, which the model may have lost.

    Raises:
        UsageError: timm puts all of it into one layer.
    """
    from timm.models._manipulate import group_with_matcher

    classifier = (getattr(trunk, "pretrained_cfg", None) or {}).get("classifier") or "head"
    last = f"{classifier if isinstance(classifier, str) else classifier[0]}.weight"
    named = dict(trunk.named_parameters())
    numbers: dict[str, int] = group_with_matcher(iter({**named, last: None}.items()), trunk.group_matcher(coarse=False), reverse=True)
    top = max(numbers.values())
    if top == 0:
        raise UsageError(f"layer_decay for {type(trunk).__name__}, which timm takes for one layer", "timm's models of several layers")
    return Layers({prefix + name: numbers[name] for name in named}, top)


def _resblock_layers(names: Iterable[str], prefix: str) -> Layers:
    """Return the layers of an open_clip transformer by the names of its parameters; topmost is 1 if it has no blocks."""
    numbers, after = {}, []
    for name in names:
        inner = name.removeprefix(prefix)
        if block := _BLOCK.match(inner):
            numbers[name] = int(block[1]) + 1
        elif inner.partition(".")[0] in INPUTS:
            numbers[name] = 0
        else:
            after.append(name)
    top = max(numbers.values(), default=0) + 1
    return Layers(numbers | dict.fromkeys(after, top), top)


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
    if grouping.layer_decay == 1 or grouping.layers is None or is_temperature:
        return 1.0, []
    top = grouping.layers.top
    layer = grouping.layers.numbers.get(name, top)
    return grouping.layer_decay ** (top - layer), [f"layer{layer}"]
