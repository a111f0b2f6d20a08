"""Published augmentations by name: `augment: simclr` in a recipe, or `augment: {preset: simclr, gray: 0.0}` with changes.

Where a source leaves something open, the comment says what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shards.core.config import dump, load
from shards.core.errors import UsageError, closest
from train.data.augment.params import Augment

_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # big_vision's value_range(-1, 1)
_ANY_SIZE: dict[str, Any] = {"scale": (0.08, 1.0), "flip": 0.5}  # torchvision's RandomResizedCrop by default, and a flip

# open_clip's training transform: RandomResizedCrop(scale=(0.9, 1), bicubic), OpenAI's mean and std, no flip.
_OPENCLIP = Augment(scale=(0.9, 1.0), interpolation="bicubic")

# SLIP's SimCLR view (Mu et al. 2021, datasets.py): "not strengthened" jitter. Its blur is Pillow's, of radius U(0.1, 2)
# without a kernel size; here, as in every preset, the kernel is a tenth of the side (23 pixels of 224).
_SIMCLR = Augment(
    **_ANY_SIZE, **_IMAGENET, interpolation="bilinear", color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_p=0.8, gray=0.2, blur=0.5
)

# SimCLR's own (Chen et al. 2020, data_util.py, strength 1): jitter twice as strong, bicubic. It feeds values in [0, 1];
# normalised here, as all its PyTorch versions do.
_SIMCLR_STRONG = replace(_SIMCLR, interpolation="bicubic", color_jitter=(0.8, 0.8, 0.8, 0.2))

# BYOL (Grill et al. 2020, table 6): views 1 and 2 differ in blur and solarisation; bicubic.
_BYOL = replace(_SIMCLR, interpolation="bicubic", color_jitter=(0.4, 0.4, 0.2, 0.1))

# torchvision's classification reference and Goyal et al. 2017: crop and flip. Evaluate with `augment.evaluation` of it.
_SUPERVISED = Augment(**_ANY_SIZE, **_IMAGENET, interpolation="bilinear")

# AugReg (Steiner et al. 2021; big_vision's vit_i1k.py and vit_i21k.py): Inception crop (from 5% of the area), flip, then
# RandAugment(l, m). The Mixup that belongs to a level is the task's: light2, medium1 0.2; medium2, strong1 0.5; strong2 0.8.
_AUGREG = Augment(**_HALF, scale=(0.05, 1.0), flip=0.5, interpolation="bilinear")

_PRESETS: dict[str, Augment] = {
    # "The Role of Pre-training Data in Transfer Learning" says of its CLIP models "augmentation from Radford et al.": there "a
    # random square crop from resized images is the only data augmentation used". The size before the crop is not given;
    # open_clip's crop of 90 to 100% of the area is the published reading of it.
    "paper": _OPENCLIP,
    # The README of that paper's code says "as in SimCLR paper" instead; with the mean and std its CLIP models have.
    "paper-code": replace(_SIMCLR_STRONG, mean=_OPENCLIP.mean, std=_OPENCLIP.std),
    "openclip": _OPENCLIP,
    "slip": Augment(**_IMAGENET, scale=(0.5, 1.0), interpolation="bilinear"),  # the CLIP view of SLIP (main.py): no flip
    "simclr": _SIMCLR,
    "simclr-strong": _SIMCLR_STRONG,
    "byol-1": replace(_BYOL, blur=1.0, solarize=0.0),
    "byol-2": replace(_BYOL, blur=0.1, solarize=0.2),
    "supervised": _SUPERVISED,
    # timm's ImageNet recipes: bicubic, RandAugment. The fine-tuning of the paper's code adds random erasing; its colour jitter of 0.4
    # has no effect, since timm's create_transform takes RandAugment instead of it.
    "supervised-rand": replace(_SUPERVISED, interpolation="bicubic", randaugment="rand-m9-mstd0.5-inc1"),
    "finetune-paper": replace(_SUPERVISED, interpolation="bicubic", randaugment="rand-m9-mstd0.5-inc1", erase=0.25),
    # Fine-tuning's default: crop and flip, with the mean and std of the model that is tuned (wise-ft tunes with its CLIP's own).
    "finetune": replace(_SUPERVISED, interpolation="bicubic"),
    "augreg-none": _AUGREG,
    "augreg-light1": replace(_AUGREG, randaugment="randaug(2,0)"),  # not nothing: colour operations at 0 are strong
    "augreg-light2": replace(_AUGREG, randaugment="randaug(2,10)"),
    "augreg-medium1": replace(_AUGREG, randaugment="randaug(2,15)"),
    "augreg-medium2": replace(_AUGREG, randaugment="randaug(2,15)"),
    "augreg-strong1": replace(_AUGREG, randaugment="randaug(2,20)"),
    "augreg-strong2": replace(_AUGREG, randaugment="randaug(2,20)"),
    "centre": Augment(crop="centre"),  # no augmentation: the evaluation's crop, with OpenAI's mean and std
    "centre-imagenet": Augment(**_IMAGENET, crop="centre", interpolation="bilinear"),
}


def names() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(_PRESETS)


def preset(name: str) -> Augment:
    """Return a published augmentation.

    Raises:
        UsageError: no such name.
    """
    if name not in _PRESETS:
        raise UsageError(f"augment: {name!r}", ", ".join(_PRESETS), closest(name, _PRESETS))
    return _PRESETS[name]


def resolve(value: str | Mapping[str, Any] | Augment, where: str = "augment") -> Augment:
    """Return the augmentation that a recipe's value means: a preset's name, or keys of Augment, which change `preset` if it is named.

    Without `preset`, keys change Augment's own defaults.

    Args:
        value: what stands in the recipe.
        where: the key it stands under, for errors.

    Raises:
        UsageError: an unknown name or key, or a value that cannot be.
    """
    if isinstance(value, Augment):
        return value
    if isinstance(value, str):
        return preset(value)
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: {value!r}", f"a name ({', '.join(_PRESETS)}) or a mapping of keys")
    changes = {key: entry for key, entry in value.items() if key != "preset"}
    if "preset" not in value:
        return load(Augment, changes, where)
    start = preset(value["preset"]) if isinstance(value["preset"], str) else None
    if start is None:
        raise UsageError(f"{where}.preset: {value['preset']!r}", ", ".join(_PRESETS))
    return load(Augment, {**dump(start), **changes}, where)
