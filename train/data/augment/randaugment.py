"""RandAugment as data: which operations each sample gets, and how strong, from its random numbers (Cubuk et al. 2019).

Two published forms, each by its own notation:
    rand-m9-mstd0.5-inc1   timm's (`timm.data.auto_augment.rand_augment_transform`): 15 operations, each layer applied with
                           probability p (0.5), magnitude m with a normal deviation mstd, clipped to [0, mmax or 10]
    randaug(2,15)          AugReg's (Steiner et al. 2021; big_vision's `distort_image_with_randaugment`): l layers of
                           magnitude m from 16 operations, always applied, magnitudes above 10 as they are
`train.data.augment.imageops.apply` applies what `draw` returns.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

OPERATIONS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel", "TranslateX", "TranslateY", "Cutout",
)  # fmt: skip
_TIMM = tuple(range(15))
_AUGREG = (*range(13), 15, 16, 17)  # translations in pixels, and Cutout
NONE = -1.0  # the code of no operation
MAX_LAYERS = 4  # AugReg's largest
PER_LAYER = 6  # random numbers: operation, applied or not, magnitude, sign, and a place (y, x)
NUMBERS = MAX_LAYERS * PER_LAYER
_ALLOWED = "randaug(LAYERS,MAGNITUDE) or timm's rand-mM[-nLAYERS][-pPROBABILITY][-mstdDEVIATION][-mmaxLARGEST][-inc1]"


@dataclass(frozen=True)
class Policy:
    """What a notation says.

    deviation: of the normal magnitude; inf: uniform from 0 to `magnitude`. largest: magnitudes are clipped to it.
    increasing: timm's `inc1`, under which every operation grows with the magnitude. augreg: AugReg's operations, whose
    translations (100) and cut-outs (40) are in pixels at magnitude 10; timm's translate by 0.45 of the side, without cut-outs.
    """

    layers: int
    magnitude: float
    deviation: float = 0.0
    probability: float = 1.0
    largest: float = math.inf
    increasing: bool = False
    augreg: bool = False


@lru_cache(maxsize=64)
def parse(text: str) -> Policy:
    """Return the policy of a notation.

    Raises:
        UsageError: neither notation, or more than MAX_LAYERS layers.
    """
    refused = UsageError(f"randaugment: {text!r}", _ALLOWED)
    if match := re.fullmatch(r"randaug\((\d+),\s*(\d+(?:\.\d+)?)\)", text):
        policy = Policy(int(match[1]), float(match[2]), augreg=True)
    elif text.startswith("rand-"):
        policy = _parse_timm(text, refused)
    else:
        raise refused
    if not 1 <= policy.layers <= MAX_LAYERS or not 0 <= policy.probability <= 1:
        raise UsageError(f"randaugment: {text!r}", f"1 to {MAX_LAYERS} layers, a probability from 0 to 1")
    return policy


def _parse_timm(text: str, refused: UsageError) -> Policy:
    """Return the policy of timm's notation; its operation weights (`-t…`) are not offered."""
    values = {"m": 10.0, "n": 2.0, "p": 0.5, "mstd": 0.0, "mmax": 10.0, "inc": 0.0}
    for part in text.split("-")[1:]:
        match = re.fullmatch(r"(m|n|p|mstd|mmax|inc)(\d+(?:\.\d+)?)", part)
        if not match:
            raise refused
        values[match[1]] = float(match[2])
    return Policy(
        layers=int(values["n"]),
        magnitude=values["m"],
        deviation=math.inf if values["mstd"] > 100 else values["mstd"],  # timm's rule
        probability=values["p"],
        largest=values["mmax"],
        increasing=values["inc"] > 0,
    )


def draw(policy: Policy, u: Floats) -> NDArray[np.float32]:
    """Return what each of n samples gets in each layer, (n, layers, 4) float32: operation, argument, y and x.

    The operation is an index into OPERATIONS, or NONE. The argument is in the operation's own unit: degrees (Rotate), bits
    kept (Posterize), a level (Solarize, SolarizeAdd), a factor (Color, Contrast, Brightness, Sharpness), a slope (Shear), a
    share of the side (TranslateXRel, …), pixels (TranslateX, …; Cutout: half its side, around (y, x), which are shares of the
    side).

    Args:
        u: (n, at least layers · PER_LAYER), uniform in [0, 1); each number has one use.
    """
    import numpy as np

    parts = u[:, : policy.layers * PER_LAYER].reshape(len(u), policy.layers, PER_LAYER)
    codes = np.array(_AUGREG if policy.augreg else _TIMM)
    operation = codes[(parts[..., 0] * len(codes)).astype(np.int64)]
    # Sources: timm's AugmentOp.__call__ (magnitude) and _randomly_negate (sign).
    magnitude = np.clip(_magnitudes(policy, parts[..., 2]), 0, policy.largest)
    sign = np.where(parts[..., 3] > 0.5, -1.0, 1.0)
    argument = np.zeros_like(magnitude)
    for code in codes:
        chosen = operation == code
        argument[chosen] = _argument(policy, OPERATIONS[code], magnitude[chosen], sign[chosen])
    operation = np.where(parts[..., 1] < policy.probability, operation, NONE)
    return np.stack([operation, argument, parts[..., 4], parts[..., 5]], -1).astype(np.float32)


def _magnitudes(policy: Policy, u: Floats) -> Floats:
    """Return magnitudes from uniform numbers: constant, uniform, or normal by the inverse distribution function."""
    import numpy as np
    from scipy.special import ndtri

    if policy.deviation == 0:
        return np.full_like(u, policy.magnitude)
    if math.isinf(policy.deviation):
        return u * policy.magnitude
    return policy.magnitude + policy.deviation * ndtri(u)


def _argument(policy: Policy, name: str, magnitude: Floats, sign: Floats) -> Floats:
    """Return an operation's arguments at some magnitudes (timm's LEVEL_TO_ARG; big_vision's level_to_arg)."""
    import numpy as np

    level = magnitude / 10
    if name == "Rotate":
        return 30 * level * sign
    if name in ("ShearX", "ShearY"):
        return 0.3 * level * sign
    if name in ("TranslateXRel", "TranslateYRel"):
        return 0.45 * level * sign
    if name in ("TranslateX", "TranslateY"):
        return 100 * level * sign
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return np.maximum(0.1, 1 + 0.9 * level * sign) if policy.increasing else 1.8 * level + 0.1
    if name == "Posterize":
        bits = np.floor(4 * level)
        return np.clip(4 - bits if policy.increasing else bits, 0, 8)
    if name == "Solarize":
        threshold = np.minimum(256, np.floor(256 * level))
        return 256 - threshold if policy.increasing else threshold
    if name == "SolarizeAdd":
        return np.minimum(255 if policy.augreg else 128, np.floor(110 * level))
    if name == "Cutout":
        return np.floor(40 * level)
    return np.zeros_like(level)
