"""Adapters for a ViT: Houlsby's bottlenecks and LoRA. The trunk stays as it was; little is trained beside the head.

Both begin as the identity, so that the first step sees the pre-trained model. `adapt` is repeatable: a checkpoint's weights
fit a fresh model to which the same adapters were added.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from shards.core.errors import UsageError

Kind = Literal["houlsby", "lora"]
KINDS = ("houlsby", "lora")
WIDTHS = {"houlsby": 64, "lora": 8}  # Houlsby et al. 2019 try 8 to 256; Hu et al. 2022 find a rank of 4 to 8 enough
# The branches' last modules, behind which a block adds its input: open_clip's names and timm's.
_BRANCHES = (("ls_1", "ls_2"), ("ls1", "ls2"))
# A block's matrices: open_clip's MultiheadAttention keeps three in one parameter, as timm's linear layer `qkv` does.
_MATRICES = ("in_proj_weight", "weight")


class Bottleneck(nn.Module):
    """Houlsby's adapter: x + up(GELU(down(x))), of any shape (…, d). Houlsby et al. 2019, §2.1: nearly the identity at the start."""

    def __init__(self, width: int, hidden: int) -> None:
        """Make an adapter that is the identity.

        Args:
            width: d.
            hidden: numbers in the bottleneck.
        """
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (…, d)."""
        return x + self.up(nn.functional.gelu(self.down(x)))


class LowRank(nn.Module):
    """LoRA: W + (α / r)·B·A. Hu et al. 2022, §4.1: A normal, B zero. α is 2r here, as in their code's examples."""

    def __init__(self, shape: torch.Size, rank: int) -> None:
        """Make an update that is zero.

        Args:
            shape: of W, (out, in).
            rank: r.
        """
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, shape[1]))
        self.b = nn.Parameter(torch.zeros(shape[0], rank))
        self.scale = 2.0
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the matrix that is used."""
        return weight + self.scale * (self.b @ self.a)


def adapt(tower: nn.Module, kind: Kind, width: int) -> list[str]:
    """Freeze a tower and add adapters to each of its blocks, in place; return the names of the parameters that train.

    With `houlsby` the blocks' layer norms train, too (Houlsby et al. 2019, §2.1).

    Args:
        tower: what `train.models.towers.build_tower` returns.
        width: the bottleneck of `houlsby`, the rank of `lora`; 0 takes WIDTHS.

    Raises:
        UsageError: the tower is no ViT of open_clip or timm.
    """
    blocks = blocks_of(tower)
    tower.requires_grad_(False)
    size = width or WIDTHS[kind]
    for block in blocks:
        if kind == "houlsby":
            _add_bottlenecks(block, size)
        else:
            _add_low_rank(block, size)
    return [name for name, parameter in tower.named_parameters() if parameter.requires_grad]


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """Return a ViT's transformer blocks, from the first to the last.

    Raises:
        UsageError: there are none that are known.
    """
    visual: Any = getattr(tower, "visual", tower)
    trunk = getattr(visual, "trunk", visual)
    blocks = getattr(getattr(trunk, "transformer", None), "resblocks", None)
    if blocks is None:
        blocks = getattr(trunk, "blocks", None)
    known = [] if blocks is None else [block for block in blocks if _branches(block)]
    if not known or len(known) < len(list(blocks or ())):
        name = getattr(tower, "name", type(trunk).__name__)
        raise UsageError(f"adapters for {name!r}, which has no blocks of a ViT", "open_clip's and timm's ViTs: ViT-B-32, timm/vit_…")
    return known


def merge(tower: nn.Module) -> None:
    """Put LoRA's updates into the matrices, in place: the tower then has its library's names again."""
    for module in list(tower.modules()):
        for name in _MATRICES:
            if parametrize.is_parametrized(module, name):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _branches(block: nn.Module) -> tuple[str, str] | None:
    for names in _BRANCHES:
        if all(hasattr(block, name) for name in names):
            return names
    return None


def _add_bottlenecks(block: nn.Module, hidden: int) -> None:
    names = _branches(block)
    assert names is not None
    norms = [module for module in block.modules() if isinstance(module, nn.LayerNorm)]
    width = norms[0].normalized_shape[0]
    for name in names:
        setattr(block, name, nn.Sequential(getattr(block, name), Bottleneck(width, hidden)))
    for norm in norms:
        norm.requires_grad_(True)


def _add_low_rank(block: nn.Module, rank: int) -> None:
    for module in list(block.modules()):
        if isinstance(module, nn.MultiheadAttention):
            parametrize.register_parametrization(module, "in_proj_weight", LowRank(module.in_proj_weight.shape, rank))
        elif isinstance(module, nn.Linear):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight.shape, rank))
