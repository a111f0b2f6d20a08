"""The loader on real photographs: the engines against each other, our resizing against Pillow's, odd files in both engines."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pictures import differences
from PIL import Image

from shards.manifest import Manifest
from shards.sample import uid_of
from shards.upright import UndecodableError, open_image, upright_rgb
from shards.writer import write_shard
from train.data.augment.params import Augment, Window
from train.data.batch import Batch, Needs
from train.data.decode.cpu import EncodedImage, decode
from train.data.decode.resample import BICUBIC, BILINEAR, resize_into
from train.data.loader import Loader

PILLOW = {BICUBIC: Image.Resampling.BICUBIC, BILINEAR: Image.Resampling.BILINEAR}


def build(folder: Path, images: list[bytes]) -> Manifest:
    """Write images as one shard and return its manifest."""
    keys = [uid_of("photos", str(i)) for i in range(len(images))]
    table = pa.table({"key": keys, "uid": keys, "caption": ["a photo"] * len(keys)})
    entry = write_shard(str(folder), "00000", [(k, {"jpg": data, "txt": b"a photo"}) for k, data in zip(keys, images, strict=True)], table)
    return Manifest(samples=len(keys), bytes=entry.bytes, shards=(entry,), folder=str(folder))


def files_of(realdata: Path) -> list[bytes]:
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


def batches_of(manifest: Manifest, engine: str, size: int, n: int) -> tuple[Loader, list[Batch]]:
    needs = Needs(views=(Augment(scale=(0.5, 1.0)),))
    source = Loader([(manifest, None)], batch_size=8, image_size=size, seed=0, engine=engine, workers=2, needs=needs)
    with contextlib.closing(source.batches()) as batches:
        return source, list(itertools.islice(batches, n))


def apart(images: list[bytes], folder: Path, size: int) -> tuple[float, float, float]:
    """Return the engines' mean difference in levels, its 99th percentile, and the worst image's mean."""
    manifest = build(folder, images)
    sides = []
    for engine in ("cpu", "dali"):
        source, batches = batches_of(manifest, engine, size, len(images) // 8)
        assert source.bad == {}
        sides.append(batches)
    parts = []
    for one, two in zip(*sides, strict=True):
        assert (one.uids, one.windows) == (two.uids, two.windows)
        parts.append(np.abs(one.images.numpy().astype(int) - two.images.numpy().astype(int)))
    levels = np.concatenate(parts)
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
    images = of_kind(kind, files_of(realdata))
    assert len(images) >= 24
    mean, high, worst = apart(images, tmp_path, size)
    assert mean <= 2, (mean, high, worst)
    assert high <= 16, (mean, high, worst)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BICUBIC, BILINEAR])
def test_resizing_is_pillows(realdata: Path, kind: int) -> None:
    rng = np.random.default_rng(0)
    means = []
    for data in files_of(realdata)[:120:2]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        width, height = image.size
        left, top = rng.uniform(0, width / 3), rng.uniform(0, height / 3)
        box = (left, top, rng.uniform(left + width / 3, width), rng.uniform(top + height / 3, height))
        corner = (math.floor(left), math.floor(top))
        cut = image.crop((*corner, math.ceil(box[2]), math.ceil(box[3])))
        inside = (left - corner[0], top - corner[1], box[2] - corner[0], box[3] - corner[1])
        for size in (64, 224, 600):  # down, near, up
            out = np.empty((size, size, 3), np.uint8)
            resize_into(out, np.asarray(image), box[1], box[0], box[3] - box[1], box[2] - box[0], kind)
            mean, high = differences(out, cut.resize((size, size), PILLOW[kind], box=inside))
            assert mean <= 0.5, (mean, high, image.size, size)
            assert high <= 2, (mean, high, image.size, size)
            means.append(mean)
    assert 0 < np.mean(means) <= 0.3


@pytest.mark.slow
def test_crops_are_pillows(realdata: Path) -> None:
    images = files_of(realdata)
    for number, data in enumerate([*images[:40], *(mosaic(images, 16 * k) for k in range(6))]):
        encoded = EncodedImage(data)
        place = Window(encoded.height // 9, encoded.width // 7, encoded.height * 3 // 4, encoded.width * 3 // 4)
        whole = upright_rgb(open_image(data))
        box = (place.left, place.top, place.left + place.width, place.top + place.height)
        mean, _ = differences(decode(data, place, 128), whole.crop(box).resize((128, 128), Image.Resampling.BICUBIC))
        assert mean <= 1, (number, mean)


def test_odd_files_are_the_same_picture_in_both_engines_or_refused_by_both(realdata: Path, tmp_path: Path) -> None:
    paths = sorted((realdata / "odd-images").glob("*.*"))
    files = {p.name: p.read_bytes() for p in paths if p.name != "expected.csv"}
    assert len(files) >= 40
    manifest = build(tmp_path, list(files.values()))
    steps = -(-len(files) // 8)
    (one, first), (two, second) = (batches_of(manifest, engine, 48, steps) for engine in ("cpu", "dali"))
    names = list(files)
    refused = {names[position] for _, position in one.bad}
    assert refused == {names[position] for _, position in two.bad}
    assert "jpeg-decoder__crashtest_missing-sof.jpg" in refused
    assert not refused & {name for name in files if "hopper_orientation" in name or "cmyk" in name or name.endswith("hopper.webp")}
    for a, b in zip(first, second, strict=True):
        assert (a.uids, a.windows) == (b.uids, b.windows)
        for row, position in enumerate(a.positions.tolist()):
            mean, _ = differences(a.images[row], b.images[row])
            assert mean <= 2, names[position]
            place = a.windows[row]
            box = (place.left, place.top, place.left + place.width, place.top + place.height)
            seen = upright_rgb(open_image(files[names[position]])).resize((48, 48), Image.Resampling.BICUBIC, box=box)
            mean, _ = differences(a.images[row].permute(1, 2, 0), seen)
            # Pillow clips what overshoots between its two passes: that shows in pictures of black and white alone (1.9).
            assert mean <= (2.5 if "1_trns" in names[position] else 1), names[position]
    for name in refused:
        with pytest.raises(UndecodableError):
            image = EncodedImage(files[name])
            decode(files[name], Window(0, 0, image.height, image.width), 48)
