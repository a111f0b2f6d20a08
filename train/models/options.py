"""What may be changed on an image tower without changing the names of its weights, whichever library it comes from.

MoCo-v3 (Chen et al. 2021): a patch projection that is not trained, fixed 2-D sin-cos positions. AugReg (Steiner et al. 2021):
dropout and stochastic depth. FLIP (Li et al. 2022): patches dropped in training. An option that a tower has no place for is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shards.core.config import option
from shards.core.errors import UsageError

PATCHED = "ViT and Swin towers: ViT-B-32, timm/vit_…, timm/swin_…, torchvision/vit_…, torchvision/swin_…"
POSITIONED = "ViT towers: ViT-B-32, timm/vit_…, torchvision/vit_…"
DROPPING = "ViT and Swin towers without layer scale: ViT-B-32, timm/vit_…, timm/swin_…, torchvision/vit_…, torchvision/swin_…"
DEEP = "ViT-B-32 and others of open_clip's ViTs; timm's ViT, Swin, ConvNeXt, ResNet; torchvision's Swin, ConvNeXt, EfficientNet"
PATCH_DROPPING = "open_clip's and timm's ViTs: ViT-B-32, timm/vit_…"
# AugReg drops activations behind dense layers and positions; attention weights and the classifier's input are other options of timm.
NOT_AUGREG = ("attn_drop", "head_drop")


@dataclass(frozen=True)
class TowerOptions:
    """Changes to an image tower. None leaves what the library does by default (torchvision's `swin_t` has stochastic depth 0.2)."""

    frozen_patch_embed: bool = option(False, "do not train the patch projection (MoCo-v3)")
    sincos: bool = option(False, "fixed 2-D sin-cos positions (MoCo-v3)")
    drop_rate: float | None = option(None, "dropout behind dense layers and positions (AugReg)")
    drop_path: float | None = option(None, "stochastic depth of the last block; it rises linearly from 0 at the first")
    patch_dropout: float | None = option(None, "share of the patches dropped in training (FLIP)")


def apply_options(visual: nn.Module, options: TowerOptions, name: str) -> None:
    """Change an image tower in place.

    Args:
        visual: open_clip's `visual`, or a module with `trunk` of timm or torchvision.
        name: the tower's name, for errors.

    Raises:
        UsageError: the tower has no place for an option, or a rate is not in [0, 1).
    """
    for field in ("drop_rate", "drop_path", "patch_dropout"):
        rate = getattr(options, field)
        if rate is not None and not 0 <= rate < 1:
            raise UsageError(f"{field}: {rate}", "0 ≤ rate < 1")
    if options.frozen_patch_embed:
        _freeze_patches(visual, name)
    if options.sincos:
        _fix_positions(visual, name)
    if options.patch_dropout is not None:
        _drop_patches(visual, options.patch_dropout, name)
    if options.drop_rate is not None:
        _drop_activations(visual, options.drop_rate, name)
    if options.drop_path is not None:
        _drop_blocks(visual, options.drop_path, name)


@dataclass(frozen=True)
class Positions:
    """A ViT's positional embedding: (prefix + h·w, d), or (1, prefix + h·w, d); the patches row by row."""

    name: str
    table: nn.Parameter
    grid: tuple[int, int]
    prefix: int


def positions_of(visual: nn.Module) -> Positions | None:
    """Return the learned absolute positions of an image tower; None where it has none.

    open_clip's ResNets have them in their attention pooling.
    """
    kind, trunk = _kind(visual), _trunk(visual)
    if kind == "open_clip.VisionTransformer":
        return Positions("positional_embedding", trunk.positional_embedding, tuple(trunk.grid_size), 1)
    if kind == "open_clip.ModifiedResNet":
        side = trunk.image_size // 32
        return Positions("attnpool.positional_embedding", trunk.attnpool.positional_embedding, (side, side), 1)
    if kind == "timm.VisionTransformer" and trunk.pos_embed is not None:
        prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
        return Positions("trunk.pos_embed", trunk.pos_embed, tuple(trunk.patch_embed.grid_size), prefix)
    if kind == "torchvision.VisionTransformer":
        side = trunk.image_size // trunk.patch_size
        return Positions("trunk.encoder.pos_embedding", trunk.encoder.pos_embedding, (side, side), 1)
    return None


def sincos_table(grid: tuple[int, int], width: int, prefix: int) -> torch.Tensor:
    """Return MoCo-v3's fixed positions, (prefix + h·w, width); those of prefix tokens are 0.

    For the patch in row r and column c: sin(r·ω), cos(r·ω), sin(c·ω), cos(c·ω) with ω_k = 10000^(−k/(width/4)), a quarter of the
    width each (moco-v3, `build_2d_sincos_position_embedding`; timm's function computes it).

    Raises:
        UsageError: the width is not a multiple of 4.
    """
    from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed

    if width % 4:
        raise UsageError(f"sin-cos positions for a width of {width}", "widths that are multiples of 4")
    patches = build_sincos2d_pos_embed(list(grid), width, interleave_sin_cos=True)
    return torch.cat([torch.zeros(prefix, width), patches])


def _trunk(visual: nn.Module) -> Any:
    return getattr(visual, "trunk", visual)


def _kind(visual: nn.Module) -> str:
    """Return the library and the class of a tower, such as `timm.VisionTransformer`; subclasses count as their base."""
    trunk = _trunk(visual)
    for cls in type(trunk).__mro__:
        library = cls.__module__.partition(".")[0]
        if cls.__name__ in ("VisionTransformer", "ModifiedResNet") and library in ("open_clip", "timm", "torchvision"):
            return f"{library}.{cls.__name__}"
    return f"{type(trunk).__module__.partition('.')[0]}.{type(trunk).__name__}"


def _freeze_patches(visual: nn.Module, name: str) -> None:
    trunk = _trunk(visual)
    projection: Any = None
    if _kind(visual) == "open_clip.VisionTransformer":
        projection = trunk.conv1
    elif hasattr(trunk, "patch_embed"):
        projection = getattr(trunk.patch_embed, "proj", None)
    elif _kind(visual) == "torchvision.VisionTransformer":
        projection = trunk.conv_proj
    elif _kind(visual) == "torchvision.SwinTransformer":
        projection = trunk.features[0][0]
    if not isinstance(projection, nn.Conv2d):
        raise UsageError(f"frozen_patch_embed: {name!r} has no patch projection", PATCHED)
    projection.requires_grad_(False)


def _fix_positions(visual: nn.Module, name: str) -> None:
    positions = positions_of(visual)
    if positions is None or positions.name.startswith("attnpool"):
        raise UsageError(f"sincos: {name!r} has no learned positions to replace", POSITIONED)
    table = sincos_table(positions.grid, positions.table.shape[-1], positions.prefix)
    with torch.no_grad():
        positions.table.copy_(table.reshape(positions.table.shape))
    positions.table.requires_grad_(False)


def _drop_patches(visual: nn.Module, rate: float, name: str) -> None:
    from timm.layers.patch_dropout import PatchDropout

    # timm's module draws on the images' device; open_clip's draws on the CPU and waits for a GPU at every step.
    kind, trunk = _kind(visual), _trunk(visual)
    if kind == "open_clip.VisionTransformer":
        trunk.patch_dropout = PatchDropout(rate, num_prefix_tokens=1)
    elif kind == "timm.VisionTransformer":
        trunk.patch_drop = PatchDropout(rate, num_prefix_tokens=trunk.num_prefix_tokens)
    else:
        raise UsageError(f"patch_dropout: {name!r} has no patches to leave out", PATCH_DROPPING)


def _drop_activations(visual: nn.Module, rate: float, name: str) -> None:
    trunk = _trunk(visual)
    if _kind(visual) == "open_clip.VisionTransformer":
        _drop_in_open_clip(trunk, rate, name)
        return
    chosen = list(_dropouts(trunk))
    if not chosen:
        raise UsageError(f"drop_rate: {name!r} has no dropout layers", DROPPING)
    for part in chosen:
        part.p = rate
    for part in trunk.modules():
        if type(part).__name__ == "ShiftedWindowAttention":  # torchvision's Swin keeps the rate behind its attention as a number
            part.dropout = rate


def _dropouts(trunk: nn.Module) -> Iterator[nn.Dropout]:
    for path, part in trunk.named_modules():
        names = path.split(".")
        if isinstance(part, nn.Dropout) and names[-1] not in NOT_AUGREG and not names[0].startswith(("head", "classifier")):
            yield part


def _drop_in_open_clip(trunk: Any, rate: float, name: str) -> None:
    """Put dropout behind attention, GELU, MLP and positions of open_clip's ViT, which has none, in places without weights."""
    blocks = _plain_blocks(trunk, "drop_rate", name)
    for block in blocks:
        block.ls_1 = nn.Sequential(nn.Dropout(rate), block.ls_1)
        block.ls_2 = nn.Sequential(nn.Dropout(rate), block.ls_2)
        block.mlp.gelu = nn.Sequential(block.mlp.gelu, nn.Dropout(rate))
    trunk.patch_dropout = nn.Sequential(nn.Dropout(rate), trunk.patch_dropout)  # the first module behind the positions


def _plain_blocks(trunk: Any, field: str, name: str) -> list[Any]:
    """Return the blocks of open_clip's ViT; where they scale their branches, those places hold weights whose names must stay."""
    blocks = list(trunk.transformer.resblocks)
    if any(next(block.ls_1.parameters(), None) is not None for block in blocks):
        raise UsageError(f"{field}: {name!r} has layer scale", DROPPING)
    return blocks


def _drop_blocks(visual: nn.Module, rate: float, name: str) -> None:
    """Give block i of n stochastic depth rate·i/(n − 1) (Huang et al. 2016, as timm and torchvision's Swin space it)."""
    trunk = _trunk(visual)
    if _kind(visual) == "open_clip.VisionTransformer":
        _drop_open_clip_blocks(trunk, rate, name)
        return
    if _drop_torchvision_blocks(trunk, rate) or _drop_timm_blocks(trunk, rate):
        return
    raise UsageError(f"drop_path: {name!r} has no blocks to leave out", DEEP)


def _rates(rate: float, blocks: int) -> list[float]:
    return [rate * i / max(1, blocks - 1) for i in range(blocks)]


def _drop_open_clip_blocks(trunk: Any, rate: float, name: str) -> None:
    from timm.layers.drop import DropPath

    blocks = _plain_blocks(trunk, "drop_path", name)
    for block, p in zip(blocks, _rates(rate, len(blocks)), strict=True):
        block.ls_1 = nn.Sequential(block.ls_1, DropPath(p))
        block.ls_2 = nn.Sequential(block.ls_2, DropPath(p))


def _drop_torchvision_blocks(trunk: nn.Module, rate: float) -> bool:
    """Set the rates of torchvision's blocks; return whether there are any."""
    from torchvision.ops import StochasticDepth

    blocks = [part for part in trunk.modules() if isinstance(part, StochasticDepth)]
    for block, p in zip(blocks, _rates(rate, len(blocks)), strict=True):
        block.p = p
    return bool(blocks)


def _drop_timm_blocks(trunk: nn.Module, rate: float) -> bool:
    """Put stochastic depth where timm's blocks have a place for it; return whether any has."""
    from timm.layers.drop import DropPath

    places = ("drop_path", "drop_path1", "drop_path2")
    blocks = [part for part in trunk.modules() if not isinstance(part, DropPath) and any(hasattr(part, place) for place in places)]
    for block, p in zip(blocks, _rates(rate, len(blocks)), strict=True):
        for place in places:
            if hasattr(block, place):
                setattr(block, place, DropPath(p) if p > 0 else nn.Identity())
    return bool(blocks)
