"""Augmentation parameters against torchvision's, and Photometric against torchvision's functionals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF

from shards.core.config import load
from shards.core.errors import UsageError
from shards.sample import uid_of
from train.augment import Augment, Window, centre_window, parameters, uniforms, window
from train.photometric import Photometric

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
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load(Augment, values)
