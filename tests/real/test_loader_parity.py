"""The two engines on real photographs: same crops, mean difference ≤ 2 levels, 99th percentile ≤ 16."""

from __future__ import annotations

import contextlib
import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from shards.manifest import Manifest
from shards.sample import uid_of
from shards.writer import write_shard
from train.augment import Augment
from train.loader import Loader


def build(folder: Path, images: list[bytes]) -> Manifest:
    """Write images as one shard and return its manifest."""
    keys = [uid_of("photos", str(i)) for i in range(len(images))]
    table = pa.table({"key": keys, "uid": keys, "caption": ["a photo"] * len(keys)})
    entry = write_shard(str(folder), "00000", [(k, {"jpg": data, "txt": b"a photo"}) for k, data in zip(keys, images, strict=True)], table)
    return Manifest(samples=len(keys), bytes=entry.bytes, shards=(entry,), folder=str(folder))


def photos(realdata: Path) -> list[bytes]:
    return [p.read_bytes() for p in sorted((realdata / "pairs").glob("*/images/*.jpg"))]


def recoded(data: bytes, **options: object) -> bytes:
    image = Image.open(io.BytesIO(data))
    mode = str(options.pop("mode", "RGB"))
    out = io.BytesIO()
    image.convert(mode).save(out, "JPEG", quality=92, **options)  # type: ignore[arg-type]
    return out.getvalue()


def mosaic(images: list[bytes], start: int) -> bytes:
    """Return 4 × 4 photographs as one JPEG of 1280 × 960: real detail at a size where scaled decoding sets in."""
    sheet = Image.new("RGB", (1280, 960))
    for i in range(16):
        photo = Image.open(io.BytesIO(images[(start + i) % len(images)])).convert("RGB").resize((320, 240))
        sheet.paste(photo, (i % 4 * 320, i // 4 * 240))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=92)
    return out.getvalue()


def differences(images: list[bytes], folder: Path, size: int) -> tuple[float, float, float]:
    """Return the engines' mean difference in levels, its 99th percentile, and the worst image's mean."""
    manifest = build(folder, images)
    sides = []
    for engine in ("cpu", "dali"):
        augment = Augment(scale=(0.5, 1.0))
        source = Loader([(manifest, None)], batch_size=8, image_size=size, seed=0, engine=engine, workers=2, augment=augment)
        with contextlib.closing(source.batches()) as batches:
            sides.append(list(itertools.islice(batches, len(images) // 8)))
        assert source.replaced == []
    apart = []
    for one, two in zip(*sides, strict=True):
        assert (one.uids, one.windows) == (two.uids, two.windows)
        apart.append(np.abs(one.images.numpy().astype(int) - two.images.numpy().astype(int)))
    levels = np.concatenate(apart)
    return float(levels.mean()), float(np.percentile(levels, 99)), float(levels.mean((1, 2, 3)).max())


def of_kind(kind: str, images: list[bytes]) -> list[bytes]:
    if kind == "gray":
        return [recoded(data, mode="L") for data in images[:100]]
    if kind == "progressive":
        return [recoded(data, progressive=True) for data in images[:100]]
    return [mosaic(images, 16 * k) for k in range(24)] if kind == "mosaics" else images


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("kind", ["as they are", "gray", "progressive", "mosaics"])
def test_engines_agree(realdata: Path, tmp_path: Path, kind: str, size: int) -> None:
    images = of_kind(kind, photos(realdata))
    assert len(images) >= 24
    mean, high, worst = differences(images, tmp_path, size)
    assert mean <= 2, (mean, high, worst)
    assert high <= 16, (mean, high, worst)
