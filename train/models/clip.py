"""CLIP by name: open_clip's models as they are, and timm's and torchvision's image towers beside open_clip's text tower."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from torch import nn

from shards.core.config import load
from shards.core.console import hushed
from shards.core.errors import UsageError
from train.models.options import TowerOptions, apply_options
from train.models.towers import check_image_size, open_clip, parse_name, size_errors, timm_visual, torchvision_visual, try_size

if TYPE_CHECKING:
    from open_clip import CLIP

# The text tower beside an image tower that has none: width 512, 8 heads, 12 layers, 512 features (Radford et al. 2021).
TEXT_OF = "ViT-B-32"
# SigLIP (Zhai et al. 2023, §3.2): t' = ln 10 and b = −10, so that at first nearly all pairs are told apart.
SIGLIP_SCALE, SIGLIP_BIAS = math.log(10), -10.0


def build_clip(
    name: str,
    image_size: int | None = None,
    *,
    text: str | None = None,
    embed_dim: int | None = None,
    siglip: bool = False,
    quick_gelu: bool = False,
    **options: Any,
) -> CLIP:
    """Return an untrained CLIP with open_clip's `encode_image` and `encode_text`; its weights follow torch's global generator.

    Args:
        name: open_clip's name of a model with CLIP's own tokenizer, `timm/NAME` or `torchvision/NAME`.
        image_size: pixels to a side; the model's own where it is None.
        text: open_clip's name of the model whose text tower and `embed_dim` are taken, such as `tiny-vit-32`; by default
            the model's own, and for timm's and torchvision's names that of `ViT-B-32`.
        embed_dim: width of the features of both towers.
        siglip: first logit scale ln 10 and a logit bias of −10, for SigLIP's loss; without it ln(1/0.07) and no bias.
        quick_gelu: x·σ(1.702·x) instead of GELU, in the text tower and in open_clip's own ViTs, as in OpenAI's and SLIP's weights.
        options: fields of `train.models.options.TowerOptions`, for the image tower.

    Raises:
        UsageError: no such model, one that needs a tokenizer from elsewhere, or an option that it does not support.
    """
    wanted = load(TowerOptions, options)
    library, rest = parse_name(name)
    settings = clip_settings(name, image_size, text=text, embed_dim=embed_dim, siglip=siglip, quick_gelu=quick_gelu)
    if library == "open_clip":
        model = _of_open_clip(name, image_size, settings)
    else:
        visual = _visual(library, rest, image_size, int(settings["embed_dim"]))
        model = _around(visual, settings)
    apply_options(model.visual, wanted, name)
    return model


def clip_settings(
    name: str,
    image_size: int | None = None,
    *,
    text: str | None = None,
    embed_dim: int | None = None,
    siglip: bool = False,
    quick_gelu: bool = False,
) -> dict[str, Any]:
    """Return the `model_cfg` from which open_clip builds the same model; the arguments are those of `build_clip`.

    For torchvision's towers `vision_cfg` is empty, since open_clip has no such towers.

    Raises:
        UsageError: as `build_clip`.
    """
    library, rest = parse_name(name)
    if library == "open_clip":
        settings = configuration(name)
    else:
        settings = configuration(TEXT_OF)
        settings.pop("quick_gelu", None)
        settings["vision_cfg"] = timm_settings(rest) if library == "timm" else {}
    if text is not None:
        source = configuration(text)
        settings["text_cfg"], settings["embed_dim"] = source["text_cfg"], source["embed_dim"]
    if embed_dim is not None:
        settings["embed_dim"] = embed_dim
    if image_size is not None:
        settings["vision_cfg"]["image_size"] = image_size
    if siglip:
        settings |= {"init_logit_scale": SIGLIP_SCALE, "init_logit_bias": SIGLIP_BIAS}
    if quick_gelu:
        settings["quick_gelu"] = True
    return settings


def configuration(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of a model with CLIP's own tokenizer.

    Raises:
        UsageError: no such model, or one that needs a tokenizer from elsewhere.
    """
    library, _ = parse_name(name)
    if library != "open_clip":
        raise UsageError(f"model {name!r} has no text tower", "a name of open_clip.list_models()", TEXT_OF)
    settings = open_clip().get_model_config(name)
    text = settings.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "siglip" in name.lower():
        raise UsageError(f"model {name!r} needs a tokenizer that is not part of open_clip", "models with CLIP's own tokenizer")
    return copy.deepcopy(settings)


def context_length(name: str, text: str | None = None) -> int:
    """Return the tokens that the text tower of `build_clip(name, text=text)` reads."""
    settings = clip_settings(name, text=text)
    return int(settings["text_cfg"].get("context_length", 77))


def _of_open_clip(name: str, image_size: int | None, settings: dict[str, Any]) -> CLIP:
    own = open_clip().get_model_config(name)
    check_image_size(name, own, image_size)
    changed = {key: value for key, value in settings.items() if value != own.get(key) and key != "vision_cfg"}
    with hushed(), size_errors(name, image_size):
        model: CLIP = open_clip().create_model(name, force_image_size=image_size, pretrained=None, **changed)
        if image_size is not None and hasattr(model.visual, "trunk"):
            try_size(model.visual, image_size)
    return model


def timm_settings(name: str) -> dict[str, Any]:
    """Return the `vision_cfg` of a timm model in open_clip, as `build_clip` builds it."""
    import timm

    native = timm.get_pretrained_cfg(name)
    size = int(native.input_size[-1]) if native is not None else 224
    return {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": size}


def _visual(library: str, name: str, image_size: int | None, embed_dim: int) -> nn.Module:
    """Return an image tower of timm or torchvision with a linear projection without bias, `visual.head.proj`, as open_clip has it."""
    if library == "timm":
        visual: Any = timm_visual(name, image_size, projection=embed_dim)
        if visual.trunk.head_hidden_size != visual.trunk.num_features:
            raise UsageError(f"model 'timm/{name}' has a hidden layer in its head", "timm's models without one", "timm/resnet50")
        return visual
    visual = torchvision_visual(name, image_size)
    visual.head.add_module("drop", nn.Dropout(0.0))
    visual.head.add_module("proj", nn.Linear(visual.num_features, embed_dim, bias=False))
    return visual


def _around(visual: nn.Module, settings: dict[str, Any]) -> CLIP:
    """Return open_clip's CLIP with an image tower that is there already."""
    placeholder = {"layers": 1, "width": 1, "head_width": 1, "patch_size": 1, "image_size": 1}
    model = open_clip().CLIP(**{**settings, "vision_cfg": placeholder})
    model.visual = visual
    return model
