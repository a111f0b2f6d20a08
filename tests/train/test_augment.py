"""Augmentation parameters against torchvision's, and Photometric against torchvision's functionals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF

from shards.core.config import dump, load
from shards.core.errors import UsageError
from shards.sample import uid_of
from train.data.augment import presets
from train.data.augment.params import (
    NUMBERS,
    Augment,
    Window,
    centre_window,
    evaluation,
    parameters,
    uniforms,
    uniforms_of_batch,
    window,
)
from train.data.augment.photometric import Photometric
from train.data.order import AUGMENT, sample_words

SIMCLR = Augment(scale=(0.08, 1.0), flip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, blur=0.5)
UIDS = [uid_of("t", str(i)) for i in range(3000)]


def smirnov(one: Any, two: Any) -> float:
    """Return the two-sample Kolmogorov–Smirnov distance."""
    values = np.sort(np.concatenate([one, two]))
    return float(
        np.abs(np.searchsorted(np.sort(one), values, "right") / len(one) - np.searchsorted(np.sort(two), values, "right") / len(two)).max()
    )


def test_numbers_depend_on_seed_epoch_and_uid_alone() -> None:
    base = uniforms(1, 2, UIDS[0])
    assert np.array_equal(base, uniforms(1, 2, UIDS[0]))
    for other in (uniforms(2, 2, UIDS[0]), uniforms(1, 3, UIDS[0]), uniforms(1, 2, UIDS[1]), uniforms(1, 2, "a-foreign-key")):
        assert not (base == other).any()
    together, alone = parameters(SIMCLR, [uniforms(0, 0, u) for u in UIDS[:9]]), parameters(SIMCLR, [uniforms(0, 0, UIDS[4])])
    assert together.factors[4].tolist() == alone.factors[0].tolist()
    assert together.order[4].tolist() == alone.order[0].tolist()


def test_the_compiled_words_are_numpys_whatever_the_view() -> None:
    uids = [*UIDS[:5], "a-foreign-key", ""]
    for seed, view in ((0, 0), (7, 1), (-1, 3), (2**63, 200)):
        ours = uniforms_of_batch(seed, range(len(uids)), uids, view)
        for epoch, uid in enumerate(uids):
            theirs = sample_words(seed, AUGMENT, epoch, uid, NUMBERS, view)
            assert np.array_equal(ours[epoch], (theirs >> np.uint64(11)) * 2.0**-53)
            assert np.array_equal(ours[epoch], uniforms(seed, epoch, uid, view))


def test_view_0_has_the_bits_it_had_before_there_were_views() -> None:
    # 53 numbers, keyed by (seed, 3): numpy's generator, called as it was called then.
    uid = UIDS[7]
    counter = np.array([0, 5, int(uid[:16], 16), int(uid[16:], 16)], np.uint64)
    raw = np.random.Philox(key=np.array([11, 3], np.uint64), counter=counter).random_raw(53)
    assert np.array_equal(uniforms(11, 5, uid)[:53], (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def test_views_are_independent() -> None:
    views = [uniforms_of_batch(0, [0] * 1000, UIDS[:1000], view) for view in range(3)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not (views[first] == views[second]).any()
        together = [np.corrcoef(views[first][:, k], views[second][:, k])[0, 1] for k in range(NUMBERS)]
        assert np.abs(together).max() < 4.5 / math.sqrt(1000)


def test_numbers_are_uniform() -> None:
    u = np.stack([uniforms(0, 0, uid) for uid in UIDS])
    assert u.min() >= 0
    assert u.max() < 1
    assert np.abs(u.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 12 / len(u))
    assert np.abs(np.corrcoef(u.T) - np.eye(u.shape[1])).max() < 5.5 / math.sqrt(len(u))


@pytest.mark.parametrize("size", [(300, 400), (60, 600), (500, 90)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_windows_are_distributed_as_torchvisions(size: tuple[int, int], scale: tuple[float, float]) -> None:
    augment, few = Augment(scale=scale), UIDS[:1000]
    torch.manual_seed(0)
    image = torch.zeros((1, *size))
    theirs = np.array([T.RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in few])
    ours = np.array([window(augment, uniforms(3, 0, uid), *size) for uid in few])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= size[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= size[1]).all()
    limit = 1.95 * math.sqrt(2 / len(few))  # p = 0.001
    for column in range(4):
        assert smirnov(ours[:, column], theirs[:, column]) < limit, column
    assert smirnov(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]) < limit


def test_a_window_equals_torchvisions_algorithm_on_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # torchvision draws from torch's generator: it is fed our numbers instead, so the arithmetic must agree exactly.
    for uid in UIDS[:60]:
        u = uniforms(0, 0, uid)
        feed = iter(u.tolist())
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", lambda self, a, b, feed=feed: self.fill_(a + next(feed) * (b - a)))
            patch.setattr(torch, "randint", lambda a, b, size, feed=feed: torch.tensor([a + int(next(feed) * (b - a))]))
            # An attempt that fails leaves its two place numbers unused: with this shape the first one fits.
            theirs = T.RandomResizedCrop.get_params(torch.zeros(1, 400, 400), [0.08, 0.5], [3 / 4, 4 / 3])
        ours = window(Augment(scale=(0.08, 0.5)), u, 400, 400)
        assert np.abs(np.subtract(ours, theirs)).max() <= 1, uid  # theirs rounds through float32


def test_the_fallback_and_the_centre() -> None:
    always_too_large = np.full(60, 0.999)
    assert window(Augment(scale=(0.99, 1.0)), always_too_large, 100, 1000) == Window(0, 433, 100, 133)
    assert window(Augment(scale=(0.99, 1.0)), np.zeros(60), 1000, 100) == Window(433, 0, 133, 100)
    assert centre_window(48, 64) == Window(0, 8, 48, 48)
    assert window(Augment(crop="centre"), always_too_large, 64, 49) == Window(7, 0, 49, 49)


def test_factors_are_distributed_as_color_jitters() -> None:
    params = parameters(SIMCLR, [uniforms(0, 1, uid) for uid in UIDS])
    changed = (params.factors != np.array([1, 1, 1, 0], np.float32)).any(1)
    for share, expected in ((changed, 0.8), (params.flip, 0.5), (params.gray, 0.2), (params.sigma > 0, 0.5)):
        assert abs(share.mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / len(UIDS))
    torch.manual_seed(0)
    jitter = T.ColorJitter(0.4, 0.4, 0.4, 0.1)
    theirs = [T.ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in UIDS]
    for column in range(4):
        assert smirnov(params.factors[changed, column], np.array([t[column + 1] for t in theirs])) < 0.055
    assert smirnov(params.sigma[params.sigma > 0], np.random.default_rng(0).uniform(0.1, 2.0, len(UIDS))) < 0.065
    assert np.bincount(params.order @ [64, 16, 4, 1]).astype(bool).sum() == 24
    assert (np.sort(params.order, 1) == np.arange(4)).all()


def test_photometric_equals_torchvision_per_sample() -> None:
    side, n = 40, 48
    images = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[3] = 7  # no hue, no contrast
    images[4, :, :, :20] = 255
    params = parameters(SIMCLR, [uniforms(5, 0, uid) for uid in UIDS[:n]])
    assert params.flip.any()
    assert params.gray.any()
    assert (params.sigma > 0).any()
    ours = Photometric(SIMCLR)(images, params)
    operations = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for i in range(n):
        x = images[i].float() / 255
        x = TF.hflip(x) if params.flip[i] else x
        if tuple(params.factors[i]) != (1, 1, 1, 0):
            for which in params.order[i]:
                x = operations[which](x, float(params.factors[i, which]))
        x = TF.rgb_to_grayscale(x, 3) if params.gray[i] else x
        x = TF.gaussian_blur(x, [5, 5], [float(params.sigma[i])] * 2) if params.sigma[i] > 0 else x
        x = TF.normalize(x, list(SIMCLR.mean), list(SIMCLR.std))
        assert (ours[i] - x).abs().max() < 2e-4, (i, params.factors[i], params.order[i])


def test_without_augmentation_it_only_normalises() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.int64).remainder(256).to(torch.uint8).view(2, 3, 8, 8)
    plain = Augment()
    out = Photometric(plain)(images, parameters(plain, [uniforms(0, 0, uid) for uid in UIDS[:2]]))
    assert torch.allclose(out, TF.normalize(images.float() / 255, list(plain.mean), list(plain.std)), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"scale": [0.5]}, "scale"),
        ({"scale": [0.9, 1.5]}, "scale"),
        ({"ratio": [2.0, 1.0]}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"color_jitter": [0.4, 0.4, 0.4]}, "color_jitter"),
        ({"std": [1.0, 0.0, 1.0]}, "std"),
        ({"solarize": -0.1}, "solarize"),
        ({"randaugment": "rand-m9-x3"}, "randaugment"),
        ({"randaugment": "randaug(5,9)"}, "layers"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load(Augment, values)


# What each source says, in numbers: the references are named in presets.py.
SAID: dict[str, dict[str, Any]] = {
    "openclip": {"scale": (0.9, 1.0), "interpolation": "bicubic", "flip": 0.0, "color_jitter": (), "gray": 0.0, "blur": 0.0},
    "slip": {"scale": (0.5, 1.0), "interpolation": "bilinear", "flip": 0.0, "mean": (0.485, 0.456, 0.406)},
    "simclr": {"scale": (0.08, 1.0), "color_jitter": (0.4, 0.4, 0.4, 0.1), "color_jitter_p": 0.8, "gray": 0.2, "blur": 0.5, "flip": 0.5},
    "simclr-strong": {"color_jitter": (0.8, 0.8, 0.8, 0.2), "interpolation": "bicubic", "blur_sigma": (0.1, 2.0)},
    "paper-code": {"color_jitter": (0.8, 0.8, 0.8, 0.2), "mean": (0.48145466, 0.4578275, 0.40821073)},
    "byol-1": {"blur": 1.0, "solarize": 0.0, "color_jitter": (0.4, 0.4, 0.2, 0.1)},
    "byol-2": {"blur": 0.1, "solarize": 0.2, "color_jitter": (0.4, 0.4, 0.2, 0.1)},
    "supervised": {"scale": (0.08, 1.0), "flip": 0.5, "color_jitter": (), "std": (0.229, 0.224, 0.225)},
    "augreg-medium1": {"randaugment": "randaug(2,15)", "mean": (0.5, 0.5, 0.5)},
    "centre": {"crop": "centre", "flip": 0.0},
}


@pytest.mark.parametrize("name", SAID)
def test_presets_have_the_values_of_their_sources(name: str) -> None:
    augment = presets.preset(name)
    assert {key: getattr(augment, key) for key in SAID[name]} == SAID[name]


def test_presets_agree_with_the_installed_peers() -> None:
    import open_clip
    from torchvision.transforms import ColorJitter, GaussianBlur

    transform = open_clip.transform.image_transform(
        224, is_train=True, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    crop, *_, normalise = transform.transforms
    ours = presets.preset("openclip")
    assert (tuple(crop.scale), tuple(crop.ratio), crop.interpolation.value) == (ours.scale, ours.ratio, ours.interpolation)
    assert (normalise.mean, normalise.std) == (ours.mean, ours.std)
    assert not any(isinstance(step, T.RandomHorizontalFlip | ColorJitter | GaussianBlur) for step in transform.transforms)
    assert presets.preset("paper") == ours == Augment()


def test_a_preset_is_a_name_or_a_start_for_changes() -> None:
    assert presets.resolve("simclr") == presets.preset("simclr")
    assert presets.resolve({}) == Augment()
    changed = presets.resolve({"preset": "simclr", "gray": 0, "blur_sigma": [0.5, 1]})
    assert changed == dataclasses.replace(presets.preset("simclr"), gray=0.0, blur_sigma=(0.5, 1.0))
    assert presets.resolve(changed) is changed
    for name in presets.names():
        assert presets.resolve(dump(presets.preset(name))) == presets.preset(name)
    for value, named in (
        ("simcrl", "'simclr'"),
        ({"preset": "x"}, "paper"),
        ({"preset": 3}, "preset"),
        ({"colour": 1}, "colour"),
        (3, "mapping"),
    ):
        with pytest.raises(UsageError) as error:
            presets.resolve(value)  # type: ignore[arg-type]
        assert named in str(error.value)


def test_evaluation_keeps_what_the_model_expects() -> None:
    after = evaluation(presets.preset("byol-2"))
    assert (after.crop, after.interpolation, after.mean) == ("centre", "bicubic", (0.485, 0.456, 0.406))
    assert (after.flip, after.solarize, after.color_jitter, after.blur) == (0, 0, (), 0)
