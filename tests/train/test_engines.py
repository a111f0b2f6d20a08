"""Both engines on drawn pictures: equal crops, bad images named and replaced alike, a whole build proven."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shards.manifest import read_manifest
from shards.reader import read_samples
from train.augment import Augment, Window
from train.check import CheckConfig, check
from train.cpu import DecodeError, check_whole, decode, decode_centre, image_size
from train.loader import Batch, Loader

MakeShards = Callable[..., str]


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth coloured noise: the spectrum of a photograph, roughly."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (k, k, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC) for k in (4, 16, 64)
    ]
    return Image.fromarray((0.5 * np.asarray(layers[0]) + 0.3 * np.asarray(layers[1]) + 0.2 * np.asarray(layers[2])).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def stray(data: bytes) -> bytes:
    """Return a JPEG with bytes between two of its segments that mean nothing, as some cameras leave them."""
    scan = data.index(b"\xff\xda")
    return data[:scan] + b"\x00\x11\x22" + data[scan:]


def differences(one: Any, two: Any) -> tuple[float, float]:
    """Return mean and 99th percentile of the absolute difference in levels."""
    apart = np.abs(np.asarray(one).astype(int) - np.asarray(two).astype(int))
    return float(apart.mean()), float(np.percentile(apart, 99))


def pillow(data: bytes, window: Window, size: int) -> Any:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC))


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda i: encoded(i, quality=92),
    "gray": lambda i: encoded(i.convert("L")),
    "progressive": lambda i: encoded(i, progressive=True),
    "444": lambda i: encoded(i, subsampling=0),
    "stray bytes": lambda i: stray(encoded(i)),
    "cmyk": lambda i: encoded(i.convert("CMYK")),
    "png": lambda i: encoded(i, "PNG"),
    "webp": lambda i: encoded(i, "WEBP"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [Window(10, 21, 130, 140), Window(33, 51, 701, 850), Window(0, 0, 800, 1000)])
def test_the_cpu_engine_equals_pillow(kind: str, window: Window) -> None:
    data = KINDS[kind](photo(1000, 800))
    assert image_size(data) == (800, 1000)
    mean, high = differences(decode(data, window, 96), pillow(data, window, 96))
    assert mean <= 0.7
    assert high <= 3


def test_the_centre_is_resize_and_centre_crop() -> None:
    import torchvision.transforms as T

    data = encoded(photo(640, 480))
    evaluation = T.Compose([T.Resize(96, T.InterpolationMode.BICUBIC), T.CenterCrop(96)])
    mean, high = differences(decode_centre(data, 96), np.asarray(evaluation(Image.open(io.BytesIO(data)))))
    assert mean <= 0.7
    assert high <= 4


def test_cut_images_are_refused_wherever_the_cut_lies() -> None:
    data = encoded(photo(200, 160), quality=90)
    for length in (0, 3, 100, len(data) // 2, len(data) * 95 // 100, len(data) - 2):
        with pytest.raises(DecodeError):
            check_whole(data[:length])
            decode(data[:length], Window(0, 0, 160, 200), 32)
    check_whole(data + bytes(5000))  # junk after the end is none of ours


def loader(build: str, engine: str, **options: Any) -> Loader:
    manifest = read_manifest(build)
    return Loader(
        [(manifest, None)], batch_size=8, image_size=40, seed=3, engine=engine, workers=2, augment=Augment(scale=(0.3, 1.0)), **options
    )


def take(source: Loader, n: int, start: int = 0) -> list[Batch]:
    with contextlib.closing(source.batches(start)) as batches:
        return list(itertools.islice(batches, n))


def test_both_engines_give_the_same_batches(make_shards: MakeShards) -> None:
    # Two pictures are cut in half, one is no image at all: neither engine dies, both replace them alike.
    def spoil(i: int, jpeg: bytes) -> bytes:
        return {4: jpeg[: len(jpeg) // 2], 9: jpeg[: len(jpeg) // 3], 13: b"<html></html>"}.get(i, jpeg)

    build = make_shards(24, width=120, height=90, recode=spoil)
    one, two = loader(build, "cpu"), loader(build, "dali")
    for a, b in zip(take(one, 4), take(two, 4), strict=True):
        assert (a.uids, a.captions, a.windows) == (b.uids, b.captions, b.windows)
        assert a.images.shape == b.images.shape
        assert a.images.stride() == b.images.stride()
        mean, high = differences(a.images, b.images)
        assert mean <= 2
        assert high <= 16
    assert sorted(one.replaced) == sorted(two.replaced)
    assert len(one.replaced) == 3


def test_dali_survives_what_only_it_refuses(make_shards: MakeShards) -> None:
    # Pillow reads GIF, DALI does not: the cpu engine takes it, DALI's pipeline dies, is rebuilt and replaces it.
    build = make_shards(16, width=60, height=60, recode=lambda i, jpeg: encoded(photo(60, 60), "GIF") if i == 5 else jpeg)
    (gif,) = [s.key for s in read_samples(read_manifest(build)) if s.members["jpg"][:3] == b"GIF"]
    order = [s.key for s in read_samples(read_manifest(build))]
    source = loader(build, "dali")
    batches = take(source, 3)
    assert all(b.images.shape == (8, 3, 40, 40) for b in batches)
    ((uid, replacement, why),) = source.replaced
    assert (uid, replacement) == (gif, order[(order.index(gif) + 1) % 16])
    assert "DALI" in why
    again = loader(build, "dali", replaced=source.replaced)
    for a, b in zip(take(again, 2, 1), batches[1:], strict=True):
        assert a.uids == b.uids
        assert torch.equal(a.images, b.images)


def test_check_names_what_does_not_decode(make_shards: MakeShards, capsys: pytest.CaptureFixture[str]) -> None:
    fine = make_shards(20, "fine")
    assert check(CheckConfig(manifest=fine, workers=1)) == 0
    assert capsys.readouterr().out == "20 of 20 images decode in DALI\n"
    build = make_shards(40, "spoilt", recode=lambda i, jpeg: jpeg[: len(jpeg) // 2] if i in (3, 30) else b"" if i == 7 else jpeg)
    bad = sorted(s.key for s in read_samples(read_manifest(build)) if s.members["jpg"][-2:] != b"\xff\xd9")
    assert check(CheckConfig(manifest=build, workers=1, json=True)) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == 40
    assert sorted(row["key"] for row in told["undecodable"]) == bad
    assert len(bad) == 3
