"""Opening images: what is kept byte for byte, what is encoded again, what is refused; the hash is imagededup's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from drawing import encoded, picture
from PIL import Image

from curate.images import ImagePolicy, ImageRefusedError, open_image
from shards.phash import LOW_INFORMATION

KEEP = ImagePolicy()


def stored(content: bytes, policy: ImagePolicy = KEEP) -> Image.Image:
    return Image.open(io.BytesIO(open_image(content, policy).encoded or content))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_plain_jpegs_are_kept_byte_for_byte(mode: str, progressive: bool) -> None:
    opened = open_image(encoded(picture(1).convert(mode), progressive=progressive), KEEP)
    assert opened.encoded is None
    assert (opened.width, opened.height, opened.original_format) == (80, 64, "JPEG")


def test_an_exif_rotated_jpeg_becomes_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(picture(2), exif=exif.tobytes())
    opened = open_image(content, KEEP)
    assert opened.encoded is not None
    assert (opened.width, opened.height) == (64, 80)
    assert (opened.original_width, opened.original_height) == (80, 64)
    upright = np.asarray(stored(content)).astype(int)
    assert np.abs(upright - np.asarray(picture(2).rotate(-90, expand=True)).astype(int)).mean() < 4


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_become_jpeg_in_rgb(form: str) -> None:
    image = stored(encoded(picture(3), form))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (80, 64))


def test_alpha_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert stored(encoded(clear, "PNG")).getpixel((20, 20)) == (255, 255, 255)


def test_cmyk_and_16_bit_are_converted() -> None:
    assert stored(encoded(picture(4).convert("CMYK"))).mode == "RGB"
    deep = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    gray = np.asarray(stored(encoded(deep, "PNG")).convert("L")).astype(int)
    assert abs(gray[0, 0]) < 4
    assert abs(gray[-1, -1] - 255) < 4
    assert abs(gray[32, 0] - 128) < 4  # scaled, not clipped


def test_an_animation_gives_its_first_frame() -> None:
    content = encoded(picture(5), "GIF", save_all=True, append_images=[picture(6)], duration=50)
    difference = np.abs(np.asarray(stored(content)).astype(int) - np.asarray(picture(5)).astype(int))
    assert difference.mean() < 16


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncation_is_refused(share: float) -> None:
    for form in ("JPEG", "PNG"):
        content = encoded(picture(7, 300, 200), form)
        with pytest.raises(ImageRefusedError) as error:
            open_image(content[: int(len(content) * share)], KEEP)
        assert error.value.reason == "undecodable"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_and_closed_with_an_end_marker_is_refused(progressive: bool) -> None:
    content = encoded(picture(7, 300, 200), progressive=progressive)
    cut = content[: len(content) // 2] + b"\xff\xd9"
    with pytest.raises(ImageRefusedError) as error:
        open_image(cut, KEEP)
    assert error.value.reason == "undecodable"


@pytest.mark.parametrize("content", [b"", b"<html>no such picture</html>", b"\xff\xd8\xff", bytes(100)])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ImageRefusedError) as error:
        open_image(content, KEEP)
    assert error.value.reason == "undecodable"


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    content = encoded(Image.new("L", (1, 1)), "PNG")
    bomb = content[:16] + (20000).to_bytes(4, "big") + (20000).to_bytes(4, "big") + content[24:29]
    import zlib

    bomb += zlib.crc32(bomb[12:29]).to_bytes(4, "big") + content[33:]
    with pytest.raises(ImageRefusedError) as error:
        open_image(bomb, KEEP)
    assert error.value.reason == "too_large"


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        (ImagePolicy(size=40), (40, 32)),
        (ImagePolicy(size=40, mode="keep_ratio"), (50, 40)),
        (ImagePolicy(size=40, mode="center_crop"), (40, 40)),
        (ImagePolicy(size=200), (80, 64)),
        (ImagePolicy(size=160, only_if_bigger=False), (160, 128)),
    ],
)
def test_size_policies(policy: ImagePolicy, size: tuple[int, int]) -> None:
    opened = open_image(encoded(picture(8)), policy)
    assert (opened.width, opened.height) == size
    assert (opened.encoded is None) == (size == (80, 64))


def test_the_hash_is_imagededups() -> None:
    from imagededup.methods import PHash

    reference = PHash(verbose=False)
    for i in range(20):
        for image in (picture(i), picture(i).convert("L"), picture(i, 33, 97)):
            content = encoded(image)
            array = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA").convert("RGB"))
            assert f"{open_image(content, KEEP, 'reference').phash:016x}" == reference.encode_image(image_array=array)


def test_information_is_the_deviation_of_the_low_frequencies() -> None:
    assert open_image(encoded(Image.new("RGB", (64, 64), "gray")), KEEP).information < 0.5
    x = np.arange(32)
    wave = (128 + 60 * np.cos(np.pi * 3 * (x + 0.5) / 32)).round().astype(np.uint8)  # one DCT coefficient of 8×8
    content = encoded(Image.fromarray(np.tile(wave, (32, 1))), "PNG")
    assert open_image(content, KEEP).information == pytest.approx(wave.std(), rel=0.03)
    assert open_image(encoded(picture(9)), KEEP).information > LOW_INFORMATION
