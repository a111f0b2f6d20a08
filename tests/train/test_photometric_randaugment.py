"""RandAugment: its notations and draws against timm's, its operations against torchvision's and Pillow's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as timm_augment
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

from shards.core.errors import UsageError
from train.data.augment import imageops
from train.data.augment.randaugment import NONE, NUMBERS, OPERATIONS, Policy, draw, parse

SIDE = 40
FILL = torch.tensor([124.0, 116.0, 104.0])


def photos(n: int) -> torch.Tensor:
    coarse = torch.rand((n, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").mul(255).clamp(0, 255).to(torch.uint8)


def applied(name: str, arguments: list[float], images: torch.Tensor, y: float = 0.5, x: float = 0.5) -> torch.Tensor:
    """Return images after one operation, each with its argument."""
    policy = np.array([[[OPERATIONS.index(name), argument, y, x]] for argument in arguments], np.float32)
    return imageops.apply(images.clone(), policy, FILL)


def test_notations() -> None:
    assert parse("rand-m9-mstd0.5-inc1") == Policy(2, 9.0, deviation=0.5, probability=0.5, largest=10.0, increasing=True)
    assert parse("rand-m7-n3-p0.25-mmax12") == Policy(3, 7.0, probability=0.25, largest=12.0)
    assert parse("rand-mstd101").deviation == math.inf
    assert parse("randaug(2,15)") == Policy(2, 15.0, augreg=True)
    for wrong in ("rand", "rand-m9-tweights", "randaug(2)", "randaug(9,1)", "rand-p2", "augmix-m3", "rand-m9-n0"):
        with pytest.raises(UsageError):
            parse(wrong)


@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "rand-m5-mstd2", "rand-m8-mstd101-inc1"])
def test_arguments_are_distributed_as_timms(notation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # timm's operations are replaced by ones that keep their argument, everything else is timm's.
    ours = draw(parse(notation), np.random.default_rng(0).random((6000, NUMBERS)))
    theirs: dict[str, list[float]] = {}

    def keeper(name: str) -> Any:
        return lambda image, *arguments, **_: theirs.setdefault(name, []).append(arguments[0] if arguments else 0.0)

    monkeypatch.setattr(timm_augment, "NAME_TO_OP", {name: keeper(name) for name in timm_augment.NAME_TO_OP})
    import random

    random.seed(0)
    np.random.seed(0)
    transform = timm_augment.rand_augment_transform(notation, {"translate_const": 100})
    for _ in range(6000):
        transform(Image.new("RGB", (4, 4)))
    applied_share = (ours[..., 0] != NONE).mean()
    assert abs(applied_share - 0.5) < 4 * 0.5 / math.sqrt(12000)
    assert len(theirs) == 15
    for name, values in theirs.items():
        plain = name.removesuffix("Increasing")
        mine = ours[..., 1][ours[..., 0] == OPERATIONS.index(plain)]
        assert abs(len(mine) - len(values)) < 5 * math.sqrt(2 * len(values)), name
        # Kolmogorov–Smirnov at p = 1e-4, on values rounded as float32 holds them.
        if np.ptp(np.asarray(values)) > 1e-6:
            rounded = [np.round(np.asarray(v, np.float64), 5) for v in (mine, values)]
            grid = np.unique(np.concatenate(rounded))
            parts = [np.searchsorted(np.sort(v), grid, "right") / len(v) for v in rounded]
            gap = np.abs(parts[0] - parts[1])
            assert gap.max() < 2.23 * math.sqrt(1 / len(mine) + 1 / len(values)), name
        else:
            assert np.allclose(mine, values[0], atol=1e-5), name


def test_augregs_arguments() -> None:
    drawn = draw(parse("randaug(2,15)"), np.random.default_rng(0).random((4000, NUMBERS))).reshape(-1, 4)
    # big_vision's level_to_arg at 15 (translate_const 100, cutout_const 40).
    expected = {"Rotate": 45, "ShearX": 0.45, "ShearY": 0.45, "TranslateX": 150, "TranslateY": 150, "Posterize": 6, "Solarize": 256}
    expected |= {"SolarizeAdd": 165, "Cutout": 60, "Color": 2.8, "Contrast": 2.8, "Brightness": 2.8, "Sharpness": 2.8}
    assert {OPERATIONS[int(code)] for code in drawn[:, 0]} == {*expected, "AutoContrast", "Equalize", "Invert"}
    for name, size in expected.items():
        values = drawn[drawn[:, 0] == OPERATIONS.index(name), 1]
        assert np.allclose(np.abs(values), size), name
        if name in imageops.GEOMETRIC:
            assert 0.3 < (values > 0).mean() < 0.7


@pytest.mark.parametrize(
    ("name", "arguments", "oracle"),
    [
        ("AutoContrast", [0.0], lambda x, _: tv.autocontrast(x)),
        ("Equalize", [0.0], lambda x, _: tv.equalize(x)),
        ("Invert", [0.0], lambda x, _: tv.invert(x)),
        ("Posterize", [0, 1, 3, 4, 7, 8], lambda x, bits: tv.posterize(x, int(bits))),
        ("Solarize", [0, 26, 128, 255], lambda x, level: tv.solarize(x, level)),
        # Factors that float32 holds exactly: 0.1 · 90 is 9 or just below it, and cutting makes a level of that.
        ("Color", [0.125, 0.5, 1.0, 1.875, 2.75], tv.adjust_saturation),
        ("Contrast", [0.125, 0.5, 1.0, 1.875, 2.75], tv.adjust_contrast),
        ("Brightness", [0.125, 0.5, 1.0, 1.875, 2.75], tv.adjust_brightness),
        ("Sharpness", [0.125, 0.5, 1.0, 1.875, 2.75], tv.adjust_sharpness),
    ],
)
def test_colour_operations_are_torchvisions(name: str, arguments: list[float], oracle: Any) -> None:
    images = photos(len(arguments))
    ours = applied(name, arguments, images)
    for i, argument in enumerate(arguments):
        theirs = oracle(images[i], argument)
        apart = (ours[i].int() - theirs.int()).abs()
        assert apart.max() <= 1, argument  # a float32 sum in another order can fall on the other side of a level
        assert (apart > 0).float().mean() < 0.001, argument


PILLOW: dict[str, Any] = {
    "Rotate": (timm_augment.rotate, [30.0, -13.5, 0.0]),
    "ShearX": (timm_augment.shear_x, [0.3, -0.17]),
    "ShearY": (timm_augment.shear_y, [0.3, -0.17]),
    "TranslateXRel": (timm_augment.translate_x_rel, [0.45, -0.2]),
    "TranslateYRel": (timm_augment.translate_y_rel, [0.45, -0.2]),
    "TranslateX": (timm_augment.translate_x_abs, [10.0, -3.0]),
    "TranslateY": (timm_augment.translate_y_abs, [10.0, -3.0]),
    "SolarizeAdd": (timm_augment.solarize_add, [0, 64, 110]),
    "Solarize": (timm_augment.solarize, [256, 26]),
    "Posterize": (timm_augment.posterize, [8, 2]),
    "AutoContrast": (lambda image, _, **__: timm_augment.auto_contrast(image), [0]),
    "Equalize": (lambda image, _, **__: timm_augment.equalize(image), [0]),
    "Color": (timm_augment.color, [0.19, 1.81]),
    "Contrast": (timm_augment.contrast, [0.19, 1.81]),
    "Brightness": (timm_augment.brightness, [0.19, 1.81]),
    "Sharpness": (timm_augment.sharpness, [0.19, 1.81]),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_timms_within_rounding(name: str) -> None:
    oracle, arguments = PILLOW[name]
    images = photos(len(arguments))
    ours = applied(name, arguments, images)
    for i, argument in enumerate(arguments):
        pillow = Image.fromarray(images[i].permute(1, 2, 0).numpy())
        theirs = oracle(pillow, argument, fillcolor=tuple(FILL.int().tolist()), resample=Image.Resampling.BILINEAR)
        apart = np.abs(ours[i].permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs).astype(int))
        # Pillow rounds where torchvision cuts, and does not blend the fill colour into the border pixels.
        assert np.mean(apart > 2) < (0.06 if name in imageops.GEOMETRIC else 0.002), argument
        assert apart.mean() < (2.0 if name in imageops.GEOMETRIC else 0.8), argument


def test_cutout_is_a_square_of_the_fill_colour() -> None:
    images = photos(2)
    ours = applied("Cutout", [6, 9], images, y=0.5, x=0.05)
    for i, half in enumerate((6, 9)):
        naive = images[i].clone()
        for row in range(SIDE):
            for column in range(SIDE):
                if 20 - half <= row < 20 + half and 2 - half <= column < 2 + half:
                    naive[:, row, column] = FILL.to(torch.uint8)
        assert torch.equal(ours[i], naive)


def test_layers_come_in_order_and_each_sample_has_its_own() -> None:
    images = photos(3)
    code = OPERATIONS.index
    policy = np.zeros((3, 2, 4), np.float32)
    policy[0, :, :2] = [[code("Invert"), 0], [code("Solarize"), 100]]
    policy[1, :, :2] = [[code("Solarize"), 100], [code("Invert"), 0]]
    policy[2, :, 0] = NONE
    ours = imageops.apply(images.clone(), policy, FILL)
    assert torch.equal(ours[0], tv.solarize(tv.invert(images[0]), 100))
    assert torch.equal(ours[1], tv.invert(tv.solarize(images[1], 100)))
    assert torch.equal(ours[2], images[2])
