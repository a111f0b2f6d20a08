"""Both engines on drawn pictures: equal crops, bad images named and replaced alike, a whole build proven."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pictures import ADOBE_RGB, DISPLAY_P3, differences, encoded, exif, photo, profile, stray
from PIL import Image, ImageCms

from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.upright import UndecodableError, open_image, upright_rgb
from train.data.augment.params import Augment, Window, centre_window, uniforms, window
from train.data.batch import Batch, Needs
from train.data.decode.cpu import EncodedImage, decode
from train.data.decode.resample import BICUBIC, BILINEAR
from train.data.loader import Loader

MakeShards = Callable[..., str]
LCMS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def upright(data: bytes, window: Window, size: int) -> Any:
    """Return a window as Pillow crops and resizes it, of the one picture that all commands see."""
    image = upright_rgb(open_image(data))
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC))


def without_frame(data: bytes) -> bytes:
    """Return a JPEG without its frame header, over which simplejpeg's own header reader raises KeyError."""
    start = data.index(b"\xff\xc0")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def broken_tables(data: bytes) -> bytes:
    """Return a JPEG with impossible Huffman tables: its header is fine, so that only a decode can tell."""
    start = data.index(b"\xff\xc4")
    return data[: start + 5] + b"\xff" * 16 + data[start + 21 :]


def transparent(image: Image.Image) -> Image.Image:
    rgba = np.asarray(image.convert("RGBA")).copy()
    rgba[..., 3] = np.linspace(0, 255, rgba.shape[1]).astype(np.uint8)
    return Image.fromarray(rgba)


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda i: encoded(i, quality=92),
    "gray": lambda i: encoded(i.convert("L")),
    "progressive": lambda i: encoded(i, progressive=True),
    "444": lambda i: encoded(i, subsampling=0),
    "stray bytes": lambda i: stray(encoded(i)),
    "cmyk": lambda i: encoded(i.convert("CMYK")),
    "png": lambda i: encoded(i, "PNG", compress_level=1),
    "webp": lambda i: encoded(i, "WEBP", method=0),
    "gif": lambda i: encoded(i, "GIF"),
    "exif 1": lambda i: encoded(i, exif=exif(1)),
    "sRGB profile": lambda i: encoded(i, icc_profile=LCMS_SRGB),
    "Adobe RGB": lambda i: encoded(i, icc_profile=profile(ADOBE_RGB)),
    "Display P3": lambda i: encoded(i, icc_profile=profile(DISPLAY_P3)),
    "gray profile": lambda i: encoded(i.convert("L"), icc_profile=profile(None, 1.4)),
    "alpha": lambda i: encoded(transparent(i), "PNG", compress_level=1),
    "16 bits": lambda i: encoded(Image.fromarray(np.asarray(i.convert("L")).astype(np.uint16) * 257), "PNG", compress_level=1),
}
PLAIN = {"jpeg", "gray", "progressive", "444", "exif 1", "sRGB profile"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Return one picture, 800 × 600, in all kinds."""
    image = photo(800, 600)
    return {kind: write(image) for kind, write in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_engine_equals_pillow(files: dict[str, bytes], kind: str) -> None:
    image = EncodedImage(files[kind])
    assert (image.height, image.width, image.plain) == (600, 800, kind in PLAIN)
    for place in (Window(10, 21, 130, 140), Window(33, 51, 501, 650), Window(0, 0, 600, 800)):
        mean, high = differences(decode(files[kind], place, 96), upright(files[kind], place, 96))
        assert mean <= 0.7, place
        assert high <= 3, place


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_windows_are_of_the_upright_picture(kind: str, number: int) -> None:
    data = encoded(photo(160, 120), kind, exif=exif(number))
    image = EncodedImage(data)
    assert (image.height, image.width) == ((160, 120) if number > 4 else (120, 160))
    place = Window(5, 7, 100, 60)
    mean, high = differences(decode(data, place, 40), upright(data, place, 40))
    assert mean <= 0.7
    assert high <= 3


def test_several_windows_are_cut_from_one_decode() -> None:
    data = encoded(photo(900, 700))
    places = [Window(0, 0, 690, 900), Window(100, 50, 200, 220), Window(300, 400, 400, 300)]
    outs = [np.zeros((64, 64, 3), np.uint8) for _ in places]
    EncodedImage(data).crops_into(outs, places, [BICUBIC] * 3)
    for out, place in zip(outs, places, strict=True):
        mean, high = differences(out, upright(data, place, 64))
        assert mean <= 0.7
        assert high <= 3


def test_fast_decoding_is_near() -> None:
    data = encoded(photo(1000, 800), quality=92)
    out = np.zeros((96, 96, 3), np.uint8)
    EncodedImage(data).crops_into([out], [Window(33, 51, 701, 850)], [BICUBIC], fast=True)
    mean, high = differences(out, upright(data, Window(33, 51, 701, 850), 96))
    assert 0 < mean <= 2
    assert high <= 10


def test_the_centre_is_resize_and_centre_crop() -> None:
    import torchvision.transforms as T

    data = encoded(photo(640, 480))
    evaluation = T.Compose([T.Resize(96, T.InterpolationMode.BICUBIC), T.CenterCrop(96)])
    mean, high = differences(decode(data, centre_window(480, 640), 96), np.asarray(evaluation(Image.open(io.BytesIO(data)))))
    assert mean <= 0.7
    assert high <= 4


def test_cut_images_are_refused_wherever_the_cut_lies() -> None:
    data = encoded(photo(200, 160), quality=90)
    for length in (0, 3, 100, len(data) // 2, len(data) * 95 // 100, len(data) - 2):
        with pytest.raises(UndecodableError):
            EncodedImage(data[:length])  # whatever part of it a crop would use
    EncodedImage(data + bytes(5000))  # junk after the end is none of ours
    turned = encoded(photo(200, 160), exif=exif(6))
    for length in (len(turned) // 2, len(turned) - 2):
        with pytest.raises(UndecodableError):
            EncodedImage(turned[:length])


def mutated(rng: random.Random, base: list[bytes]) -> bytes:
    """Return one of some files cut, with some bytes changed, left out or put in, mostly in its header."""
    data, kind = bytearray(rng.choice(base)), rng.randrange(4)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    at = rng.randrange(min(len(data), 700))
    if kind == 1:
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(min(len(data), 700))] = rng.randrange(256)
    elif kind == 2:
        del data[at : at + rng.randrange(1, 200)]
    else:
        data[at:at] = rng.randbytes(rng.randrange(1, 20))
    return bytes(data)


def test_mutated_pictures_are_decoded_or_refused_and_nothing_else() -> None:
    image = photo(64, 48)
    base = [encoded(image), encoded(image.convert("L")), encoded(image.convert("CMYK")), encoded(image, progressive=True)]
    base += [encoded(image, exif=exif(6)), encoded(image, icc_profile=profile(ADOBE_RGB)), encoded(image, "PNG"), encoded(image, "WEBP")]
    rng, outcomes = random.Random(1), Counter[str]()
    for number in range(2000):
        data = mutated(rng, base)
        try:
            read = EncodedImage(data)
            if read.height * read.width > 5_000_000:
                outcomes["huge"] += 1
                continue
            decode(data, window(Augment(), uniforms(0, 0, str(number)), read.height, read.width), 32)
            outcomes["fine"] += 1
        except UndecodableError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 500
    assert outcomes["fine"] > 500
    assert outcomes["huge"] < 200


def loader(build: str, engine: str, **options: Any) -> Loader:
    needs = options.pop("needs", Needs(views=(Augment(scale=(0.3, 1.0)),), captions=True))
    settings = {"batch_size": 8, "image_size": 40, "seed": 3, "workers": 2, **options}
    return Loader([(read_manifest(build), None)], engine=engine, needs=needs, **settings)


def take(source: Loader, n: int, start: int = 0) -> list[Batch]:
    with contextlib.closing(source.batches(start)) as batches:
        return list(itertools.islice(batches, n))


def assert_alike(one: Batch, two: Batch) -> None:
    assert (one.uids, one.captions, one.replaced) == (two.uids, two.captions, two.replaced)
    for a, b in zip(one.views, two.views, strict=True):
        assert a.windows == b.windows
        assert (a.images.shape, a.images.stride()) == (b.images.shape, b.images.stride())
        assert np.array_equal(a.images, b.images)  # on a CPU both decode with libjpeg-turbo, and resize alike


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_fast_crops_are_bilinear_whatever_the_view_asks_for(make_shards: MakeShards, engine: str) -> None:
    build = make_shards(8, recode=lambda i, jpeg: encoded(photo(90, 70, i)))
    batch = take(loader(build, engine, fast=True), 1)[0]
    pictures = {s.key: s.members["jpg"] for s in read_samples(read_manifest(build))}
    for uid, place, pixels in zip(batch.uids, batch.windows, batch.images, strict=True):
        apart = []
        for kind in (BILINEAR, BICUBIC):
            expected = np.empty((40, 40, 3), np.uint8)
            EncodedImage(pictures[uid]).crops_into([expected], [place], [kind], fast=True)
            apart.append(differences(pixels.permute(1, 2, 0), expected)[0])
        # Equal with libjpeg-turbo; DALI's own way to its faster transform differs by some levels in these strong colours.
        assert apart[0] <= (0 if engine == "cpu" else 3)
        assert apart[0] < apart[1]


def spoil(i: int, jpeg: bytes) -> bytes:
    """Two pictures are cut, one is no image, one lacks its frame, and of two only a decode can tell that they are broken."""
    changed = {4: jpeg[: len(jpeg) // 2], 9: jpeg[: len(jpeg) // 3], 13: b"<html></html>", 2: without_frame(jpeg)}
    return changed.get(i, broken_tables(jpeg) if i in (7, 18) else jpeg)


def test_both_engines_give_the_same_batches(make_shards: MakeShards) -> None:
    # Neither engine dies, both replace the same pictures alike.
    build = make_shards(24, width=120, height=90, recode=spoil)
    one, two = loader(build, "cpu"), loader(build, "dali")
    for a, b in zip(take(one, 6), take(two, 6), strict=True):
        assert_alike(a, b)
    assert set(one.bad) == set(two.bad)
    assert len(one.bad) == 6
    assert sum("DALI" in bad.why for bad in two.bad.values()) == 2


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"jpeg"}))
def test_both_engines_see_the_same_picture(make_shards: MakeShards, kind: str) -> None:
    build = make_shards(4, recode=lambda i, jpeg: KINDS[kind](photo(90, 70, i)))
    one, two = loader(build, "cpu", batch_size=4), loader(build, "dali", batch_size=4)
    (first,), (second,) = take(one, 1), take(two, 1)
    assert (one.bad, two.bad) == ({}, {})
    assert_alike(first, second)
    pictures = {s.key: s.members["jpg"] for s in read_samples(read_manifest(build))}
    for uid, place, pixels in zip(first.uids, first.windows, first.images, strict=True):
        mean, _ = differences(pixels.permute(1, 2, 0), upright(pictures[uid], place, 40))
        assert mean <= 1


TWO_VIEWS = Needs(views=(Augment(scale=(0.3, 1.0)), Augment(scale=(0.1, 0.5), interpolation="bilinear")), captions=True)


def mixed(i: int, jpeg: bytes) -> bytes:
    """Some pictures are PNGs, which the reading threads decode, and some only DALI's decode finds out."""
    if i % 5 == 1:
        return encoded(Image.open(io.BytesIO(jpeg)), "PNG")
    return broken_tables(jpeg) if i in (8, 12, 13, 30) else jpeg


def without_overlap(build: str, steps: int) -> list[list[np.ndarray]]:
    """Return the images of DALI's batches by view, made one after the other."""
    source = loader(build, "dali", needs=TWO_VIEWS)
    maker = source._maker
    images = []
    with contextlib.closing(maker.run(0, lambda _: maker.new_slot(), ahead=0)) as made:
        for _, slot in itertools.islice(made, steps):
            images.append([view.copy() for view in slot.images])
    return images


def test_overlapping_batches_are_those_made_one_by_one(make_shards: MakeShards) -> None:
    build = make_shards(40, width=90, height=70, recode=mixed)
    source = loader(build, "dali", needs=TWO_VIEWS, workers=3)
    batches = take(source, 10)
    assert len(source.bad) == 4
    assert sum(batch.replaced for batch in batches) == 8  # in two epochs
    for batch, images in zip(batches, without_overlap(build, 10), strict=True):
        for view, expected in zip(batch.views, images, strict=True):
            assert np.array_equal(view.images.permute(0, 2, 3, 1).numpy(), expected)
    for batch, other in zip(batches, take(loader(build, "cpu", needs=TWO_VIEWS), 10), strict=True):
        assert_alike(batch, other)
    known = loader(build, "dali", needs=TWO_VIEWS)
    known.restore(list(source.bad.values()))
    for batch, other in zip(take(known, 6, start=4), batches[4:], strict=True):
        assert batch.uids == other.uids
        assert all(np.array_equal(a.images.numpy(), b.images.numpy()) for a, b in zip(batch.views, other.views, strict=True))


def test_stand_ins_that_fail_too_are_replaced_as_if_that_had_been_known(make_shards: MakeShards) -> None:
    # Half of the pictures only DALI's decode finds out, so stand-ins fail as well, in round after round.
    build = make_shards(16, recode=lambda i, jpeg: broken_tables(jpeg) if i % 2 else jpeg)
    source = loader(build, "dali")
    batches = take(source, 4)
    assert len(source.bad) == 8
    known = loader(build, "dali")
    known.restore(list(source.bad.values()))
    for other in (known, loader(build, "cpu")):
        assert [batch.positions.tolist() for batch in take(other, 4)] == [batch.positions.tolist() for batch in batches]


def test_closing_early_never_waits_for_ever(make_shards: MakeShards) -> None:
    build = make_shards(40, recode=lambda i, jpeg: broken_tables(jpeg) if i == 20 else jpeg)
    for attempt in range(20):
        assert len(take(loader(build, "dali", workers=1 + attempt % 3), attempt % 3)) == attempt % 3
