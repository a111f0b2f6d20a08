"""The compiled photometric chain against the torch definition and torchvision's functionals; types, layouts, buffers, threads."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv

from shards.core.errors import UsageError
from shards.sample import uid_of
from train.data.augment import presets
from train.data.augment.params import Augment, AugmentParams, parameters, uniforms_of_batch
from train.data.augment.photometric import Buffers, Photometric, operations

SIDE, N = 48, 64


@pytest.fixture
def threads() -> Iterator[None]:
    """Put torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def photos(n: int = N, side: int = SIDE) -> torch.Tensor:
    """Return smooth coloured images with a flat, a gray, a black and a white one among them."""
    coarse = torch.rand((n, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").mul(255).clamp(0, 255).to(torch.uint8)
    smooth[0], smooth[2], smooth[3] = 77, 0, 255
    smooth[1] = smooth[1, :1]
    return smooth.contiguous(memory_format=torch.channels_last)


def drawn(augment: Augment, n: int = N, seed: int = 0) -> AugmentParams:
    return parameters(augment, uniforms_of_batch(seed, [0] * n, [uid_of("t", str(i)) for i in range(n)]))


def defined(augment: Augment, images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """Return what torch's own operations make of a batch."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (augment.mean, augment.std))
    return (operations(images.float() / 255, params.flip, params) - mean) / std


@pytest.mark.parametrize("name", ["openclip", "simclr", "simclr-strong", "byol-1", "byol-2", "paper-code", "supervised"])
def test_the_compiled_chain_equals_the_definition(name: str) -> None:
    augment, images = presets.preset(name), photos()
    params = drawn(augment)
    # Float32 on values up to 4.4 after normalising; hue divides by the chroma: 1e-5 was the largest allowed.
    assert (Photometric(augment)(images, params) - defined(augment, images, params)).abs().max() < 1e-5


def each_operation(i: int, x: torch.Tensor, params: AugmentParams, kernel: int) -> torch.Tensor:
    """Apply torchvision's functionals to one image in [0, 1], one after the other."""
    x = tv.horizontal_flip(x) if params.flip[i] else x
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for which in params.order[i]:
        factor = float(params.factors[i, which])
        x = x if factor == (1, 1, 1, 0)[which] else adjust[which](x, factor)
    x = tv.rgb_to_grayscale(x, 3) if params.gray[i] else x
    sigma = float(params.sigma[i])
    x = tv.gaussian_blur(x, [kernel, kernel], [sigma, sigma]) if sigma > 0 else x
    return tv.solarize(x, 0.5) if params.solarize[i] else x


@pytest.mark.parametrize(
    ("name", "side", "kernel"), [("simclr", SIDE, 5), ("byol-2", 114, 11), ("byol-1", 114, 11), ("simclr-strong", 20, 3)]
)
def test_the_chain_equals_torchvision_image_by_image(name: str, side: int, kernel: int) -> None:
    augment, images = presets.preset(name), photos(32, side)
    params = drawn(augment, 32, seed=1)
    if name == "byol-2":
        assert params.solarize.any()
    ours = Photometric(augment)(images, params)
    for i in range(len(images)):
        theirs = tv.normalize(each_operation(i, images[i].float() / 255, params, kernel), list(augment.mean), list(augment.std))
        # torchvision turns the hue through another formula of HSV, which rounds elsewhere.
        assert (ours[i] - theirs).abs().max() < 2e-5, (i, params.factors[i], params.order[i])


@pytest.mark.parametrize("operation", ["gray", "blur", "solarize", "flip"])
def test_each_operation_alone_changes_the_rows_it_is_for_and_no_others(operation: str) -> None:
    plain, augment = Augment(), Augment(**{operation: 0.5})
    images, params = photos(), drawn(augment)
    ours, untouched = Photometric(augment)(images, params), Photometric(plain)(images, drawn(plain))
    chosen = torch.from_numpy(params.sigma > 0 if operation == "blur" else getattr(params, operation))
    assert 10 < int(chosen.sum()) < N - 10
    assert torch.equal(ours[~chosen], untouched[~chosen])
    varied = chosen & (torch.arange(N) > 3)  # flat and gray images may stay as they are
    assert (ours[varied] != untouched[varied]).flatten(1).any(1).all()


@pytest.mark.slow
def test_bfloat16_is_the_float32_result_rounded_once() -> None:
    for name in ("openclip", "byol-2"):
        augment, images = presets.preset(name), photos()
        params = drawn(augment)
        exact, half = Photometric(augment)(images, params), Photometric(augment, torch.bfloat16)(images, params)
        assert half.dtype == torch.bfloat16
        assert torch.equal(half, exact.to(torch.bfloat16))
    with pytest.raises(UsageError, match="float16"):
        Photometric(Augment(), torch.float16)


def test_layouts_sizes_and_empty_batches() -> None:
    augment, images = presets.preset("simclr"), photos()
    params = drawn(augment)
    ours = Photometric(augment)(images, params)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours, Photometric(augment)(images.contiguous(), params))
    assert Photometric(augment)(images[:0], drawn(augment, 0)).shape == (0, 3, SIDE, SIDE)
    wide = photos(8)[..., :20, :]
    few = drawn(augment, 8)
    assert (Photometric(augment)(wide, few) - defined(augment, wide, few)).abs().max() < 1e-5


def test_threads_change_nothing(threads: None) -> None:
    augment, images = presets.preset("byol-2"), photos()
    params = drawn(augment)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(Photometric(augment)(images, params))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_memory_is_used_again_only_once_nobody_needs_it() -> None:
    photometric, images, params = Photometric(Augment()), photos(), drawn(Augment())
    first = photometric(images, params)
    kept, place = first.clone(), first.data_ptr()
    second = photometric(255 - images, params)
    assert second.data_ptr() != place
    assert torch.equal(first, kept)
    view = first[3:5, :1]
    del first
    assert photometric(images, params).data_ptr() != place  # a view still needs it
    del view
    gc.collect()
    assert photometric(images, params).data_ptr() == place


def test_memory_that_autograd_needs_is_not_used_again() -> None:
    photometric, images, params = Photometric(Augment()), photos(), drawn(Augment())
    weight = torch.ones((1, 3, 1, 1), requires_grad=True)
    loss = (photometric(images, params) * weight).sum()  # the product keeps the images for the gradient
    for _ in range(3):
        photometric(255 - images, params)
    loss.backward()
    assert weight.grad is not None
    expected = defined(Augment(), images, params).sum((0, 2, 3)).view(1, 3, 1, 1)
    assert torch.allclose(weight.grad, expected, rtol=1e-4, atol=0.5)  # sums of 147,456 values


def test_free_buffers_are_few() -> None:
    buffers = Buffers()
    for n in range(1, 40):
        buffers.take((n, 2), "float32")
    assert len(buffers._arrays) <= 9
    held: list[Any] = [buffers.take((7, 7), "float32") for _ in range(20)]
    assert len({array.ctypes.data for array in held}) == 20


def test_randaugment_comes_after_the_flip_and_before_the_rest() -> None:
    from train.data.augment import imageops

    augment = presets.resolve({"preset": "supervised-rand", "gray": 0.5})
    images, params = photos(), drawn(presets.resolve({"preset": "supervised-rand", "gray": 0.5}))
    before = images.clone()
    ours = Photometric(augment)(images, params)
    assert torch.equal(images, before)
    turned = torch.stack([tv.horizontal_flip(image) if flip else image for image, flip in zip(images, params.flip, strict=True)])
    fill = torch.tensor([124.0, 116.0, 104.0])  # ImageNet's mean
    operated = imageops.apply(turned, params.policy, fill)
    plain = AugmentParams(
        params.flip & False, params.factors, params.order, params.gray, params.sigma, params.solarize, params.policy, params.erased
    )
    assert (ours - defined(augment, operated, plain)).abs().max() < 1e-5
    assert (params.policy[..., 0] >= 0).any()
    assert np.isfinite(params.policy).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_cpus_result() -> None:
    for name in ("byol-2", "supervised-rand"):
        augment, images = presets.preset(name), photos()
        params = drawn(augment)
        ours = Photometric(augment).cuda()(images.cuda(), params).cpu()
        close = (ours - Photometric(augment)(images, params)).abs() < 1e-4
        assert close.float().mean() > 0.999  # resampling may round one level apart
