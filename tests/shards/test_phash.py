"""The linear hashes against their naive twin, Pillow's resize and scipy's DCT; sums that no order changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dct

from shards.phash import _linear, _read, _side, phash
from tests.curate.drawing import encoded, picture


def rich(i: int, size: tuple[int, int]) -> Image.Image:
    """Return a picture with structure in all the frequencies that the hash reads."""
    small = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def twin(pixels: np.ndarray) -> np.ndarray:
    """Return the 8×8 coefficients of pixels that Pillow has resized in floating point: no rounding, no clipping."""
    small = np.asarray(Image.fromarray(pixels.astype(np.float32), "F").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    return dct(dct(small, axis=0), axis=1)[:8, :8]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_one_matrix_a_side_resizes_and_transforms(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    (left, a), (right, b) = _side(height), _side(width)
    found, expected = left @ pixels.astype(np.float64) @ right.T / (a * b), twin(pixels)
    assert np.abs(found - expected).max() < 0.002 * np.abs(expected).max()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 255), st.integers(1, 2048), st.integers(0, 2**32 - 1))
def test_sums_are_exact_so_that_no_order_changes_them(height: int, width: int, seed: int) -> None:
    """The sides that a scaled decode leaves; brightest pixels where a weight is positive, for the largest sums."""
    rng = np.random.default_rng(seed)
    left, right = _side(height)[0], _side(width)[0]
    assert (left == np.rint(left)).all()
    assert np.abs(left).max() <= 2**13
    worst = 255 * (np.outer(left[rng.integers(8)], right[rng.integers(8)]) > 0)
    for pixels in (worst, rng.integers(0, 256, (height, width))):
        exact = left.astype(np.int64) @ pixels.astype(np.int64) @ right.astype(np.int64).T
        assert np.abs(exact).max() < 2**53
        assert (left @ pixels.astype(np.float64) @ right.T == exact).all()


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (256, 256), (130, 90), (33, 97), (3000, 40)])
def test_the_linear_hashes_are_near_the_reference(size: tuple[int, int]) -> None:
    bits = {kind: [] for kind in ("scaled", "fast")}
    for i in range(12):
        content = encoded(rich(i, size))
        reference = phash(content, size, False, "reference")
        for kind, found in bits.items():
            other = phash(content, size, False, kind)
            found.append((reference.phash ^ other.phash).bit_count())
            assert other.information == pytest.approx(reference.information, rel=0.05, abs=0.5)
    assert np.median(bits["scaled"]) <= 2
    assert max(bits["scaled"]) <= 4
    assert max(bits["fast"]) <= 8


def test_a_gray_jpeg_has_the_hash_of_the_same_gray_in_colour() -> None:
    """Lossless on both ways: a gray file's luma is decoded alike, so the reference of its pixels as RGB is imagededup's, too."""
    from imagededup.methods import PHash

    for i in range(5):
        content = encoded(picture(i, 120, 90).convert("L"))
        array = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert f"{phash(content, (120, 90), True, 'reference').phash:016x}" == PHash(verbose=False).encode_image(image_array=array)


def test_information_is_a_deviation_in_gray_levels() -> None:
    x = np.arange(320)
    wave = (128 + 50 * np.cos(np.pi * 3 * (x + 0.5) / 320)).round().astype(np.uint8)  # one of the 8×8 coefficients
    assert _linear(np.tile(wave, (200, 1)))[1] == pytest.approx(wave.std(), rel=0.02)
    assert _linear(np.full((200, 320), 90, np.uint8))[1] < 0.2
    assert _read(np.zeros((8, 8)), 1.0) == (2**64 - 1, 0.0)


def test_colours_are_the_means_of_sixteen_parts() -> None:
    """Oracle: JFIF's matrix on the means of the pixels that were encoded; quality 95 moves a mean by less than 2 levels."""
    rng = np.random.default_rng(3)
    cells = rng.integers(30, 226, (4, 4, 3))
    image = Image.fromarray(np.repeat(np.repeat(cells, 60, axis=0), 80, axis=1).astype(np.uint8))
    chroma = cells @ np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]).T + 128
    for kind in ("reference", "scaled", "fast"):
        found = phash(encoded(image, quality=95, subsampling=0), image.size, False, kind)
        levels = np.frombuffer(bytes.fromhex(found.colours), np.uint8).reshape(2, 4, 4)
        assert np.abs(levels - chroma.transpose(2, 0, 1)).max() < 2
        assert found.colour == pytest.approx(np.hypot(*(chroma - 128).transpose(2, 0, 1)).max(), abs=3)


@pytest.mark.parametrize("kind", ["reference", "scaled", "fast"])
def test_gray_is_told_however_it_is_stored(kind: str) -> None:
    gray = rich(4, (300, 200)).convert("L")
    for quality in (20, 60, 95):
        assert phash(encoded(gray, quality=quality), gray.size, True, kind).colour == 0.0
        assert phash(encoded(gray.convert("RGB"), quality=quality), gray.size, False, kind).colour == 0.0
    assert phash(encoded(rich(4, (300, 200))), gray.size, False, kind).colour > 20
