"""Colours of odd pictures: palettes, CMYK, gray, 16 bits and torn profiles; strips and turns of large ones; who may open files."""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import ADOBE_RGB, DISPLAY_P3, SRGB, as_srgb, encoded, exif, photo, profile
from PIL import Image, ImageOps

from shards import upright
from shards.proof import prove
from shards.upright import UndecodableError, open_image, profile_problem, upright_pixels, upright_rgb

ROOT = Path(__file__).resolve().parents[2]
SWAPPED = SRGB[:, ::-1]  # red and blue change places


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(upright_rgb(open_image(data)))


def cmyk_profile() -> bytes:
    """Return a CMYK profile whose lightness falls evenly with the ink, the darkest one counting: L* = 100 − 100·max/255, no colour."""
    corners = bytearray()
    for corner in range(16):
        corners += bytes((255 if corner == 0 else 0, 128, 128))
    even = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + even * 4 + bytes(corners) + even * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    at = 128 + 4 + 24
    directory = (
        struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", at, len(table)) + b"wtpt" + struct.pack(">II", at + len(table), len(white))
    )
    head = bytes(4) + bytes.fromhex("02400000") + b"prtr" + b"CMYK" + b"Lab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    body = head.ljust(124, b"\0") + directory + table + white
    return struct.pack(">I", len(body) + 4) + body


@pytest.mark.parametrize("primaries", [ADOBE_RGB, DISPLAY_P3, SWAPPED], ids=["Adobe RGB", "Display P3", "swapped"])
def test_a_palettes_profile_is_applied(primaries: np.ndarray) -> None:
    """Fails on the code of before, which knew profiles of RGB, RGBA, CMYK and L alone."""
    image = photo(32, 24).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    shown = pixels(encoded(image, "PNG", icc_profile=profile(primaries)))
    assert np.abs(shown - as_srgb(np.asarray(image.convert("RGB")), primaries)).max() <= 2


def test_a_palette_with_a_profile_and_a_transparent_colour() -> None:
    image = photo(32, 24).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    image.paste(7, (0, 0, 16, 24))
    shown = pixels(encoded(image, "PNG", transparency=7, icc_profile=profile(ADOBE_RGB)))
    assert (shown[:, :16] == 255).all()
    opaque = np.asarray(image)[:, 16:] != 7
    expected = as_srgb(np.asarray(image.convert("RGB"))[:, 16:], ADOBE_RGB)
    assert np.abs(shown[:, 16:] - expected)[opaque].max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_gray_with_a_gray_profile_and_with_one_for_colours(mode: str) -> None:
    image = photo(32, 24).convert("L").convert(mode)
    stored = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
    for made in (profile(None, 1.0), profile(ADOBE_RGB, 1.0)):  # equal red, green and blue are gray under any primaries
        assert np.abs(pixels(encoded(image, "PNG", icc_profile=made)) - as_srgb(stored, SRGB, 1.0)).max() <= 2


def test_cmyk_with_and_without_a_profile() -> None:
    """L* = 50 is sRGB's gray of 119 (CIE 1976, IEC 61966-2-1); without a profile half of the black ink is half of the levels."""
    half = Image.new("CMYK", (16, 16), (0, 0, 0, 128))
    for kind, options in (("TIFF", {}), ("JPEG", {"quality": 100})):
        assert np.abs(pixels(encoded(half, kind, icc_profile=cmyk_profile(), **options)).astype(int) - 119).max() <= 2
        assert np.abs(pixels(encoded(half, kind, **options)).astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    ("mode", "kind", "made", "words"),
    [
        ("RGB", "PNG", profile(None, 1.0), "a profile for gray in a picture of mode RGB"),
        ("RGB", "PNG", cmyk_profile(), "a profile for CMYK in a picture of mode RGB"),
        ("CMYK", "TIFF", profile(ADOBE_RGB), "a profile for RGB in a picture of mode CMYK"),
        ("RGB", "PNG", profile(ADOBE_RGB)[:200], "a colour profile that cannot be applied"),
        ("RGB", "PNG", b"x" * 40, "a profile for an unknown space of colours"),
    ],
)
def test_a_profile_that_cannot_be_applied_is_said_and_passed_over(mode: str, kind: str, made: bytes, words: str) -> None:
    image = photo(32, 24).convert(mode)
    data = encoded(image, kind, icc_profile=made)
    assert words in profile_problem(open_image(data))
    assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")))
    assert profile_problem(open_image(encoded(image, kind))) == ""


def test_16_bits_of_every_kind_keep_their_upper_8() -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (24, 32)).astype(np.uint16)
    upper = np.repeat((deep >> 8)[..., None], 3, axis=2)
    pgm = b"P5 32 24 65535\n" + deep.astype(">u2").tobytes()
    big_endian = Image.frombytes("I;16B", (32, 24), deep.astype(">u2").tobytes())
    for data in (pgm, encoded(Image.fromarray(deep), "PNG"), encoded(big_endian, "TIFF")):
        assert np.array_equal(pixels(data), upper)
    value = int(deep[3, 5])
    shown = pixels(encoded(Image.fromarray(deep), "PNG", transparency=value))
    assert (shown[deep == value] == 255).all()
    assert np.array_equal(shown[deep != value], upper[deep != value])


def files() -> dict[str, bytes]:
    image, alpha = photo(37, 23), photo(37, 23).convert("RGBA")
    alpha.putalpha(photo(37, 23, 1).convert("L"))
    deep = np.random.default_rng(0).integers(0, 2**16, (23, 37)).astype(np.uint16)
    return {
        "RGB": encoded(image, "PNG"), "RGBA": encoded(alpha, "PNG"), "LA": encoded(alpha.convert("LA"), "PNG"), "1": encoded(image.convert("1"), "PNG"),
        "P": encoded(image.convert("P"), "PNG", transparency=3, icc_profile=profile(ADOBE_RGB)), "I;16": encoded(Image.fromarray(deep), "PNG"),
        "CMYK": encoded(image.convert("CMYK"), "TIFF", icc_profile=cmyk_profile()), "JPEG": encoded(image), "WEBP": encoded(alpha, "WEBP"),
    }  # fmt: skip


@pytest.mark.parametrize("name", files())
def test_strips_are_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One strip of an image without strips is compared with seven, in a Pillow image and in an array."""
    whole = pixels(files()[name])
    monkeypatch.setattr(upright, "_STRIP", 37 * 4)
    assert np.array_equal(pixels(files()[name]), whole)
    assert np.array_equal(upright_pixels(open_image(files()[name])), whole)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("strip", [37 * 4, 1 << 22])
def test_turned_strips_are_what_pillow_turns(number: int, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upright, "_STRIP", strip)
    data = encoded(photo(37, 23), "PNG", exif=exif(number))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(pixels(data), expected)
    assert np.array_equal(upright_pixels(open_image(data)), expected)


def test_what_is_made_of_a_picture_carries_none_of_its_metadata() -> None:
    notes = {"comment": "taken at home", "exif": exif(1), "icc_profile": profile(SRGB)}
    for data in (encoded(photo(16, 16), **notes), encoded(photo(16, 16), "PNG", exif=exif(3))):
        shown = upright_rgb(open_image(data))
        for kind in ("JPEG", "PNG", "WEBP"):
            again = Image.open(io.BytesIO(encoded(shown, kind)))
            assert not {"comment", "exif", "icc_profile"} & set(again.info), kind


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "undecodable"), (b"P5 20000 20000 255\n", "too_large"), (b"Pf 1 1 -1.0\n" + bytes(4), "unsupported")]
)
def test_every_refusal_has_the_ledgers_word(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError) as refused:
        pixels(data)
    assert refused.value.reason == reason


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n%%EOF\n",
    b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 70) + bytes(20) + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
)


@pytest.mark.parametrize("data", POSTSCRIPT, ids=["text", "binary"])
def test_postscript_under_another_name_starts_no_program(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A false Ghostscript on the path would leave a mark; each room tries the bytes in its own way."""
    from curate.images import ImagePolicy, ImageRefusedError
    from curate.images import open_image as measured
    from curate.report.thumbnail import thumbnail
    from train.data.decode.cpu import EncodedImage

    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    Image.init()  # whatever else the program imports may have made Pillow know all of its formats
    for attempt, error in ((prove, UndecodableError), (pixels, UndecodableError), (EncodedImage, UndecodableError)):
        with pytest.raises(error):
            attempt(data)
    with pytest.raises(ImageRefusedError):
        measured(data, ImagePolicy())
    assert thumbnail(data) is None
    assert not (tmp_path / "started").exists()


def test_one_function_opens_turns_and_converts() -> None:
    """Elsewhere in the four rooms nothing opens a file with Pillow, turns a picture by its EXIF, or applies a profile."""
    words = re.compile(
        r"\bImage\.open\(|\bexif_transpose\b|\bImageCms\b|\bprofileToProfile\b|\bicc_profile\b|\bcv2\b|\bimageio\b|\bread_image\("
    )
    allowed = {"shards/upright.py", "train/data/decode/cpu.py"}  # the second asks whether a JPEG has a profile
    found = set()
    for room in ("shards", "curate", "train", "eval"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if words.search(path.read_text()):
                found.add(str(path.relative_to(ROOT)))
    assert found <= allowed
    opened = re.compile(r"\bImage\.open\((?!.*formats=)")
    for path in (*(ROOT / "demo").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        assert not opened.search(path.read_text()), path.name
